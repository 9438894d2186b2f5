"""tests/requirements.py and tests/behaviour_page.py: the ids of the page, the prose, the links, and what the check refuses."""

from __future__ import annotations

import textwrap
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest

from tests import behaviour_page, requirements
from tests.behaviour_page import BEHAVIOUR, Behaviour

PAGE = BEHAVIOUR.read_text(encoding="utf-8")


def page(*behaviours: str) -> str:
    """A page of behaviours, each as its heading and text."""
    return "# Page\n\n## SUB Subscribe\n\n" + "\n\n".join(behaviours) + "\n\n## Retired\n"


def faults(text: str) -> dict[str, list[str]]:
    """The faults of a page, by the reason; without links from elsewhere."""
    found = behaviour_page.heading_problems(text) | behaviour_page.prose_problems(text)
    return {reason: ids for reason, ids in found.items() if ids}


def test_the_page_numbers_its_behaviours_without_a_gap() -> None:
    """So that a slip in a number is found."""
    known, retired = behaviour_page.defined(PAGE), behaviour_page.retired(PAGE)
    given = sorted([*known, *retired], key=behaviour_page.by_page)
    for prefix, group in groupby(given, key=behaviour_page.prefix):
        numbers = [int(behaviour.partition("-")[2]) for behaviour in group]
        assert numbers == list(range(1, len(numbers) + 1)), prefix
    assert {behaviour_page.prefix(behaviour) for behaviour in known} == set(behaviour_page.PREFIXES)


def test_the_page_and_all_links_to_it_are_as_they_should_be() -> None:
    assert requirements.page_problems(PAGE) == {}


def test_a_number_that_is_retired_says_nothing_any_more() -> None:
    """Another one took over, which is on the page; no file names the old one."""
    known, retired = behaviour_page.defined(PAGE), behaviour_page.retired(PAGE)
    assert len(retired) == 17
    assert not set(retired) & set(known)
    assert set(retired.values()) <= set(known)
    for path in (
        each for folder in ("hub", "clients", "demo", "docs") for each in (behaviour_page.ROOT / folder).rglob("*")
    ):
        if path.suffix in (".py", ".js", ".json", ".md") and "node_modules" not in path.parts:
            text = path.read_text(encoding="utf-8").partition(behaviour_page.RETIRED)[0]
            assert not set(retired) & set(behaviour_page.ID.findall(text)), path


def test_retired_numbers_are_read_with_those_that_took_over() -> None:
    text = "### SUB-1\nx\n### SUB-3\ny\n\n## Retired\nIn short.\n- SUB-2: [SUB-3](#sub-3)"
    assert behaviour_page.defined(text) == ["SUB-1", "SUB-3"]
    assert behaviour_page.retired(text) == {"SUB-2": "SUB-3"}


def test_ids_are_those_of_the_headings_sorted_by_prefix_and_number() -> None:
    text = "### SUB-21\nx\n### SUB-2\ny, UTF-8.\n### CFG-1\nz (SUB-2)\n### SUB-3 Title\nx"
    assert behaviour_page.defined(text) == ["CFG-1", "SUB-2", "SUB-21"]


def test_a_behaviour_is_its_heading_its_title_and_its_text() -> None:
    text = page("### SUB-1\n**Answer.** 202.\n\n- a", "### SUB-2\nNo title.")
    assert behaviour_page.behaviours(text) == [
        Behaviour("SUB-1", "Answer", "202.\n\n- a"),
        Behaviour("SUB-2", "", "No title."),
    ]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [("SUB-12", "sub-12"), ("SUB Subscribe", "sub-subscribe"), ("RFC 6455, 8.1", "rfc-6455-81")],
)
def test_an_anchor_is_that_of_github_and_mkdocs(heading: str, anchor: str) -> None:
    assert behaviour_page.anchor(heading) == anchor


def test_sentences_are_counted_without_lists_and_tables_and_code_is_a_word() -> None:
    text = textwrap.dedent("""\
        The form `a. b` is read (RFC 6749, 3.3). See [the
        settings](settings.md#a.b).

        - an item
        1. another

        | a cell | `b|c` |
        """)
    assert behaviour_page.sentences(text) == ["The form Code is read (RFC 6749, 3.3).", "See the settings."]
    assert behaviour_page.items(text) == ["an item", "another", "a cell", "Code"]
    assert behaviour_page.sentences("- an item\n") == []


_WORDS = " ".join(["word"] * 20)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("### SUB-1 Answer\n**Answer.** 202.", "of a heading that is not the bare id"),
        ("### SUB-1\n**Answer.** See SUB-71.", "named in docs/behaviour.md, without a heading"),
        ("### SUB-1\nThe answer is 202.", "without a title, `**Title.**`"),
        ("### SUB-1\n**Answer.**\n", "without text"),
        ("### SUB-1\n**Answer.** One. Two. Three. Four.", "of over 3 sentences"),
        (f"### SUB-1\n**Answer.** A {_WORDS}.", "with over 20 words in a sentence or an item"),
        (f"### SUB-1\n**Answer.** Any of:\n\n- a {_WORDS}", "with over 20 words in a sentence or an item"),
        (f"### SUB-1\n**Answer.** Any of:\n\n| a {_WORDS} | b |", "with over 20 words in a sentence or an item"),
    ],
)
def test_the_check_refuses_a_behaviour_that_breaks_a_rule(behaviour: str, reason: str) -> None:
    assert reason in faults(page(behaviour))


def test_the_check_takes_a_behaviour_within_the_bounds() -> None:
    text = f"### SUB-1\n**Answer.** One. Two. {_WORDS}.\n\n- {_WORDS}\n| {_WORDS} |"
    assert faults(page(text)) == {}


def test_the_check_refuses_two_headings_of_one_id() -> None:
    """Their anchors would be `sub-1` and `sub-1-1`."""
    assert faults(page("### SUB-1\n**A.** b.", "### SUB-1\n**A.** b.")) == {"of two headings": ["SUB-1"]}


def test_the_check_refuses_a_link_to_no_anchor() -> None:
    """In any Markdown of the repository; within the page without its name."""
    text = page("### SUB-1\n**Answer.** See [SUB-1](#sub-1), [SUB-2](#sub-2), [later](#retired).")
    texts = [
        ("docs/behaviour.md", text),
        ("README.md", "[SUB-1](docs/behaviour.md#sub-1) [SUB-3](docs/behaviour.md#sub-3) [here](#sub-9)"),
        ("docs/tls.md", '[a]: behaviour.md#sub-4\n<a href="behaviour.md#sub-5">'),
    ]
    assert behaviour_page.link_problems(text, texts) == [
        "docs/behaviour.md#sub-2",
        "README.md#sub-3",
        "docs/tls.md#sub-4",
        "docs/tls.md#sub-5",
    ]


def test_links_are_looked_for_in_the_repositorys_own_markdown(tmp_path: Path) -> None:
    """Neither in what was installed or built, nor in an example of a link."""
    for name in ("README.md", "docs/a.md", "clients/node_modules/b.md", ".venv/c.md", "build/d.md"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name} `docs/behaviour.md#sub-12`", encoding="utf-8")
    assert list(behaviour_page.markdown(tmp_path)) == [("README.md", "README.md "), ("docs/a.md", "docs/a.md ")]


def test_the_check_wants_a_test_for_each_behaviour_of_this_release_and_no_other_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A prefix or an id may be called later."""
    monkeypatch.setattr(requirements, "LATER", {"SES", "AUT-14"})
    known = ["SUB-1", "SUB-2", "AUT-14", "SES-1"]
    assert requirements.problems(known, Counter({"SUB-1": 1, "SUB-2": 3})) == {}
    assert requirements.problems(known, Counter({"SUB-1": 1, "SUB-20": 1})) == {
        "of this release, without a test": ["SUB-2"],
        "named by a test, and not in docs/behaviour.md": ["SUB-20"],
    }


def test_what_is_called_later_is_on_the_page() -> None:
    """Or a slip in LATER would quietly excuse nothing, or too much."""
    known = behaviour_page.defined(PAGE)
    assert set(known) | set(behaviour_page.PREFIXES) >= requirements.LATER


def test_the_report_has_each_id_with_its_number_of_tests_and_its_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "LATER", {"AUT-1"})
    text = "### SUB-2\n**B.** b.\n### SUB-10\n**A.** a.\n## AUT\n### AUT-1\n**C.** c.\n"
    assert "\n".join(requirements.report(text, Counter({"SUB-2": 24, "SUB-10": 1}))) == textwrap.dedent("""\
        SUB-2    24 tests  docs/behaviour.md#sub-2   B
        SUB-10    1 test   docs/behaviour.md#sub-10  A

        AUT-1     - tests  docs/behaviour.md#aut-1   C (later)
        """)


def test_a_terminal_gets_links_that_can_be_clicked() -> None:
    """As hyperlinks (OSC 8), whose text is that of other output."""
    (shown,) = requirements.report("### SUB-2\n**B.** b.\n", Counter({"SUB-2": 1}), terminal=True)[:1]
    uri = BEHAVIOUR.as_uri()
    assert f"\033]8;;{uri}#sub-2\033\\docs/behaviour.md#sub-2\033]8;;\033\\   B" in shown
