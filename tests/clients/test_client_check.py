"""The command check tries a hub step by step, and names the step that fails."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhircast_client.check import Step, _Hub, check
from fhircast_client.event_names import CATALOGUE, meant, never_matches, shown
from fhircast_client.socket import Socket
from fhircast_client.socket import connect as open_channel
from fhircast_client.testing import Answer, FakeHub
from fhircast_hub.core.wire.event_names import NAMES_OF_2018
from fhircast_hub.core.wire.event_names import never_matches as hubs_never_matches
from tests.clients.cli_world import NYGARD, Terminal
from tests.clients.fakes import HangsUp, Sockets, Through
from tests.clients.places import DevHub


@pytest.fixture
def terminal(
    hub: DevHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    return Terminal(hub, tmp_path, monkeypatch, capsys)


async def test_check_says_that_all_is_well_and_changes_no_context(terminal: Terminal) -> None:
    await terminal.run("open", terminal.file(NYGARD))
    code, out, err = await terminal.run("check")
    assert (code, err) == (0, "")
    steps = [shown.split()[:2] for shown in out.splitlines()]
    assert steps == [["ok", name] for name in ("discovery", "token", "subscribe", "socket", "confirmation", "echo")]
    lines = [json.loads(shown) for shown in (await terminal.run("check", "--json"))[1].splitlines()]
    assert [step["good"] for step in lines] == [True] * 6
    assert "Patient/p1" in (await terminal.run("context"))[1]
    assert terminal.token not in out


@pytest.mark.req("CLT-17")
async def test_check_names_what_no_event_can_be_called(terminal: Terminal) -> None:
    """Of its own names that is a failure, though they are granted, and all other steps go well; with the name that was meant."""
    code, out, _ = await terminal.run("check", "--events", "Patient-open,ImagingStudy-zoom")
    assert code == 1
    (failed,) = (shown for shown in out.splitlines() if not shown.startswith("ok"))
    assert failed.startswith("FAILED  names ")
    assert "ImagingStudy-zoom (did you mean ImagingStudy-open?)" in failed
    assert "Patient-open" not in failed


@pytest.mark.req("CLT-17", "CLT-49")
async def test_check_names_who_subscribed_to_what_no_event_can_be_called(terminal: Terminal) -> None:
    """The hub says so of everybody who takes part; that is no failure of this connection."""
    async with terminal.listening("DiagnosticReport-opened", "Patient-open", "--name", "Dictation"):
        code, out, _ = await terminal.run("check")
    assert code == 0
    (said,) = (shown for shown in out.splitlines() if not shown.startswith("ok"))
    assert said.startswith("-       participants  Dictation has subscribed to DiagnosticReport-opened")
    assert "did you mean DiagnosticReport-open?" in said


async def test_check_ends_with_1_where_a_step_fails(terminal: Terminal) -> None:
    code, out, _ = await terminal.run("check", FHIRCAST_TOKEN="not-a-token-of-this-hub")
    assert code == 1
    assert "FAILED  subscribe     HTTP 401" in out
    assert "not-a-token" not in out


def jwt(**claims: Any) -> str:
    """A token that says this of itself."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


GOOD = {"iss": "https://issuer.example", "aud": "hub", "exp": time.time() + 3600, "scope": "fhircast/*.*"}


async def checked(hub: FakeHub, token: str | None = None, **options: Any) -> dict[str, Step]:
    """The steps of a check at a fake hub, by name."""
    given: dict[str, Any] = {"http": hub.http("check"), "connect": hub.connector("check"), **options}
    steps = [step async for step in check(hub.url, hub.topic, token or jwt(**GOOD), "check", "Patient-open", **given)]
    return {step.name: step for step in steps}


async def test_check_passes_at_a_hub_of_stu2_and_leaves_nothing_behind() -> None:
    async with FakeHub("STU2") as hub:
        steps = await checked(hub)
        assert [step.good for step in steps.values()] == [True] * 6
        assert hub.subscribed("check") == ()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(404), "is http://hub.invalid/hub the hub.url?"),
        (Answer(200, "<html>"), "not a JSON object"),
        (Answer(200, "{}"), "websocketSupport"),
    ],
)
async def test_discovery_that_fails(answer: Answer, said: str) -> None:
    async with FakeHub() as hub:
        hub.answer_next("configuration", answer)
        steps = await checked(hub)
    assert steps["discovery"].good is False
    assert said in steps["discovery"].text
    assert steps["echo"].good, "the other steps do not need it"


@pytest.mark.parametrize(
    ("token", "good", "said"),
    [
        ("opaque", None, "opaque"),
        (jwt(**GOOD | {"exp": 1}), False, "expired"),
        (jwt(iss="x"), False, "no exp"),
        (jwt(**GOOD | {"scope": "openid"}), False, "no fhircast/ scope"),
        (jwt(**GOOD | {"scope": 7}), False, "no fhircast/ scope"),
        (jwt(**GOOD | {"scope": None, "scp": ["fhircast/Patient-open.read"]}), True, "Patient-open.read"),
        ("e30.W10.c2ln", False, "not a JSON object"),
    ],
)
async def test_a_token_that_says_too_little(token: str, good: bool | None, said: str) -> None:
    async with FakeHub() as hub:
        step = (await checked(hub, token))["token"]
    assert (step.good, said in step.text) == (good, True)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([Answer(401, "no")], "HTTP 401, the hub says: no. Usual reason: the hub does not take the token"),
        ([Answer(403, "another user's")], "another user's"),
        ([Answer(400), Answer(400, "hub.topic?")], "hub.topic?"),
        ([Answer(502, "<html>")], "the hub has a problem"),
        ([Answer(202, "accepted")], "not a JSON object"),
        ([Answer(202, '{"hub.channel.endpoint": "https://x/"}')], "no hub.channel.endpoint"),
    ],
)
async def test_a_subscription_that_fails_ends_the_check(answers: list[Answer], said: str) -> None:
    async with FakeHub() as hub:
        hub.answer_next("subscribe", *answers)
        steps = await checked(hub)
    assert list(steps)[-1] == "subscribe"
    assert (steps["subscribe"].good, said in steps["subscribe"].text) == (False, True)


async def test_a_hub_that_cannot_be_reached() -> None:
    async with FakeHub() as hub:
        hub.client("check")
        hub.cut()
        steps = await checked(hub)
    assert "ConnectError" in steps["discovery"].text
    assert list(steps)[-1] == "subscribe"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (ConnectionRefusedError(111, "wss://hub/secret"), "nothing listens at"),
        (ValueError("wss://hub/secret"), "ValueError"),
    ],
)
async def test_a_socket_that_does_not_open_and_never_shows_its_endpoint(failure: Exception, said: str) -> None:
    async def connect(endpoint: str) -> Any:
        raise failure

    async with FakeHub() as hub:
        steps = await checked(hub, connect=connect)
        assert hub.subscribed("check") == (), "it unsubscribed"
    assert (steps["socket"].good, said in steps["socket"].text) == (False, True)
    assert "secret" not in steps["socket"].text
    assert list(steps)[-1] == "socket"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda socket: HangsUp(socket, frames=0), "closed the socket (code 1011)"),
        (lambda socket: HangsUp(socket, frames=0, said=(1008, "too\nmany")), "closed the socket (code 1008): too many"),
        (lambda socket: Through(socket, "no JSON"), "not JSON"),
        (lambda socket: Through(socket, "[]"), "not a JSON object"),
        (lambda socket: Through(socket, '{"id": "1"}'), "not a confirmation"),
        (lambda socket: Through(socket, also=False), "nothing came"),
    ],
)
async def test_a_confirmation_that_does_not_come(
    change: Callable[[Socket], Socket], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhircast_client.check.PATIENCE", 0.2)
    async with FakeHub() as hub:
        steps = await checked(hub, connect=Sockets(hub.connector("check"), change))
    assert (steps["confirmation"].good, said in steps["confirmation"].text) == (False, True)
    assert list(steps)[-1] == "confirmation"


async def test_an_event_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhircast_client.check.PATIENCE", 0.2)
    async with FakeHub() as hub:
        hub.lose_next(1)
        step = (await checked(hub))["echo"]
    assert (step.good, "nothing came" in step.text) == (False, True)


async def test_a_token_that_may_not_do_it_says_nothing_of_the_hub() -> None:
    async with FakeHub() as hub:
        hub.answer_next("publish", Answer(403))
        assert (await checked(hub))["echo"].good is None
        hub.answer_next("publish", Answer(500, "the store is away"))
        assert "the store is away" in (await checked(hub))["echo"].text


@pytest.mark.req("CLT-17")
@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("Patient-open.v1.2", "Patient-open"),
        ("DiagnosticReport-opened", "DiagnosticReport-open"),
        ("patient-opne", "Patient-open"),
        ("switch-patient-chart", "Patient-open"),
        ("close-imaging-study", "ImagingStudy-close"),
        ("logout-user", "UserLogout"),
        ("Synchronisation_error", ""),
        ("org.example.my-own", ""),
    ],
)
def test_the_name_that_was_meant(name: str, better: str) -> None:
    """The most similar one of the catalogue, or today's name of what had another in 2018; or none."""
    assert never_matches(name)
    assert meant(name) == better
    assert (f"did you mean {better}?" in shown(name)) == (better != "")


@pytest.mark.req("CLT-17")
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True) | st.sampled_from([*CATALOGUE, *NAMES_OF_2018])
)
def test_the_client_knows_the_same_names_as_the_hub(name: str) -> None:
    """Whatever may be subscribed to."""
    assert never_matches(name) == hubs_never_matches(name)


@pytest.mark.req("CLT-17")
@pytest.mark.parametrize("answer", ["not JSON", "{}", "[1]", '[{"neverMatch": 7}]', '[{"neverMatch": [7]}]', "null"])
async def test_a_hub_that_says_something_else_of_participants_is_not_asked_again(answer: str) -> None:
    """Most hubs have no such list: then nothing is said of it."""

    def answered(request: httpx.Request) -> httpx.Response:
        assert request.url.raw_path == b"/sessions/a%2Ftopic/participants"
        return httpx.Response(200, text=answer)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as http:
        hub = _Hub(http, open_channel, "https://hub.invalid/api/hub?x", "a/topic", None, "check", "Patient-open")
        assert await hub.others() == ""


@pytest.mark.req("SUB-24")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"message": "the store is away"}', "the store is away"),
        ("the store\n is away.\n", "the store is away"),
        ('{"message": 7}', "nothing"),
        ("", "nothing"),
    ],
)
async def test_the_hubs_words_come_first_without_the_json_around_them(body: str, said: str) -> None:
    """Of the check's own event, which goes out as JSON. The usual reason follows."""
    async with FakeHub() as hub:
        hub.answer_next("publish", Answer(503, body))
        usual = "the hub cannot reach the token's issuer, or is starting"
        assert (await checked(hub))["echo"].text == f"HTTP 503, the hub says: {said}. Usual reason: {usual}"


async def test_a_hub_that_takes_only_the_names_of_the_catalogue_can_be_checked() -> None:
    async with FakeHub() as hub:
        hub.answer_next("subscribe", Answer(400, "unknown event"))
        steps = await checked(hub)
    assert steps["confirmation"].good
    assert steps["echo"].good is None


async def test_events_that_are_not_granted_are_named() -> None:
    async with FakeHub() as hub:
        less = '{"hub.mode": "subscribe", "hub.events": "org.fhircast.check", "hub.lease_seconds": 60}'
        sockets = Sockets(hub.connector("check"), lambda socket: Through(socket, less, also=False))
        assert "not granted: Patient-open" in (await checked(hub, connect=sockets))["confirmation"].text
