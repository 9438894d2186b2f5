"""A batch is settled in the order of its commits. A request without a task goes on at once, and may commit again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.core.state.effects import Effect, Send
from fhircast_hub.core.state.session import Session
from fhircast_hub.storage.sqlite import SqliteStore
from fhircast_hub.waiter import Waiter


class Requests:
    """Requests without tasks, on one store."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        #: What happened, in order.
        self.happened: list[str] = []
        self._ended = asyncio.Event()

    def begin(self, name: str, then: Callable[[], object] = lambda: None) -> None:
        """Commit a session of this name, deliver its name, and go on with `then`."""
        key = SessionKey("realm", name)
        session = Session(realm="realm", topic=name, owner="user")
        request = self.store.commit_and_deliver(key, 0, None, session, (Send((), name.encode()),))
        written = request.send(None)
        assert isinstance(written, Waiter)

        def go_on() -> None:
            try:
                request.send(None)
            except StopIteration:
                self.happened.append(f"{name} written")
            except Unavailable:
                self.happened.append(f"{name} failed")
            self._ended.set()
            then()

        written.then = go_on

    def deliver(self, effects: list[Effect]) -> None:
        self.happened += [f"{each.frame.decode()} sent" for each in effects if isinstance(each, Send)]

    async def until(self, count: int) -> list[str]:
        """What happened, as soon as there is so much."""
        async with asyncio.timeout(5):
            while len(self.happened) < count:
                self._ended.clear()
                await self._ended.wait()
        return self.happened


@pytest.fixture
async def requests(tmp_path: Path) -> AsyncIterator[Requests]:
    store = SqliteStore(tmp_path / "hub.db")
    requests = Requests(store)
    await store.open(lambda effects: requests.deliver(list(effects)))
    yield requests
    await store.close()


def begin_all(*begins: Callable[[], object]) -> None:
    """Begin requests in one turn of the event loop, without a task."""

    def begin() -> None:
        for each in begins:
            each()

    asyncio.get_running_loop().call_soon(begin)


async def test_a_commit_made_while_a_batch_is_settled_is_of_the_next_batch(requests: Requests) -> None:
    """The rest of the batch is settled first. Then the next batch is written and delivered."""
    statements: list[str] = []
    requests.store._connection.set_trace_callback(statements.append)
    begin_all(
        lambda: requests.begin("one", lambda: requests.begin("three")),
        lambda: requests.begin("two", lambda: requests.begin("four")),
    )
    first = ["one sent", "two sent", "one written", "two written"]
    second = ["three sent", "four sent", "three written", "four written"]
    assert await requests.until(8) == first + second
    assert len(statements) == 2, "a batch is one statement"
    assert {session.topic for session in requests.store.sessions()} == {"one", "two", "three", "four"}


async def test_the_error_of_one_request_does_not_keep_others_from_going_on(requests: Requests) -> None:
    """The loop's exception handler is told."""
    reports: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, report: reports.append(report["exception"]))
    begin_all(lambda: requests.begin("one", lambda: int("no number")), lambda: requests.begin("two"))
    assert await requests.until(4) == ["one sent", "two sent", "one written", "two written"]
    assert [type(report) for report in reports] == [ValueError]


async def test_a_request_that_goes_on_after_a_failure_finds_the_batch_undone(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sessions are as before. What the request commits then is written."""
    found: list[int] = []

    def fail(rows: object) -> None:
        monkeypatch.undo()
        raise OSError("full")

    def again() -> None:
        found.append(len(list(requests.store.sessions())))
        requests.begin("one")

    monkeypatch.setattr(requests.store, "_write", fail)
    begin_all(lambda: requests.begin("one", again), lambda: requests.begin("two"))
    assert await requests.until(4) == ["one failed", "two failed", "one sent", "one written"]
    assert found == [0]
