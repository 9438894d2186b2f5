"""`fhircast-hub serve --workers`: several processes on one port, each a node; one dies, one sleeps, all are stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from fhircast_hub.settings.machine_memory import available
from tests.ports import free_port
from tests.postgresql.programs import is_alive
from tests.postgresql.server import PostgresServer
from tests.process.hub_process import (
    PATIENCE,
    HubProcess,
    IssuerThread,
    Visitor,
    back,
    command,
    environment,
    hub_process,
)
from tests.process.workers_world import WorkersProcess, settings_of, wait
from tests.running import Follower, event, until

#: Subscribers of one session, at most. Long before, each of two workers has some.
CROWD = 90


@pytest.fixture
def two(tmp_path: Path, issuer: IssuerThread, database: str) -> Iterator[WorkersProcess]:
    """A hub of two workers."""
    with WorkersProcess(tmp_path, 2, **settings_of(database, issuer)) as workers:
        yield workers


@asynccontextmanager
async def crowd(workers: WorkersProcess, visitor: Visitor) -> AsyncIterator[list[Follower]]:
    """Subscribers of one session, with a socket each, until each worker has two sockets."""
    followers: list[Follower] = []
    sockets: dict[int, float] = {}
    async with AsyncExitStack() as stack:
        while len(followers) < CROWD:
            for _ in range(CROWD // 9):
                endpoint = await visitor.subscribe(subscriber__name=f"viewer {len(followers)}")
                followers.append(await stack.enter_async_context(visitor.follow(endpoint)))
            sockets = await asyncio.to_thread(workers.sockets, len(followers))
            if min(sockets.values()) > 1:
                break
        assert sum(sockets.values()) == len(followers) < CROWD
        yield followers


@pytest.mark.req("NOD-15", "NOD-5", "OPS-15")
async def test_workers_share_sessions_and_connections(two: WorkersProcess, issuer: IssuerThread) -> None:
    """Each serves a part of the sockets; what is published at one is told to the sockets of both."""
    async with Visitor(two.hub, issuer.idp) as visitor, crowd(two, visitor) as followers:
        for number in range(4):
            async with Visitor(two.hub, issuer.idp) as other:
                assert (await other.publish(event("Patient-open", f"p{number}"))).status_code == 202
        for follower in followers:
            assert [(await follower.next())["id"] for _ in range(4)] == [
                f"Patient-open-p{number}" for number in range(4)
            ]
    assert {line["worker"] for line in two.hub.lines("request")} == {0, 1}


@pytest.mark.req("NOD-16")
async def test_a_killed_worker_is_started_anew(two: WorkersProcess, issuer: IssuerThread) -> None:
    """At once. Its sockets come back; those of the other worker stay, and nobody misses an event."""
    async with Visitor(two.hub, issuer.idp) as visitor, crowd(two, visitor) as followers:
        before = two.pids()
        two.kill(1)
        await until(lambda: len(two.pids()) == 2 and two.pids()[1] != before[1])
        assert two.pids()[0] == before[0]
        (died,) = two.hub.lines("worker died")
        assert (died["worker"], died["pid"], died["signal"], died["seconds"]) == (1, before[1], 9, 0.0)
        assert (await visitor.publish(event("Patient-open", "p1"))).status_code == 202
        lost = 0
        for follower in followers:
            try:
                assert (await follower.next())["id"] == "Patient-open-p1"
            except ConnectionClosed:
                lost += 1
        assert 2 <= lost <= len(followers) - 2
    await asyncio.to_thread(wait, lambda: two.up() == [0, 1])


@pytest.mark.req("NOD-16")
async def test_all_workers_killed_at_once(two: WorkersProcess, issuer: IssuerThread) -> None:
    """A connection that comes meanwhile waits in the queue, and is served: the first process holds the socket open."""
    async with Visitor(two.hub, issuer.idp) as visitor:
        endpoint = await visitor.subscribe()
        await visitor.publish(event("Patient-open", "p1"))
        for number in (0, 1):
            two.kill(number)
        await until(lambda: len(two.hub.lines("worker died")) == 2)
        async with Visitor(two.hub, issuer.idp) as other:
            assert (await other.client.get(f"{other.origin}/health/live")).status_code == 200
        follower = await back(endpoint)
        assert (await follower.next())["id"] == "Patient-open-p1"
        await follower.connection.close()
    assert two.hub.stop() == 0


@pytest.mark.req("NOD-16")
def test_a_worker_that_dies_again_and_again_waits(two: WorkersProcess) -> None:
    """The first time it is started at once, then after a second; the other worker serves on."""
    for times in (1, 2, 3):
        two.kill(0)
        wait(lambda: len(two.hub.lines("worker died")) == times)  # noqa: B023  # it is called at once
        if times < 3:
            wait(lambda: len(two.events("worker started")) == 2 + times)  # noqa: B023
    assert [line["seconds"] for line in two.hub.lines("worker died")] == [0.0, 1.0, 2.0]
    assert two.up() == [1]
    assert two.hub.stop() == 0


@pytest.mark.req("NOD-18", "OPS-3")
async def test_sigterm_stops_one_worker_after_the_other(two: WorkersProcess, issuer: IssuerThread) -> None:
    """While the first has not ended, the second serves. All sockets are closed with 1001; the exit code is 0."""
    async with Visitor(two.hub, issuer.idp) as visitor, crowd(two, visitor) as followers:
        two.kill(0, signal.SIGSTOP)
        two.hub.send(signal.SIGTERM)
        async with Visitor(two.hub, issuer.idp) as other:
            assert (await other.publish(event("Patient-open", "p1"))).status_code == 202
        two.kill(0, signal.SIGCONT)
        assert await asyncio.to_thread(two.hub.ended) == 0
        assert two.events("worker ended") == [0, 1]
        assert {await follower.closed() for follower in followers} == {1001}


@pytest.mark.req("NOD-18")
def test_a_second_sigterm_stops_all_at_once(two: WorkersProcess) -> None:
    """Who is impatient need not wait for a worker that sleeps."""
    two.kill(0, signal.SIGSTOP)
    two.hub.send(signal.SIGTERM)
    two.hub.send(signal.SIGINT)
    wait(lambda: two.events("worker ended") == [1])
    two.kill(0, signal.SIGCONT)
    assert two.hub.ended() == 0


@pytest.mark.req("NOD-18", "OPS-3")
def test_a_worker_that_does_not_end_is_killed(two: WorkersProcess) -> None:
    """All in all within ten seconds; the others end in order before. The exit code says so, and the log once."""
    two.kill(0, signal.SIGSTOP)
    began = time.monotonic()
    assert two.hub.stop() == 1
    assert time.monotonic() - began < 10.5
    assert two.events("worker ended") == [1, 0]
    assert two.events("worker is killed") == [0]


@pytest.mark.req("NOD-18")
def test_ctrl_c(two: WorkersProcess) -> None:
    """A terminal sends SIGINT to every process; workers leave the end to the first."""
    for number in (0, 1):
        two.kill(number, signal.SIGINT)
    two.metrics_of([0, 1])
    assert two.hub.stop(signal.SIGINT) == 0
    assert two.events("worker ended") == [0, 1]
    assert not two.hub.lines("worker died")


@pytest.mark.req("NOD-18")
async def test_workers_end_with_the_first_process(
    tmp_path: Path, issuer: IssuerThread, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is killed: in order, with 1001. The port is free, and no folder is left."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)  # tmp_path is too long for a Unix socket
        with WorkersProcess(tmp_path, 2, **settings_of(database, issuer)) as two:
            async with Visitor(two.hub, issuer.idp) as visitor, crowd(two, visitor) as followers:
                pids = two.pids()
                assert len(os.listdir(folder)) == 1
                assert two.hub.stop(signal.SIGKILL) == -signal.SIGKILL
                assert {await follower.closed() for follower in followers} == {1001}
            await until(lambda: not any(map(is_alive, pids)))
            assert os.listdir(folder) == []
            socket.create_server(("127.0.0.1", two.hub.port)).close()


@pytest.mark.req("OPS-15")
def test_metrics_of_all_workers(two: WorkersProcess) -> None:
    """Every metric has one head, and the samples of each worker; one that sleeps is left out, and said to be."""
    text = two.metrics_of([0, 1])
    heads = [line for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))
    assert set(two.numbers("process_open_fds", text)) == {0, 1}
    assert two.numbers("fhircast_worker_up", text) == {0: 1.0, 1: 1.0}
    # Either may come to hold all sessions, so they share the half of the memory.
    assert set(two.numbers("fhircast_max_session_bytes", text).values()) == {float(available() // 2 // 2)}
    two.kill(1, signal.SIGSTOP)
    text = two.metrics_of([0])
    assert two.numbers("fhircast_worker_up", text) == {0: 1.0, 1: 0.0}
    assert set(two.numbers("fhircast_sockets", text)) == {0}
    two.kill(1, signal.SIGCONT)


@pytest.mark.req("NOD-17")
@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_workers_are_counted_from_one_on(tmp_path: Path, workers: str) -> None:
    settings = {"port": free_port(), "issuers": [{"issuer": "https://login.example", "audience": "hub"}]}
    done = command(tmp_path, "serve", "--workers", workers, environ=environment(tmp_path, **settings))
    assert done.returncode == 2
    assert "--workers" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.req("NOD-17")
@pytest.mark.parametrize("store", ["memory:", "sqlite:///hub.db"])
def test_several_workers_need_postgresql(tmp_path: Path, store: str) -> None:
    """One line, and nothing was begun. One worker is as none."""
    settings = {
        "port": free_port(),
        "issuers": [{"issuer": "https://login.example", "audience": "hub"}],
        "store": store,
    }
    done = command(tmp_path, "serve", "--workers", "2", environ=environment(tmp_path, **settings))
    words = f"--workers needs FHIRCAST_STORE to be a postgresql:// URL, not '{store}'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", words)
    assert not (tmp_path / "hub.db").exists()
    with hub_process(tmp_path, "serve", "--workers", "1", **settings) as hub:
        assert hub.stop() == 0
        assert not hub.lines("worker started")


@pytest.mark.req("NOD-17")
def test_several_workers_need_a_trail_of_their_own(tmp_path: Path) -> None:
    """Entries of several processes could mix on stdout."""
    issuers = [{"issuer": "https://login.example", "audience": "hub"}]
    store = "postgresql://hub:x@127.0.0.1:1/hub"
    settings: dict[str, Any] = {"issuers": issuers, "store": store, "secret_key": "k" * 32, "audit": "-"}
    line = refused(tmp_path, port=free_port(), **settings)
    assert line.startswith("--workers needs FHIRCAST_AUDIT to be file:///path or a URL, not '-'")


def refused(folder: Path, code: int = 2, **settings: object) -> str:
    """The only line on stderr of a hub of three workers that ends with this exit code instead of a start."""
    done = command(folder, "serve", "--workers", "3", environ=environment(folder, **settings))
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    return done.stderr


@pytest.mark.req("NOD-17", "OPS-42")
def test_what_stops_the_first_worker_is_said_once(
    tmp_path: Path, issuer: IssuerThread, postgres_server: PostgresServer, database: str
) -> None:
    """A wrong password, no database, a port that is taken."""
    wrong = settings_of(database.replace(postgres_server.password, "hunter2"), issuer)
    line = refused(tmp_path, port=free_port(), **wrong)
    assert line.startswith("FHIRCAST_STORE: the database refuses this user or password; check both ")
    away = settings_of("postgresql://hub:x@127.0.0.1:1/hub", issuer)
    assert "Connection refused" in refused(tmp_path, 1, port=free_port(), **away)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1 {port}" in refused(tmp_path, port=port, **settings_of(database, issuer))


@pytest.mark.req("NOD-17", "OPS-2")
def test_what_stops_a_later_worker_is_in_the_log(
    two: WorkersProcess, postgres_server: PostgresServer, database: str
) -> None:
    """Another serves on, and stderr is not for what is said again and again."""
    name = database.rpartition("/")[2]
    postgres_server.psql("update fhircast.hub set version = 99", name)
    two.kill(1)
    wait(lambda: two.hub.lines("worker cannot start"))
    said, *_ = two.hub.lines("worker cannot start")
    assert said["worker"] == 1
    assert said["reason"].startswith("FHIRCAST_STORE: the tables have version 99")
    wait(lambda: two.up() == [0])
    assert two.hub.stop() == 0
    assert two.hub.stderr == ""


@pytest.mark.req("NOD-18")
def test_sigterm_while_the_first_worker_starts(tmp_path: Path, issuer: IssuerThread) -> None:
    """Its database does not answer: nothing is left, and the exit code is 0."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = settings_of(f"postgresql://hub:x@127.0.0.1:{silent.getsockname()[1]}/hub", issuer)
        hub: HubProcess = hub_process(tmp_path, "serve", "--workers", "3", **settings)
        try:
            wait(lambda: hub.lines("worker started"))
            assert hub.stop() == 0
            (started,) = hub.lines("worker started")
            assert not is_alive(started["pid"])
        finally:
            hub.__exit__()


@pytest.mark.req("NOD-15", "NOD-18")
def test_many_workers(tmp_path: Path, issuer: IssuerThread, database: str) -> None:
    """More than there are processors: all serve, and all end in time."""
    with WorkersProcess(tmp_path, 6, **settings_of(database, issuer)) as workers:
        workers.metrics_of([0, 1, 2, 3, 4, 5])
        for _ in range(20):
            answer = httpx.get(f"{workers.hub.origin}/health/ready", trust_env=False, timeout=PATIENCE)
            assert answer.status_code == 200
        pids = workers.pids()
        assert workers.hub.stop() == 0
        assert sorted(workers.events("worker ended")) == [0, 1, 2, 3, 4, 5]
        assert not workers.events("worker is killed")
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
