"""CLT-29: a client in several event loops, as programs that are not async make them."""

from __future__ import annotations

import asyncio
import ssl
import threading
import uuid
import warnings
from collections.abc import Iterator

import httpx
import pytest

from fhircast_client import FHIRcastClient, HubError
from fhircast_client.socket import Channel
from tests.clients.fakes import Heard, patient
from tests.clients.places import DevHub
from tests.proxy_environment import reads


@pytest.fixture
def client(hub: DevHub) -> Iterator[FHIRcastClient]:
    """A client of the dev hub."""
    client = FHIRcastClient(
        f"http://127.0.0.1:{hub.process.port}/api/hub", f"loops-{uuid.uuid4()}", token=hub.token, name="Portal"
    )
    yield client
    asyncio.run(client.stop())


@pytest.mark.req("CLT-29")
def test_call_after_call_of_asyncio_run(client: FHIRcastClient) -> None:
    numbers = iter(range(100))

    def change(content: object) -> list[dict[str, str]]:
        return [{"resourceType": "Observation", "id": f"o{next(numbers)}"}]

    async def both() -> None:
        await asyncio.gather(client.open(patient("p1")), client.open(patient("p2")), client.fetch())
        await asyncio.gather(client.update(change), client.update(change))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a connection that is left open would be one
        for id_ in ("a", "b", "c"):
            asyncio.run(client.open(patient(id_)))
            asyncio.run(both())  # waits for locks, which then belong to this loop
    found = asyncio.run(client.fetch())
    assert found is not None
    assert found.anchor in ("Patient/p1", "Patient/p2")


@pytest.mark.req("CLT-29")
def test_following_in_one_loop_after_the_other(client: FHIRcastClient) -> None:
    heard = Heard()
    client.on("Patient-open", heard)

    async def follow(id_: str) -> bool:
        async with client:
            await asyncio.gather(client.open(patient(id_)), client.open(patient(f"{id_}-next")))
            return client.status.in_sync

    assert asyncio.run(follow("one"))
    assert asyncio.run(follow("two"))
    assert client.context is not None
    assert client.context.anchor.startswith("Patient/two")


@pytest.mark.req("CLT-29")
def test_two_loops_at_once_are_an_error_that_says_what_to_do(client: FHIRcastClient) -> None:
    began, may_end = threading.Event(), threading.Event()

    async def hold() -> None:
        await client.fetch()
        began.set()
        await asyncio.to_thread(may_end.wait)

    other = threading.Thread(target=lambda: asyncio.run(hold()))
    other.start()
    began.wait()
    try:
        with pytest.raises(RuntimeError, match=r"in use in another event loop.*run_coroutine_threadsafe"):
            asyncio.run(client.open(patient("p1")))
    finally:
        may_end.set()
        other.join()
    asyncio.run(client.open(patient("p1")))


@pytest.mark.req("CLT-29")
def test_calls_that_another_thread_hands_over(client: FHIRcastClient) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(client.start(), loop).result(20)
        event = asyncio.run_coroutine_threadsafe(client.open(patient("p9")), loop).result(20)
        assert event.anchor == "Patient/p9"
        asyncio.run_coroutine_threadsafe(client.stop(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.req("CLT-29")
async def test_a_task_that_is_cancelled_while_it_closes_a_socket_closes_it() -> None:
    """The hub ends the socket of a client that unsubscribes, while the client stops. Its loop may end at once."""

    class Slow:
        close_code: int | None = None
        is_closed, closes, may_end = False, asyncio.Event(), asyncio.Event()

        async def recv(self) -> str:
            raise NotImplementedError

        async def send(self, message: str) -> None:
            raise NotImplementedError

        async def close(self, code: int = 1000) -> None:
            self.closes.set()
            await self.may_end.wait()
            self.is_closed = True

    slow = Slow()
    task = asyncio.create_task(Channel(slow).close())
    await slow.closes.wait()
    task.cancel()
    await asyncio.sleep(0)
    slow.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.is_closed


@pytest.mark.req("CLT-29")
def test_tokens_are_asked_for_in_each_loop(hub: DevHub) -> None:
    async def get_token() -> str:
        await asyncio.sleep(0)
        number = next(numbers)
        return f"expired-{number}" if number < 3 else hub.token

    numbers = iter(range(100))
    client = FHIRcastClient(f"http://127.0.0.1:{hub.process.port}/api/hub", f"loops-{uuid.uuid4()}", token=get_token)

    async def both() -> None:
        await asyncio.gather(client.fetch(), client.fetch())

    for _ in range(2):
        with pytest.raises(HubError):
            asyncio.run(both())  # both wait for the one who asks for a token
    asyncio.run(both())


@pytest.mark.req("CLT-29")
def test_certificates_are_read_once_for_all_loops_and_for_tls_alone(
    hub: DevHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reads(monkeypatch, ssl, "create_default_context")
    plain = FHIRcastClient(f"http://127.0.0.1:{hub.process.port}/api/hub", f"loops-{uuid.uuid4()}", token=hub.token)
    asyncio.run(plain.fetch())
    assert not read
    secure = FHIRcastClient("https://127.0.0.1:1/api/hub", "t", token="t")
    for _ in range(2):
        with pytest.raises(HubError, match="cannot be reached"):
            asyncio.run(secure.fetch())
    assert len(read) == 1


@pytest.mark.req("CLT-29")
def test_a_client_that_was_left_running_says_so(client: FHIRcastClient) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.start())
    for call in (client.stop, client.start, client.fetch):
        with pytest.raises(RuntimeError, match="still runs in another event loop"):
            asyncio.run(call())
    loop.run_until_complete(client.stop())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    asyncio.run(client.open(patient("p1")))


@pytest.mark.req("CLT-29")
def test_connections_that_are_given_are_of_one_loop(hub: DevHub) -> None:
    http = httpx.AsyncClient(trust_env=False)
    url = f"http://127.0.0.1:{hub.process.port}/api/hub"
    client = FHIRcastClient(url, f"loops-{uuid.uuid4()}", token=hub.token, http=http)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.fetch())
    for call in (client.fetch, client.start):
        with pytest.raises(RuntimeError, match="used in another event loop: leave the option out"):
            asyncio.run(call())
    loop.run_until_complete(http.aclose())
    loop.close()
