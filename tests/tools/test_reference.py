"""tools/reference: the pages of docs/reference that follow from the code are those of today's code."""

from __future__ import annotations

import re

import pytest

from fhircast_hub.http import openapi
from fhircast_hub.telemetry.logs import ALLOWED
from tools.reference import commands, log_events, metrics, refusals
from tools.reference.advice import STATUSES
from tools.reference.log_meanings import MEANINGS
from tools.reference.markdown import table
from tools.reference.pages import PAGES, is_todays


@pytest.mark.parametrize("path", PAGES)
def test_a_generated_page_is_todays(path: str) -> None:
    assert is_todays(path, PAGES[path]()), "run: make reference"


def test_a_bar_and_a_line_end_stay_within_their_cell() -> None:
    assert table(("a", "b"), [("x|y", "1\n2")]) == "\n| a | b |\n| --- | --- |\n| x\\|y | 1 2 |\n\n"


def test_each_metric_has_an_advice_and_no_advice_is_left_over() -> None:
    assert [metric.name for metric in metrics.known()] == list(dict.fromkeys(metrics.WATCH))


EVENTS = log_events.merged(log_events.lines())


def test_each_event_of_the_log_has_a_meaning_and_no_meaning_is_left_over() -> None:
    assert sorted(event for part in MEANINGS.values() for event in part) == sorted(EVENTS)


def test_each_warning_and_error_says_what_to_do() -> None:
    todo = {event: todo for part in MEANINGS.values() for event, (_, todo) in part.items()}
    assert [event for event, line in EVENTS.items() if line.levels - {"info"} and not todo[event]] == []


def test_no_event_has_a_field_that_the_log_drops() -> None:
    assert {field for line in EVENTS.values() for field in line.fields} <= ALLOWED


@pytest.mark.parametrize(
    ("event", "levels", "fields"),
    [
        ("socket closed", {"info"}, {"code", "request_id", "topic"}),
        ("session begun", {"info"}, {"request_id", "subscriptions", "topic"}),
        ("promise of the database", {"info", "warning"}, {"reason"}),
        ("library message", {"error", "warning"}, {"error", "logger", "reason", "where"}),
        ("worker died", {"error"}, {"code", "pid", "seconds", "signal", "worker"}),
        ("audit sink fails", {"error"}, {"count", "error", "reason"}),
    ],
)
def test_events_are_found_behind_wrappers_variables_and_dicts(event: str, levels: set[str], fields: set[str]) -> None:
    assert (set(EVENTS[event].levels), set(EVENTS[event].fields)) == (levels, fields)


REFUSALS = refusals.refusals()


def test_each_status_with_which_the_hub_refuses_is_in_the_openapi_description_and_has_advice() -> None:
    of_openapi = set(openapi.REFUSALS) | {426, 500}  # a handshake's, and a fault of the hub
    assert {each.status for each in REFUSALS} == set(STATUSES) == of_openapi


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "hub.events may have at most 256 event names, and this one has <number>"),
        (401, "aud must have this hub's audience, not another"),  # a dict of reasons
        (403, "this token's scopes do not allow writing …"),  # a variable
        (408, "the body must end within 30 seconds"),  # an attribute of a constant
        (429, "too many handshakes"),  # a parameter
        (503, "the keys of this token's issuer cannot be fetched just now"),  # a choice
        (503, "the hub's database does not answer; repeat the request"),  # a class with its text
    ],
)
def test_texts_are_found_wherever_the_code_has_them(status: int, text: str) -> None:
    assert text in {each.text for each in REFUSALS if each.status == status}


def test_no_refusal_is_without_any_word_of_the_hub() -> None:
    assert [each for each in REFUSALS if not re.search("[a-z]{3}", re.sub("<[^>]*>", "", each.text))] == [
        refusals.Refusal(400, "JSON", "<path>: <finding>"),  # of msgspec
        refusals.Refusal(400, "session API", "<member>: <text>"),  # of Pydantic
        refusals.Refusal(401, "token", "<name> <error>"),
    ]


def test_the_environment_of_whoever_makes_the_page_is_not_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIRCAST_HUB", "https://hub.of-somebody.example")
    assert "of-somebody" not in commands.page()
