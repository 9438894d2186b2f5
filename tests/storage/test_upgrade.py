"""A file of the schema before is upgraded whole or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import (
    Outgoing,
    Queue,
    Subscription,
)
from tests.storage.sqlite_world import FULL, opened


async def test_a_file_of_the_schema_before_is_upgraded(tmp_path: Path) -> None:
    """A session is the one that the hub before wrote, now and when the file is opened again.

    Its rows do not say who left, and who was sent nothing.
    """
    connection = sqlite3.connect(tmp_path / "hub.db")
    connection.executescript((Path(__file__).parent / "schema-2.sql").read_text(encoding="utf-8"))
    connection.close()
    first = await opened(tmp_path / "hub.db")
    (session,) = first.sessions()
    await first.close()
    chart = Subscription(
        "hook",
        *("user:user-1", "Chart", ("Patient-close",)),
        expires=88.5,
        connected_or_lost_at=1.5,
        connection="hook-hook",
        never_connected=False,
        delivered_until=1.5,
        reconnect_deadline=3.5,
        callback="https://chart.example/",
        secret=b"sealed",
        opaque=True,
        acknowledges=True,
        missed_acks=2,
        refused_event="Patient-open",
        issuer="https://issuer.example",
        client="chart",
        shown_opens=("patient/p1",),
        address="192.0.2.1",
    )
    viewer = replace(FULL.subscriptions["subscription_id"], subscription_id="sid", left=False)
    post = Outgoing("hook", EventRef("e3", "e3", "Patient-open", "patient/p1"), b"post")
    assert session == replace(
        FULL,
        sent_nothing=frozenset(),
        created_at=1.25,
        last_post_number=4,
        outbox={"hook": Queue({4: post}, 4)},
        subscriptions={"hook": chart, "sid": viewer},
    )
    second = await opened(tmp_path / "hub.db")
    assert list(second.sessions()) == [session]
    await second.close()


@pytest.mark.parametrize("body", ["c1", "01"], ids=["no msgpack", "no map"])
async def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path, body: str) -> None:
    """A row that cannot be read stops the upgrade, and the older hub still opens the file."""
    connection = sqlite3.connect(tmp_path / "hub.db")
    connection.executescript((Path(__file__).parent / "schema-2.sql").read_text(encoding="utf-8"))
    connection.execute(f"update part set body = x'{body}' where kind = 'outgoing'")
    connection.commit()
    before = list(connection.iterdump())
    with pytest.raises(ValueError, match="cannot be read as a hub's store"):
        await opened(tmp_path / "hub.db")
    assert list(connection.iterdump()) == before
    assert connection.execute("pragma user_version").fetchone() == (2,)
    connection.close()
