"""The page docs/behaviour.md: its behaviours, the rule of their prose, and the links that lead to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/behaviour.md"
BEHAVIOUR = ROOT / PAGE

#: In the order of the page.
PREFIXES = (
    *("CFG", "SUB", "LEA", "UNS", "CTX", "EVT", "GET", "DER", "SYN", "CON", "LIM"),
    *("AUT", "WHK", "SES", "AUD", "RAT", "SEC", "OPS", "CSL", "NOD", "CLT", "IDM"),
)
ID = re.compile(rf"\b(?:{'|'.join(PREFIXES)})-[1-9][0-9]*\b")

#: The heading behind which the retired numbers stand.
RETIRED = "\n## Retired\n"

#: Bounds of a behaviour's text, in sentences and in words. A title and an item of a list or table have words only.
MAX_SENTENCES, MAX_WORDS = 3, 20

_BEHAVIOUR = re.compile(r"^### (.+)\n((?:(?!#).*\n?)*)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_TITLE = re.compile(r"\s*\*\*(.+?)\.\*\*(?:\s|$)")
_ITEM = re.compile(r"^(?:- |[0-9]+\. |\|)")
_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_TO_PAGE = re.compile(r"behaviour\.md#([^\s)\]>\"'`]+)")
_WITHIN_PAGE = re.compile(r"\]\(#([^)\s]+)\)")
#: Folders whose Markdown is not the repository's own.
_FOREIGN = {"node_modules", "build"}


class Behaviour(NamedTuple):
    """A `###` heading of the page, the title in bold below, and the text behind the title."""

    heading: str
    title: str
    text: str


def behaviours(page: str) -> list[Behaviour]:
    """In the order of the page, with those of wrong headings."""
    rules, _, _ = page.partition(RETIRED)
    found = []
    for heading, text in _BEHAVIOUR.findall(rules):
        title = _TITLE.match(text)
        rest = text[title.end() if title else 0 :].strip()
        found.append(Behaviour(heading, title[1] if title else "", rest))
    return found


def prefix(behaviour: str) -> str:
    return behaviour.partition("-")[0]


def by_page(behaviour: str) -> tuple[int, int]:
    """Sorts ids by the page's prefixes, and 2 before 10."""
    return PREFIXES.index(prefix(behaviour)), int(behaviour.partition("-")[2])


def defined(page: str) -> list[str]:
    """The ids that have a heading, sorted."""
    return sorted({each.heading for each in behaviours(page) if ID.fullmatch(each.heading)}, key=by_page)


def retired(page: str) -> dict[str, str]:
    """Retired ids, and the ids that replace them."""
    _, _, gone = page.partition(RETIRED)
    return dict(re.findall(rf"({ID.pattern}): ({ID.pattern})", _LINK.sub(r"\1", gone)))


def anchor(heading: str) -> str:
    """The anchor of a heading. GitHub and mkdocs make the same of letters, digits, spaces and hyphens."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def link(behaviour: str) -> str:
    return f"{PAGE}#{anchor(behaviour)}"


def sentences(text: str) -> list[str]:
    """The sentences of a text, without those of lists and tables. A code span is one word, a link its words."""
    prose = " ".join(line for line in text.splitlines() if not _ITEM.match(line)).strip()
    return _SENTENCE_END.split(_plain(prose)) if prose else []


def items(text: str) -> list[str]:
    """The items of a text's lists, and the cells of its tables."""
    lines = [_plain(line) for line in text.splitlines() if _ITEM.match(line)]
    rows = [line.strip("|").split("|") if line[0] == "|" else [_ITEM.sub("", line)] for line in lines]
    return [part.strip() for part in chain.from_iterable(rows)]


def _plain(text: str) -> str:
    return _LINK.sub(r"\1", _CODE.sub("Code", text))


def prose_problems(page: str) -> dict[str, list[str]]:
    """The headings whose text breaks the rule of prose, by rule."""
    found = behaviours(page)
    return {
        "without a title, `**Title.**`": [each.heading for each in found if not each.title],
        f"of over {MAX_SENTENCES} sentences": [
            each.heading for each in found if len(sentences(each.text)) > MAX_SENTENCES
        ],
        f"with over {MAX_WORDS} words in a sentence or an item": [
            each.heading
            for each in found
            if any(len(part.split()) > MAX_WORDS for part in (each.title, *sentences(each.text), *items(each.text)))
        ],
        "without text": [each.heading for each in found if not each.text],
    }


def heading_problems(page: str) -> dict[str, list[str]]:
    """Headings and ids that no link can lead to, by the reason."""
    rules, _, _ = page.partition(RETIRED)
    headings = [each.heading for each in behaviours(page)]
    anchors = Counter(map(anchor, _HEADING.findall(page)))
    return {
        "of a heading that is not the bare id": [each for each in headings if not ID.fullmatch(each)],
        "of two headings": sorted({each for each in headings if anchors[anchor(each)] > 1}),
        f"named in {PAGE}, without a heading": sorted(set(ID.findall(rules)) - set(headings), key=by_page),
    }


def link_problems(page: str, texts: Iterable[tuple[str, str]]) -> list[str]:
    """`name#anchor` of each link to the page, in named Markdown texts, whose anchor the page does not have."""
    anchors = set(map(anchor, _HEADING.findall(page)))
    return [
        f"{name}#{found}"
        for name, text in texts
        for found in [*_TO_PAGE.findall(text), *(_WITHIN_PAGE.findall(text) if name == PAGE else ())]
        if found not in anchors
    ]


def markdown(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Name and text of each Markdown file of the repository. An example of a link is written as a code span."""
    for path in sorted(root.rglob("*.md")):
        parts = path.relative_to(root).parts
        if not any(part in _FOREIGN or part.startswith(".") for part in parts):
            yield "/".join(parts), _CODE.sub("", path.read_text(encoding="utf-8"))
