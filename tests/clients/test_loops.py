"""CLT-29: a client in several event loops, as programs that are not async make them."""

from __future__ import annotations

import asyncio
import threading
import uuid
import warnings
from collections.abc import Iterator

import pytest

from clients.fakes import Heard, patient
from clients.places import DevHub
from fhircast_client import FHIRcastClient


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
    async def both() -> None:
        await asyncio.gather(client.open(patient("p1")), client.open(patient("p2")), client.fetch())

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
        with pytest.raises(RuntimeError, match=r"one event loop at a time.*run_coroutine_threadsafe"):
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
