"""The operator's console of a hub of two workers: whichever answers, the page is the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.auth.issuer_server import OPENID
from tests.console.console_world import READ, WRITE, Stream
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, issuer_thread
from tests.process.workers_world import WorkersProcess, settings_of
from tests.running import event, until

#: Connections until each of two workers has had one, at most.
MOST = 90


@asynccontextmanager
async def asked(hub: HubProcess, path: str, token: str = "") -> AsyncIterator[httpx.Response]:
    """The head of an answer, by a connection of its own."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
        client.stream("GET", f"{hub.origin}{path}", headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        yield answer


async def of_each(hub: HubProcess, path: str, token: str = "") -> dict[int, httpx.Response]:
    """The whole answer of each worker."""
    found: dict[int, httpx.Response] = {}
    for _ in range(MOST):
        async with asked(hub, path, token) as answer:
            await answer.aread()
        found[await worker_of(hub, answer)] = answer
        if len(found) == 2:
            return found
    raise AssertionError(f"only worker {list(found)} answers {path}")


async def worker_of(hub: HubProcess, answer: httpx.Response) -> int:
    """The number of the worker that answered, as the log says."""
    workers: list[int] = []

    def is_logged() -> bool:
        id_ = answer.headers["x-request-id"]
        workers.extend(line["worker"] for line in hub.lines("request") if line["request_id"] == id_)
        return bool(workers)

    await until(is_logged)
    return workers[0]


async def stream_of_each(hub: HubProcess, token: str, stack: AsyncExitStack) -> list[Stream]:
    """An open stream of each worker."""
    found: dict[int, Stream] = {}
    for _ in range(MOST):
        one = AsyncExitStack()
        stream = Stream(aiter((await one.enter_async_context(asked(hub, "/console/stream", token))).aiter_lines()))
        number = (await stream.until("hub", lambda part: True))["worker"]["number"]
        if number in found:
            await one.aclose()
            continue
        found[number] = stream
        stack.push_async_exit(one)
        if len(found) == 2:
            return list(found.values())
    raise AssertionError(f"only worker {list(found)} streams")


def login_of(issuer: IssuerThread) -> dict[str, Any]:
    """What an issuer that logs operators in says of itself."""
    url = issuer.idp.issuer
    return {"issuer": url, "authorization_endpoint": f"{url}/authorize", "token_endpoint": f"{url}/token"}


@pytest.mark.req("CSL-13", "CSL-10", "NOD-15")
async def test_whichever_worker_answers(tmp_path: Path, database: str) -> None:
    """Login, state, stream and the end of a session. A login may begin at one worker, and come back to the other."""
    with issuer_thread() as issuer:
        issuer.publish(OPENID, login_of(issuer))
        settings = settings_of(database, issuer) | {"console": True, "console_client_id": "fhircast-console"}
        with WorkersProcess(tmp_path, 2, **settings) as two:
            async with Visitor(two.hub, issuer.idp) as visitor:
                await check_login(two.hub, issuer)
                for number in range(5):
                    async with Visitor(two.hub, issuer.idp) as other:
                        assert (await other.publish(event("Patient-open", topic=f"t{number}"))).status_code == 202
                await check_state(two.hub, visitor.token("operator", READ))
                await check_streams(two.hub, visitor)


async def check_login(hub: HubProcess, issuer: IssuerThread) -> None:
    """Each worker names the login, and lets the page that comes back ask for the token."""
    for answer in (await of_each(hub, "/console/config")).values():
        assert answer.json()["login"]["tokenEndpoint"] == f"{issuer.idp.issuer}/token"
    for answer in (await of_each(hub, "/console?code=x&state=y")).values():
        assert f"connect-src 'self' {issuer.idp.issuer};" in answer.headers["content-security-policy"]


async def check_state(hub: HubProcess, reader: str) -> None:
    """Each worker shows both nodes, and the sessions of both."""
    states = {number: answer.json() for number, answer in (await of_each(hub, "/console/state", reader)).items()}
    assert {number: state["hub"]["worker"] for number, state in states.items()} == {
        number: {"number": number + 1, "total": 2} for number in (0, 1)
    }
    own = {state["nodes"]["own"] for state in states.values()}
    for state in states.values():
        assert {each["name"] for each in state["nodes"]["nodes"] if not each["dead"]} == own
        assert {row["topic"] for row in state["sessions"]["rows"]} == {f"t{number}" for number in range(5)}
        assert [each["sessions"] for each in state["budgets"]["largest"]] == [5]
    assert len(own) == 2


async def check_streams(hub: HubProcess, visitor: Visitor) -> None:
    """The streams of both workers show what comes by either. A session ends by either, and its subscriber is told."""
    async with AsyncExitStack() as stack:
        streams = await stream_of_each(hub, visitor.token("operator", READ), stack)
        for number in (0, 1):
            topic, ended = f"live{number}", {"topic": f"live{number}", "reason": "left open"}
            follower = await stack.enter_async_context(visitor.follow(await visitor.subscribe(**{"hub.topic": topic})))
            for stream in streams:
                await stream.until("sessions", lambda part: part["total"] == 6)
            answer = await end_at(hub, number, ended, visitor.token("operator", WRITE))
            assert answer.status_code == 204, answer.text
            assert (await follower.next())["hub.mode"] == "denied"
            for stream in streams:
                await stream.until("sessions", lambda part: part["total"] == 5)


async def end_at(hub: HubProcess, worker: int, ended: dict[str, str], token: str) -> httpx.Response:
    """End a session at this worker: by a connection that the worker has accepted."""
    headers = {"Authorization": f"Bearer {token}"}
    for _ in range(MOST):
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE, headers=headers) as client:
            if await worker_of(hub, await client.get(f"{hub.origin}/console/config")) == worker:
                return await client.post(f"{hub.origin}/console/sessions/end", json=ended)
    raise AssertionError(f"worker {worker} accepts no connection")
