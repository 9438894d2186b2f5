"""The reason of a refusal is in the answer, in the log and at /metrics."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhircast_hub.core.errors import Unauthenticated
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.auth.jwt_world import segment
from tests.http.test_tokens import AS_FORM
from tests.http.wire import ask
from tests.running import TOPIC, RunningHub, event, running_hub, until

#: A text that must be in no log line, wherever a client puts it.
PATIENT = "Ola-Nordmann"


class Lines:
    """The log's lines of requests, as they were written."""

    def __init__(self) -> None:
        self.fields: list[dict[str, object]] = []

    def last(self, *names: str) -> list[object]:
        """These fields of the last request."""
        return [self.fields[-1].get(name) for name in names]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Lines:
    lines = Lines()

    def keep(request_id: str, method: str, status: int, ms: float, fields: dict[str, object]) -> None:
        lines.fields.append({"status": status, **fields})

    monkeypatch.setattr("fhircast_hub.http.request_log.log_request", keep)
    return lines


async def refused_tokens(hub: RunningHub) -> dict[tuple[str, str], float]:
    """Issuer and reason of each refused token at /metrics, and how often it came."""
    text = (await hub.client.get(f"{hub.origin}/metrics")).text
    found = re.findall(
        r'^fhircast_tokens_refused_total\{issuer="([^"]*)",reason="([^"]*)"\} (\S+)$', text, re.MULTILINE
    )
    return {(issuer, reason): float(count) for issuer, reason, count in found}


def unsigned(alg: str, iss: str) -> str:
    """A token with this algorithm that nobody signed."""
    return f"{segment({'alg': alg})}.{segment({'iss': iss})}."


def bare(name: str, *items: dict[str, str]) -> dict[str, Any]:
    """The event of an envelope, with just these items."""
    return {"hub.topic": TOPIC, "hub.event": name, "context": list(items)}


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except ValueError:
        return answer.text.strip()


@pytest.mark.req("OPS-17", "AUT-1")
@pytest.mark.parametrize(
    ("claims", "client", "reason"),
    [
        ({"aud": "another"}, "app", "aud must have this hub's audience, not another"),
        ({"exp": 1}, "app", "exp: the token has expired"),
        ({"sub": "", "client_id": "pacs"}, "pacs", "sub must be the user's id, not a string of length 0"),
        ({"headers": {"kid": "none"}}, None, "kid: the issuer has no such key"),
    ],
)
async def test_the_reason_is_told_with_issuer_and_client(
    log: Lines, claims: dict[str, Any], client: str | None, reason: str
) -> None:
    """In the words of the answer. The client is named where the issuer's signature proves the client."""
    async with running_hub() as hub:
        answer = await hub.context(hub.token(**claims))
        assert (answer.status_code, _message(answer)) == (401, reason)
        assert log.last("status", "reason", "issuer", "client_id") == [401, reason, hub.idp.issuer, client]
        assert await refused_tokens(hub) == {(hub.idp.issuer, re.sub(r"\d+", "…", reason)): 1}


@pytest.mark.req("OPS-17")
async def test_nothing_is_believed_of_a_token_that_nobody_signed(log: Lines) -> None:
    """Issuer and client of a made-up token would be a stranger's words in the log."""
    async with running_hub() as hub:
        for token, reason in [
            ("e30.e30.e30", "iss must be an issuer that this hub knows"),
            (hub.token(iss="https://idp.example/patient"), "iss must be an issuer that this hub knows"),
            ("not a token", "the token must be a JWT, and this one cannot be decoded"),
        ]:
            assert (await hub.context(token)).status_code == 401
            assert log.last("reason", "issuer", "client_id") == [reason, None, None]
        assert (await hub.client.get(f"{hub.url}/{TOPIC}")).status_code == 401
        assert {issuer for issuer, _ in await refused_tokens(hub)} == {""}
        assert sum((await refused_tokens(hub)).values()) == 4


@pytest.mark.req("OPS-17")
async def test_tokens_of_many_lengths_and_algorithms_are_few_time_series() -> None:
    """A stranger can make up any number of tokens. Prometheus keeps each time series for long."""
    async with running_hub() as hub:
        for length in range(1, 6):
            assert (await hub.context(hub.token(sub=" " * length))).status_code == 401
            assert (await hub.context("x" * (16384 + length))).status_code == 401
            assert (await hub.context(unsigned(alg=f"HS{length}", iss=hub.idp.issuer))).status_code == 401
        assert sorted((await refused_tokens(hub)).values()) == [5, 5, 5]


@pytest.mark.req("OPS-17")
async def test_a_refused_request_is_told_with_its_client(log: Lines) -> None:
    """Also where the token is right: what a client may not do, and what it sent amiss."""
    async with running_hub() as hub:
        blind = hub.token(scope="fhircast/Patient-open.read")
        answer = await hub.publish(event("Patient-open"), blind)
        assert answer.status_code == 403
        assert log.last("reason", "issuer", "client_id") == [
            "this token's scopes do not allow writing …",
            hub.idp.issuer,
            "app",
        ]
        assert (await hub.publish(b"{}")).status_code == 400
        assert log.last("reason", "client_id") == ["event is required", "app"]
        assert (await hub.context()).status_code == 200
        assert log.last("status", "reason", "issuer", "client_id") == [200, None, None, None]


@pytest.mark.req("OPS-17", "SEC-1")
async def test_the_log_quotes_nothing_of_the_client(log: Lines) -> None:
    """The answer quotes modes, channels, names, versions and the methods of changes. A client may put a patient into each."""
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": []}
    change = {"request": {"method": "NORDMANN"}, "resource": {"resourceType": "Patient", "id": "p1"}}
    updates = [{"key": "updates", "resource": bundle | {"entry": [change]}}]
    stale: dict[str, Any] = {"context.versionId": PATIENT, "also": [{"key": "updates", "resource": bundle}]}
    async with running_hub() as hub:
        report = event("DiagnosticReport-open")
        assert (await hub.publish(report)).status_code == 202
        foreign = hub.token(scope="fhircast/Patient-open.read")
        for answer in (
            await hub.form(hub__mode=PATIENT, hub__events="Patient-open"),
            await hub.form(**{"hub.channel.type": PATIENT}, hub__events="Patient-open"),
            await hub.publish(event(f"{PATIENT}-look")),
            await hub.publish(event("no.nordmann.ola"), foreign),
            await hub.publish(event("DiagnosticReport-update", also=updates)),
            await hub.publish(event("DiagnosticReport-update", **stale)),
            await hub.publish(event("Nordmann-select", "9")),
            await hub.publish(event("Nordmann-open") | {"event": bare("Nordmann-open")}),
            await hub.publish(event("Nordmann-open") | {"event": bare("Nordmann-open", {"key": "nordmann"})}),
            await hub.publish(event("Nordmann-select") | {"event": bare("Nordmann-select", {"key": "nordmann"})}),
        ):
            assert 400 <= answer.status_code < 500, answer.request.content
            assert re.search("ola|nordmann", answer.text, re.IGNORECASE), answer.text
            reason = str(log.last("reason"))
            assert "…" in reason
            assert not re.search("ola|nordmann", reason, re.IGNORECASE)
        for body in ("hub.Ola-Nordmann=1&hub.Ola-Nordmann=2", "subscriber.Ola Nordmann=a%00b"):
            answer = await hub.client.post(hub.url, content=body, headers=hub.headers() | AS_FORM)
            assert answer.status_code == 400
            assert "a parameter" in str(log.last("reason"))


@pytest.mark.req("OPS-17")
async def test_a_refused_handshake_tells_its_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """In the log, and in the audit trail."""
    async with running_hub(audit=f"file://{tmp_path}/audit") as hub:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        assert (await ask(hub, "GET", "/api/hub/ws/made-up", headers | key)).status == 404
        assert (await ask(hub, "GET", "/api/hub/ws/made-up", headers)).status == 400
    said = capsys.readouterr().out
    trail = [json.loads(line)["outcomeDesc"] for line in (tmp_path / "audit").read_text().splitlines()]
    for number, reason in enumerate(("there is no such endpoint", "the request is no handshake of a WebSocket")):
        assert reason in said
        assert trail[number].startswith(reason)


@pytest.mark.req("OPS-18", "OPS-1")
async def test_a_ready_hub_names_the_issuers_whose_keys_are_missing() -> None:
    """The hub is ready all the same: the tokens of other issuers are good, and another node knows no more."""
    dead = {"issuer": "http://127.0.0.1:9/realms/a", "audience": "hub"}
    async with running_hub(others=[dead]) as hub:
        await until(lambda: hub.hub._verifier.without_keys() == [dead["issuer"]])
        answer = await hub.client.get(f"{hub.origin}/health/ready")
        assert (answer.status_code, answer.text) == (200, "ready\nno usable keys yet: http://127.0.0.1:9/realms/a\n")


@pytest.mark.req("AUT-12")
async def test_keys_are_fetched_before_the_first_token_comes() -> None:
    """The first token of the morning does not wait, and an issuer that cannot be reached is told at the start."""
    async with IssuerServer() as server, running_hub(issuer=server):
        await until(lambda: server.asked[JWKS] == 1)


@pytest.mark.req("OPS-17", "AUT-16")
async def test_an_issuer_that_cannot_be_asked_is_named(log: Lines) -> None:
    """The answer does not say which of the issuers. The log does."""
    async with IssuerServer() as server, running_hub(issuer=server) as hub:
        await until(lambda: server.asked[JWKS] == 1)
        await server.stop()
        assert (await hub.context(hub.token(headers={"kid": "new"}))).status_code == 503
        assert log.last("reason", "issuer") == [
            "the keys of this token's issuer cannot be fetched just now",
            server.url,
        ]


@pytest.mark.req("OPS-17")
async def test_a_refused_request_leaves_no_garbage(log: Lines) -> None:
    """The collector of cycles runs rarely. A cycle with a request would keep its token and body until then."""
    async with running_hub() as hub:
        await hub.context("not a token")
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                assert (await hub.context("not a token")).status_code == 401
            assert not [each for each in gc.get_objects() if isinstance(each, Unauthenticated)]
        finally:
            gc.enable()
