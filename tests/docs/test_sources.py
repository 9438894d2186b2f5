"""docs/reference/sources.md: chapters and behaviours have their sources, and the code that obeys a sentence quotes the sentence."""

from __future__ import annotations

import re

import pytest

from tests.behaviour_page import BEHAVIOUR, ID, PREFIXES, anchor, behaviours, prefix
from tools.architecture import modules
from tools.site import ROOT

PAGE = (ROOT / "docs" / "reference" / "sources.md").read_text(encoding="utf-8")
BY_CHAPTER, _, _REST = PAGE.partition("\n## By sentence\n")
BY_SENTENCE, _, BY_ID = _REST.partition("\n## By id\n")

#: Chapter and standards.
CHAPTERS = re.findall(r"^\| \[([A-Z]{3})\][^|]+\| ([^|]+) \|", BY_CHAPTER, re.MULTILINE)
#: Section, sentence, and the behaviours that follow.
SENTENCES = re.findall(r"^\| ([^|]+) \| `([^`]+)` \| (.+) \|$", BY_SENTENCE, re.MULTILINE)
#: Behaviour, anchor, sources, and what is decided here.
ROWS = re.findall(r"^\| \[([A-Z0-9-]+)\]\(\.\./behaviour\.md#([^)]+)\) \| ([^|]+) \| ?([^|]*)\|$", BY_ID, re.MULTILINE)
SOURCES = {behaviour: sources for behaviour, _, sources, _ in ROWS}

OURS = "decided here"

#: FHIRcast 3.0.0, as its chapters 2, 3 and 4 list them. Home-open is 3.2.4, in a file called 3-2-5.
SECTIONS = {
    *("2", *(f"2.{number}" for number in range(1, 11))),
    *("3", "3.1.1", "3.1.2", *(f"3.2.{number}" for number in range(1, 5)), "3.3.1", "3.3.2", "3.4.1", "3.4.2"),
    *("3.5.1", "3.5.2", *(f"3.6.{number}" for number in range(1, 5))),
    *("4.1", "4.2.1", "4.2.2", "4.2.3", "4.3", "4.4"),
}
RFCS = {
    *(2104, 3339, 4291, 5785, 6052, 6125, 6455, 6585, 6749, 6750, 6797, 7515, 7517, 7519, 7636, 7662, 7800, 8259, 8414),
    *(8705, 8707, 8725, 9068, 9110, 9111, 9112, 9207, 9449, 9525, 9562, 9700),
}
STANDARDS = {
    *("STU2", "drafts of STU3", "profile of CapabilityStatement", "profile of SyncError"),
    *("profile of content", "profile of updates", "profiles of opens", "FHIR", "FHIR (bdl-7)", "SMART App Launch"),
    *("IHE BALP", "IHE PIXm (ITI-83)", "IHE IRA", "IHE IRA (volume 1)"),
    *(f"IHE IRA (RAD-{number})" for number in range(146, 157)),
    *("DICOM", "DICOM (PS3.18)", "WebSub", "WebSocket close codes", "Fetch", "Fetch (CORS)", "Private Network Access"),
    *("Content Security Policy", "HTML (server-sent events)", "WCAG 2.2", "OpenID Connect Core"),
    *("OpenID Connect Discovery", "OpenTelemetry", "OTLP", "Prometheus", "W3C Trace Context"),
}

_LEVEL = re.compile(r" ((?:MUST|SHALL|SHOULD)(?: NOT)?|MAY|shall)$")
_RFC = re.compile(r"RFC ([0-9]{4})(?:, [0-9]+(?:\.[0-9]+)*)?")


def plain(text: str) -> str:
    """The words alone: comments break lines, and quote code with and without marks."""
    return " ".join(re.findall(r"\w+", text))


CODE = plain(" ".join(path.read_text(encoding="utf-8") for path in modules().values()))


def named(sources: str) -> list[str]:
    """The sections and standards of a cell, without their levels."""
    return [_LEVEL.sub("", source) for source in sources.split("; ")]


def is_known(source: str) -> bool:
    """Whether `source` is a section of FHIRcast, a known standard, or a known RFC with or without a section."""
    rfc = _RFC.fullmatch(source)
    return int(rfc[1]) in RFCS if rfc else source in SECTIONS | STANDARDS


def test_each_chapter_of_the_behaviours_has_its_standards() -> None:
    assert tuple(chapter for chapter, _ in CHAPTERS) == PREFIXES
    assert all(f"\n## {chapter} " in BEHAVIOUR.read_text(encoding="utf-8") for chapter in PREFIXES)


@pytest.mark.parametrize(("chapter", "standards"), CHAPTERS)
def test_a_chapter_without_standards_has_no_behaviour_with_one(chapter: str, standards: str) -> None:
    found = {sources for behaviour, sources in SOURCES.items() if prefix(behaviour) == chapter}
    assert (standards == "none") == (found == {OURS})


@pytest.mark.parametrize(("section", "sentence", "_behaviours"), SENTENCES)
def test_each_sentence_is_quoted_in_the_code(section: str, sentence: str, _behaviours: str) -> None:
    assert plain(sentence) in CODE


@pytest.mark.parametrize(("section", "sentence", "follow"), SENTENCES)
def test_the_behaviours_that_follow_from_a_sentence_name_its_section(section: str, sentence: str, follow: str) -> None:
    found = re.findall(rf"\[({ID.pattern})\]", follow)
    assert found
    assert {behaviour: section in named(SOURCES[behaviour]) for behaviour in found} == dict.fromkeys(found, True)


def test_the_sentences_are_all_found() -> None:
    assert len(SENTENCES) == BY_SENTENCE.count("\n| ") - 1


def test_each_behaviour_has_one_row_in_the_order_of_the_page() -> None:
    """A new behaviour needs a row, with its sources or with "decided here"."""
    page = behaviours(BEHAVIOUR.read_text(encoding="utf-8"))
    assert [behaviour for behaviour, *_ in ROWS] == [each.heading for each in page]
    assert [link for _, link, *_ in ROWS] == [anchor(each.heading) for each in page]


def test_the_rows_are_all_found_under_their_chapters() -> None:
    chapters = re.findall(r"^### ([A-Z]{3}): ", BY_ID, re.MULTILINE)
    assert tuple(chapters) == PREFIXES
    assert len(ROWS) == BY_ID.count("\n| ") - len(chapters)


def test_each_behaviour_has_known_sources_or_was_decided_here() -> None:
    unknown = {
        behaviour: [source for source in named(sources) if not is_known(source)]
        for behaviour, sources in SOURCES.items()
        if sources != OURS
    }
    assert {behaviour: sources for behaviour, sources in unknown.items() if sources} == {}


def test_where_the_hub_differs_a_source_says_from_what() -> None:
    differs = [behaviour for behaviour, _, _, here in ROWS if here.startswith("differs: ")]
    assert differs
    assert [behaviour for behaviour in differs if SOURCES[behaviour] == OURS] == []


@pytest.mark.parametrize("source", ["2.11", "3.2.5", "RFC 1", "RFC 6455, x", "2.4 WILL", "STU4", ""])
def test_a_source_that_does_not_exist_is_unknown(source: str) -> None:
    assert not all(map(is_known, named(source)))
