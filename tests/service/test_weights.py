"""Weights: sessions never count less than their memory, and count by their changes."""

from __future__ import annotations

import tracemalloc

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import (
    Content,
    OpenContext,
    Outgoing,
    Queue,
    RetainedEvent,
    Session,
    Shared,
    Subscription,
)
from fhircast_hub.service.weights import growth
from fhircast_hub.storage.row_reader import session_of
from fhircast_hub.storage.rows import changes

KEY = SessionKey("https://idp.example", "fdb2f928-5546-4f52-87a0-0648e9ded065")
EMPTY = Session(realm=KEY.realm, topic=KEY.topic, owner="user-1")
#: The longest id, in characters of four bytes each.
WIDE = "\U0001f600" * 256


def contexts(count: int, size: int = 200) -> dict[str, OpenContext]:
    return {
        f"patient/{number}": OpenContext(
            *(f"patient/{number}", "Patient", f"id-{number}", "2026-11-22T10:00:00Z", number, "v" * 36, bytes(size)),
            context_at=1,
            context_size=2,
            implied={"encounter": f"encounter/{number}"},
        )
        for number in range(count)
    }


def content(count: int, url: str) -> Content:
    entries = {f"observation/{number}": f'{{"fullUrl":"{url}{number}","resource":{{}}}}' for number in range(count)}
    resources = {ref: Shared(number, entry.encode()) for number, (ref, entry) in enumerate(entries.items())}
    size = sum(len(shared.entry) for shared in resources.values())
    urls = {f"{url}{number}": ref for number, ref in enumerate(resources)}
    return Content(resources, size, tuple(bytes([number]) * 32 for number in range(200)), urls)


def event_ref(id_: str) -> EventRef:
    return EventRef(id_, id_, "Patient-close")


SESSIONS = {
    "small": replace(EMPTY, contexts=contexts(1), current="patient/0"),
    "contexts": replace(EMPTY, contexts=contexts(64), recent={bytes([n]) * 32: n + 1000 for n in range(64)}),
    "large": replace(EMPTY, contexts=contexts(2, 500_000), home=bytes(100_000)),
    "content": replace(EMPTY, contexts=contexts(1), contents={"patient/0": content(1000, "urn:uuid:")}),
    "wide urls": replace(EMPTY, contexts=contexts(1), contents={"patient/0": content(500, WIDE)}),
    "held": replace(EMPTY, retained={n: RetainedEvent(1.5, event_ref(f"{n}"), "Patient", f"patient/{n}", bytes(300)) for n in range(256)}),
    "wide held": replace(EMPTY, retained={n: RetainedEvent(1.5, event_ref(f"{WIDE}{n}"), "A", f"a/{n}", b"{}") for n in range(256)}),
    "lost": replace(EMPTY, dropped_closes={f"Patient/{n}": n + 0.5 for n in range(1024)}),
    "outbox": replace(
        EMPTY,
        outbox={
            f"{subscription_id:064}": Queue({n: Outgoing(f"{subscription_id:064}", event_ref(f"{WIDE}{n}"), bytes(99)) for n in range(subscription_id, 999, 9)}, 10989)
            for subscription_id in range(9)
        },
    ),
    "subscriptions": replace(
        EMPTY,
        subscriptions={
            f"{subscription_id:064}": Subscription(
                *(f"{subscription_id:064}", "user:user-1", "Viewer", tuple(f"Type{n:03}-open" for n in range(256)), 1.5, 2.5),
                callback="https://example.org/" + "x" * 2000,
            )
            for subscription_id in range(20)
        },
    ),
}  # fmt: skip


@pytest.mark.req("LIM-2")
@pytest.mark.parametrize("name", SESSIONS)
def test_no_session_takes_more_than_is_counted(name: str) -> None:
    """Each copy has been read from a store, so that it shares nothing with another."""
    kinds: dict[str, dict[str, bytes]] = {}
    for (_, _, kind, part), body in changes(KEY, None, SESSIONS[name]):
        assert body is not None
        kinds.setdefault(kind, {})[part] = body
    tracemalloc.start()
    try:
        copies = [session_of(KEY.realm, KEY.topic, kinds) for _ in range(10)]
        takes = tracemalloc.get_traced_memory()[0] // 10
    finally:
        tracemalloc.stop()
    counted = growth(None, copies[0])
    assert takes <= counted
    if not name.startswith("wide"):
        assert counted < 3 * takes + 8192, "far too much"


@pytest.mark.req("LIM-2")
def test_the_name_of_a_node_is_counted() -> None:
    """A node may have a long name, such as a host's."""
    subscriptions = SESSIONS["subscriptions"].subscriptions
    watched = {id_: replace(each, watcher="n" * 4096) for id_, each in subscriptions.items()}
    assert growth(SESSIONS["subscriptions"], replace(EMPTY, subscriptions=watched)) >= 4096 * len(watched)


@pytest.mark.req("LIM-2")
@pytest.mark.parametrize("before", SESSIONS.values(), ids=SESSIONS)
def test_what_changes_adds_up(before: Session) -> None:
    """However a session came to its state, its weight is the same. A forgotten session weighs nothing."""
    for after in SESSIONS.values():
        assert growth(None, before) + growth(before, after) == growth(None, after)
    assert growth(before, None) == -growth(None, before)
    assert growth(before, replace(before, order=99)) == 0
