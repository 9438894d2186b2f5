"""The pages of docs/why: three sentences for a decision, a verdict for each duty, and figures that were measured."""

from __future__ import annotations

import re

import pytest

from tests.docs.test_prose import sentences
from tools.architecture import between_rooms
from tools.site import ROOT

WHY = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "why").glob("*.md")}
DECISIONS = re.findall(r"^(\*\*.+?\.\*\*.*?)(?:\n\n|\Z)", WHY["decisions"], re.MULTILINE | re.DOTALL)
DUTIES = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", WHY["ihe-ira"], re.MULTILINE)


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: decision.partition(".**")[0][2:])
def test_a_decision_is_a_title_and_three_sentences(decision: str) -> None:
    assert len(sentences(decision)) == 1 + 3


def test_the_decisions_are_all_found() -> None:
    assert len(DECISIONS) == WHY["decisions"].count("\n**")


def test_each_duty_of_the_profile_has_a_verdict_and_a_behaviour() -> None:
    duties = [duty for duty in DUTIES if duty[0] != "duty" and not duty[0].startswith("---")]
    assert len(duties) > 50
    for duty, verdict, behaviour in duties:
        assert re.match(r"(?:holds|more|differs|overtaken|no case)\b", verdict), duty
        assert "behaviour.md#" in behaviour, duty


def test_each_transaction_of_the_profile_is_there() -> None:
    assert re.findall(r"^## (RAD-\d+)", WHY["ihe-ira"], re.MULTILINE) == [f"RAD-{number}" for number in range(146, 157)]


def test_what_was_measured_is_on_the_page_of_measurements() -> None:
    """`make bench` writes that page anew, and may change the figures."""
    measured = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (delivery,) = re.findall(r"deliveries arrive within ([\d,]+) us", WHY["questions"])
    (slow_readers,) = re.findall(r"p99 of the others is ([\d.]+) times", WHY["questions"])
    assert f"| D | p99, us | {delivery} (" in measured
    assert f"| p99 beside 1,000 slow readers / without | at most 2.00 | {slow_readers} (" in measured


@pytest.mark.parametrize("name", ["questions", "ihe-ira"])
def test_each_question_and_each_transaction_names_behaviours(name: str) -> None:
    for section in WHY[name].split("\n## ")[1:]:
        assert "behaviour.md#" in section, section.partition("\n")[0]


def test_each_room_has_its_floor_in_the_table() -> None:
    rooms = {room.rpartition(".")[2] for room in between_rooms()}
    table = WHY["architecture"].partition("| floor |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) == rooms
