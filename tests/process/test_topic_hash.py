"""`fhircast-hub topic-hash`: the hash by which log lines name a topic, made beside a hub that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.postgresql.server import PostgresServer
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, command, environment, hub_process
from tests.running import event, until

SECRET = "0123456789abcdef" * 2
TOPIC = "https://ehr.example/session/7?ø"


def hash_of(folder: Path, **settings: Any) -> str:
    """The only line that the command prints about TOPIC."""
    done = command(folder, "topic-hash", TOPIC, environ=environment(folder, **settings))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.removesuffix("\n")


def refusal(folder: Path, **settings: Any) -> str:
    """The only line of a command that refuses."""
    done = command(folder, "topic-hash", TOPIC, environ=environment(folder, **settings))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    return done.stderr.removesuffix("\n")


async def logged(hub: HubProcess, issuer: IssuerThread) -> set[str]:
    """The hashes in the log of a hub after an event of TOPIC."""
    async with Visitor(hub, issuer.idp) as visitor:
        assert (await visitor.publish(event("Patient-open", topic=TOPIC))).status_code == 202
    await until(
        lambda: any(line.get("route") == "publish" for line in hub.lines("request"))
    )  # written behind the answer
    return {line["topic"] for line in hub.lines() if "topic" in line}


@pytest.mark.req("OPS-30")
async def test_the_hash_is_that_of_the_log_now_and_after_a_restart(tmp_path: Path, issuer: IssuerThread) -> None:
    """Of a SQLite store: while the hub runs, when it was killed, and after it has started again."""
    settings = {"store": f"sqlite:///{tmp_path}/hub.db"}
    with hub_process(tmp_path, issuers=issuer.settings, **settings) as hub:
        (first,) = await logged(hub, issuer)
        assert hash_of(tmp_path, **settings) == first
    assert hash_of(tmp_path, **settings) == first  # the block has killed the hub
    with hub_process(tmp_path, issuers=issuer.settings, **settings) as hub:
        assert await logged(hub, issuer) == {first}


@pytest.mark.req("OPS-30")
async def test_a_secret_key_gives_the_hash_whatever_the_store_is(tmp_path: Path, issuer: IssuerThread) -> None:
    """The key of a store does not count then. No store needs to be there for the command."""
    with hub_process(tmp_path, issuers=issuer.settings, store="memory:", secret_key=SECRET) as hub:
        (found,) = await logged(hub, issuer)
    assert hash_of(tmp_path, store="memory:", secret_key=SECRET) == found
    store = f"sqlite:///{tmp_path}/hub.db"
    assert hash_of(tmp_path, store=store, secret_key=SECRET) == found
    with hub_process(tmp_path, issuers=issuer.settings, store=store, secret_key=SECRET) as hub:
        assert await logged(hub, issuer) == {found}
    assert hash_of(tmp_path, store=store) != found
    away = "postgresql://hub@127.0.0.1:1/hub"
    assert hash_of(tmp_path, store=away, secret_key=SECRET) == found


@pytest.mark.req("OPS-30")
async def test_the_hash_of_nodes_on_one_database(
    tmp_path: Path, issuer: IssuerThread, postgres_server: PostgresServer, database: str
) -> None:
    """Two nodes without SECRET_KEY have the key of the database."""
    settings = {"store": database, "webhooks": False}
    with (
        hub_process(tmp_path, issuers=issuer.settings, **settings) as one,
        hub_process(tmp_path, issuers=issuer.settings, **settings) as two,
    ):
        (found,) = await logged(one, issuer)
        assert await logged(two, issuer) == {found}
        assert hash_of(tmp_path, **settings) == found


@pytest.mark.req("OPS-30", "SEC-3")
def test_where_no_hash_can_be_made_the_line_says_why(tmp_path: Path) -> None:
    line = refusal(tmp_path, store="memory:")
    assert line.startswith("FHIRCAST_SECRET_KEY is required: FHIRCAST_STORE is memory:, and without a key each run")
    path = tmp_path / "hub.db"
    line = f"FHIRCAST_STORE: {path} does not exist: no hub has opened this store"
    assert refusal(tmp_path, store=f"sqlite:///{path}") == line
    assert not path.exists()
    line = "FHIRCAST_STORE: the database cannot be reached: 127.0.0.1:1 Connection refused"
    line += "; check host and port in FHIRCAST_STORE, and what is between"
    assert refusal(tmp_path, store="postgresql://hub@127.0.0.1:1/hub", webhooks=False) == line
    line = refusal(tmp_path, store="postgresql://hub@127.0.0.1:1/hub")
    assert line.startswith("FHIRCAST_SECRET_KEY is required, the same on every node"), "serve has a key here"
    assert refusal(tmp_path, store="nowhere:").startswith("FHIRCAST_STORE must be ")


@pytest.mark.req("OPS-30")
def test_many_topics_are_read_from_stdin(tmp_path: Path) -> None:
    """A line for each: the hash, then the topic."""
    environ = environment(tmp_path, secret_key=SECRET, store="memory:")
    words = [sys.executable, "-m", "fhircast_hub", "topic-hash", "-"]
    given = f"{TOPIC}\r\n-\n a b \n".encode()
    done = subprocess.run(words, cwd=tmp_path, env=environ, input=given, capture_output=True, timeout=PATIENCE)
    lines = [line.partition(" ") for line in done.stdout.decode().splitlines()]
    assert [topic for _, _, topic in lines] == [TOPIC, "-", " a b "]
    assert lines[0][0] == hash_of(tmp_path, secret_key=SECRET, store="memory:")
    assert len({found for found, _, _ in lines}) == 3
