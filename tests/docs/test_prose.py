"""The pages written for the site have short sentences: many readers learned English as a second language."""

from __future__ import annotations

import re

import pytest

from tools.site import ROOT, pages, prose

MAX_WORDS = 20
FOLDERS = tuple(f"docs/{name}/" for name in ("tutorials", "how-to", "from-ccow", "reference", "why"))
PAGES = [page for page in pages() if page.startswith(FOLDERS)]
#: Punctuation that ends a statement, and is followed by a space or the end.
_END = re.compile(r"(?<=[.!?:;])\**\s+")


def without_code(text: str) -> str:
    """A page without its code blocks."""
    return "".join(line for _, line in prose(text))


def sentences(text: str) -> list[str]:
    """The sentences of a page, without code, comments and links' targets. Cells of tables and items of lists are apart."""
    shown = without_code(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    shown = re.sub(r"\]\([^)]*\)", "]", shown)
    shown = re.sub(r"`[^`]*`", "CODE", shown)
    parts = re.split(r"\n\s*\n|\n(?=[-*#|]|\d+\. )|(?<!\\)\|", shown)
    return [each.strip() for part in parts for each in _END.split(part.strip()) if each.strip()]


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_has_more_than_twenty_words(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    long = [each for each in sentences(text) if len(re.findall(r"[\w'-]+", each)) > MAX_WORDS]
    assert long == []


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_begins_with_a_bare_pronoun(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    bare = [each for each in sentences(text) if re.match(r"(?:- )?(?:It|it|That) [a-z]", each)]
    assert bare == []


@pytest.mark.parametrize("page", PAGES)
def test_code_stands_in_fences_where_the_tests_find_it(page: str) -> None:
    """Markdown also takes indented lines behind an empty one for code; no test would run these."""
    text = without_code((ROOT / page).read_text(encoding="utf-8"))
    assert re.findall(r"\n\n    \S.*", text) == []


def test_what_a_sentence_is() -> None:
    page = "# Title\n\nOne `a b c`: two. Three\ngoes on ([x](y.md)).\n\n```sh\nls -l\n```\n\n- four\n- five\n\n| six | seven |\n"
    assert sentences(page) == [
        "# Title",
        "One CODE:",
        "two.",
        "Three\ngoes on ([x]).",
        "- four",
        "- five",
        "six",
        "seven",
    ]
