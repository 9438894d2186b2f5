"""tests/requirements.py: the ids of the page, and what the check refuses."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest

from tests import requirements


def test_the_page_numbers_its_behaviours_without_a_gap() -> None:
    """So that a slip in a reference (`SUB-71`) is found: it would look like a behaviour of its own."""
    page = requirements.BEHAVIOUR.read_text(encoding="utf-8")
    known, retired = requirements.defined(page), requirements.retired(page)
    given = sorted([*known, *retired], key=requirements.by_page)
    for prefix, group in groupby(given, key=requirements.prefix):
        numbers = [int(behaviour.partition("-")[2]) for behaviour in group]
        assert numbers == list(range(1, len(numbers) + 1)), prefix
    assert {requirements.prefix(behaviour) for behaviour in known} == set(requirements.PREFIXES)


def test_a_number_that_is_retired_says_nothing_any_more() -> None:
    """Another one took over, which is on the page; no file names the old one."""
    page = requirements.BEHAVIOUR.read_text(encoding="utf-8")
    known, retired = requirements.defined(page), requirements.retired(page)
    assert retired
    assert not set(retired) & set(known)
    assert set(retired.values()) <= set(known)
    for path in (
        each for folder in ("hub", "clients", "demo", "docs") for each in (requirements.ROOT / folder).rglob("*")
    ):
        if path.suffix in (".py", ".js", ".json", ".md") and "node_modules" not in path.parts:
            text = path.read_text(encoding="utf-8").partition(requirements.RETIRED)[0]
            assert not set(retired) & set(requirements.ID.findall(text)), path


def test_retired_numbers_are_read_with_those_that_took_over() -> None:
    page = "- SUB-1 x SUB-3 y\n\n## Retired\nIn short.\nSUB-2: SUB-3."
    assert requirements.defined(page) == ["SUB-1", "SUB-3"]
    assert requirements.retired(page) == {"SUB-2": "SUB-3"}


def test_ids_are_read_and_sorted_as_on_the_page() -> None:
    assert requirements.defined("- SUB-21 x\n- SUB-2 y, UTF-8. CFG-1 z (SUB-2)") == ["CFG-1", "SUB-2", "SUB-21"]


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
    known = requirements.defined(requirements.BEHAVIOUR.read_text(encoding="utf-8"))
    assert set(known) | set(requirements.PREFIXES) >= requirements.LATER
