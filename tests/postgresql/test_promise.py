"""The hub says which failures accepted events survive, by the database's settings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fhircast_hub.postgresql import store
from fhircast_hub.postgresql.promise import Promise
from fhircast_hub.telemetry.logs import MAX_TEXT
from tests.postgresql.nodes_world import nodes
from tests.postgresql.server import DATABASE, PostgresServer
from tests.postgresql.test_refusals import fhircast_hub
from tests.running import until

pytestmark = pytest.mark.req("OPS-16")

NAMES = "ANY 1 (db2, db3)"
POWER_CUT = "a power cut may lose everything: fsync is off"
WHOLE = "accepted events survive any node, a crash of the database, a power cut and the database's failover"
NO_STANDBY = (
    "accepted events survive any node, a crash of the database and a power cut; "
    "a failover may lose the last events: synchronous_standby_names is empty"
)


@pytest.mark.parametrize(
    ("promise", "said"),
    [
        (Promise("on", NAMES, "on", 200), WHOLE),
        (Promise("remote_apply", NAMES, "on", 200), WHOLE),
        (Promise("on", " ", "on", 200), NO_STANDBY),
        (Promise("local", "", "on", 200), NO_STANDBY),
        (
            Promise("remote_write", NAMES, "on", 200),
            "accepted events survive any node, a crash of the database and a power cut; "
            "a failover may lose the last events: synchronous_commit is remote_write",
        ),
        (
            Promise("off", NAMES, "on", 500),
            "accepted events survive any node; "
            "a crash, power cut or failover may lose the last 1.5 s: synchronous_commit is off",
        ),
        (
            Promise("on", NAMES, "off", 200),
            f"accepted events survive any node, a crash of the database and the database's failover; {POWER_CUT}",
        ),
        (
            Promise("off", "", "off", 200),
            f"accepted events survive any node; {POWER_CUT}; "
            "a crash, power cut or failover may lose the last 0.6 s: synchronous_commit is off",
        ),
    ],
)
def test_the_promise_is_one_line(promise: Promise, said: str) -> None:
    assert str(promise) == said
    assert promise.is_whole == (said == WHOLE)
    assert len(said) <= MAX_TEXT  # the log would cut the rest


def test_check_config_says_the_promise_for_the_hubs_role(
    tmp_path: Path, database: str, postgres_server: PostgresServer
) -> None:
    """Settings of the role and of the database count. The tables need not be there. A risk is a warning."""
    postgres_server.psql(f"alter database {database.rpartition('/')[2]} set synchronous_commit = off")
    done = fhircast_hub(tmp_path, "check-config", database)
    what = f"FHIRCAST_STORE postgresql://***@{database.partition('@')[2]}"
    assert (done.returncode, done.stderr.splitlines()) == (
        0,
        [
            f"ok      {what} tables: are not there; serve will make them, version 1",
            f"warning {what} promise: {Promise('off', '', 'off', 200)}",
        ],
    )
    assert json.loads(done.stdout)["FHIRCAST_STORE"]["value"].startswith("postgresql://***@")


async def test_the_log_says_the_promise_at_the_start_and_when_it_changes(
    postgres_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patroni, for one, takes names away while no standby answers. A promise with a risk is a warning."""
    monkeypatch.setattr(store, "SWEEP_SECONDS", 0.05)
    with PostgresServer.make(postgres_folder, fsync=True) as server, capture_logs() as logs:
        async with nodes(server.url(), 1):
            for names, level, said in [
                ("", "warning", NO_STANDBY),
                ("nobody", "info", WHOLE),
                ("", "warning", NO_STANDBY),
            ]:
                await asyncio.to_thread(rename, server, names)
                await until(lambda: bool(found := promises(logs)) and found[-1] == (level, said))  # noqa: B023
            assert len(promises(logs)) == 3


def rename(server: PostgresServer, names: str) -> None:
    server.psql(f"alter system set synchronous_standby_names = '{names}'", DATABASE)
    server.psql("select pg_reload_conf()", DATABASE)


def promises(logs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Level and text of the lines."""
    return [(line["log_level"], line["reason"]) for line in logs if line["event"] == "promise of the database"]
