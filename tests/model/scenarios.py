"""Scenarios: what may happen in one search, and the world that it begins with.

Each has three nodes and four events, unless its name says otherwise. The core itself makes the sessions of the beginning.
"""

from __future__ import annotations

from typing import NamedTuple

from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.rules.nodes import socket_name
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import Command, Connected, Publish, Subscribe
from fhircast_hub.core.state.session import Session
from fhircast_hub.core.wire.event import Event
from tests.model.values import RULES, Values, key_of
from tests.model.world import UNSENT, Budget, Entry, Node, Stored, Sub, World
from tests.simulation.posts import FULL, NOON, REALM, post

EVENTS = ("Patient-open", "ImagingStudy-update", "SyncError")
STUDY = "imagingstudy/s1"
CALLBACK = "hook"


class Scenario(NamedTuple):
    """The bounds of one search."""

    name: str
    #: The topic of each event.
    events: tuple[int, ...] = (0, 0, 0, 0)
    #: Whether the events are updates of one version, instead of opens of different patients.
    updates: bool = False
    #: Topic and node of each subscriber with a socket.
    subs: tuple[tuple[int, int], ...] = ((0, 0), (0, 1))
    #: Whether the first topic has a subscriber with a callback, verified by node 0.
    callback: bool = False
    budget: Budget = Budget()
    #: Whether a commit has its position before it is visible, so that others come between.
    slow_commits: bool = False
    #: Whether notices are told apart from readings. Else a node reads at any time, with or without one.
    notices: bool = False
    #: Whether the time for returns may pass.
    time: bool = False
    #: Rows that a failover loses, and whether their positions are given again. Not what the hub asks of a database.
    lost_rows: int = 0
    again: bool = False
    nodes: int = 3

    @property
    def topics(self) -> int:
        """Number of topics."""
        return max(self.events) + 1


class Ids:
    """New ids for the beginning."""

    def __init__(self) -> None:
        self._given = 0

    def uuid(self) -> str:
        self._given += 1
        return f"first-{self._given}"


def name_of(n: int, life: int = 0) -> str:
    """The name of node `n` in its lives."""
    return f"{'abcdefgh'[n]}{life}"


def number_of(connection: str) -> int:
    """The number of a connection, at whatever node: that of the last one that its subscriber asked for."""
    return int(connection.rpartition("-")[2])


def place_of(name: str) -> int:
    """The place of a node by any of its names."""
    return "abcdefgh".index(name[0])


def life_of(name: str) -> int:
    """The number of a node's life, by its name."""
    return int(name[1:])


def begin(scenario: Scenario) -> tuple[Values, World]:
    """The values of a search, and its first world."""
    made = [_session(scenario, topic) for topic in range(scenario.topics)]
    version = made[0].contexts[STUDY].version if scenario.updates else ""
    events = (_event(scenario, k, version) for k in range(len(scenario.events)))
    values = Values(events, slow_commits=scenario.slow_commits)
    stored = tuple(Stored(0, values.put(session)) for session in made)
    names = [name_of(n) for n in range(scenario.nodes)]
    nodes = tuple(
        Node(name, tuple(Entry(each.session, 0) if name in values.nodes(each.session) else None for each in stored))
        for name in names
    )
    subs = tuple(Sub(topic, names[n], socket_name(names[n], 100 * s)) for s, (topic, n) in enumerate(scenario.subs))
    callers = (UNSENT,) * len(scenario.events)
    return values, World(stored, nodes, callers, subs, scenario.budget, notices=((),) * scenario.nodes)


def _event(scenario: Scenario, k: int, version: str) -> Event:
    topic = key_of(scenario.events[k]).topic
    if scenario.updates:
        changes = ((f"observation/o{k % 3 + 1}", k),)
        return post(topic, "update", STUDY, f"event-{k}", NOON, version=version, changes=changes).event
    return post(topic, "open", f"patient/{k}", f"event-{k}", NOON).event


def _session(scenario: Scenario, topic: int) -> Session:
    """The session of a topic, with its subscribers connected."""
    key, principal, ids = key_of(topic), FULL.principal(), Ids()
    session: Session | None = None
    commands: list[tuple[int, Command]] = []
    for s, (of, n) in enumerate(scenario.subs):
        if of == topic:
            subscription = f"sub-{s}"
            commands += [
                (n, Subscribe(principal, key.topic, subscription, EVENTS, name=f"name-{s}")),
                (n, Connected(subscription, socket_name(name_of(n), 100 * s))),
            ]
    if scenario.callback and topic == 0:
        ask = Subscribe(principal, key.topic, CALLBACK, EVENTS[:1], callback="http://example.org/")
        commands += [(0, ask), (0, Connected(CALLBACK, connection_name(CALLBACK)))]
    if scenario.updates:
        commands.append((0, Publish(principal, post(key.topic, "open", STUDY, "first", NOON).event)))
    for n, command in commands:
        session = decide(session, command, Env(NOON, ids, RULES, name_of(n))).session
    assert session is not None
    assert session.realm == REALM
    return session
