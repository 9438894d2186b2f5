"""The losses of sockets, one by one, with their node, and with the whole hub, for the oracle."""

from __future__ import annotations

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.state.commands import Disconnected, NodeLost
from tests.simulation.model import Sub, Topic
from tests.simulation.posts import DERIVED

#: Seconds to come back after a restart (SUB-41).
RESTART = 30
NORMAL, GOING_AWAY, RESTARTING = 1000, 1001, 1012


def disconnected(rules: Rules, topic: Topic, command: Disconnected, now: float) -> None:
    """A socket is gone (SUB-23, SYN-7)."""
    sub = topic.subs.get(command.subscription_id)
    if sub is None or sub.connection != command.connection:
        return
    if command.code in (NORMAL, GOING_AWAY):
        sub.reconnect_deadline = 0.0
    elif _has_subscribed_again(topic, sub, command.delivered_until):
        del topic.subs[sub.subscription_id]
    else:
        sub.reconnect_deadline = now + (RESTART if command.code == RESTARTING else rules.reconnect_grace)
    sub.leave()
    sub.delivered_until = command.delivered_until
    sub.connection, sub.since, sub.left = "", now, len(topic.changes)


def on_node(topic: Topic, node: str) -> list[Sub]:
    """The subscriptions with a socket of this node."""
    return [sub for sub in topic.subs.values() if sub.connection.startswith(f"{node}-")]


def node_lost(rules: Rules, topic: Topic, command: NodeLost, now: float) -> None:
    """All sockets of a node are gone (NOD-1, NOD-2). Changes after the death of the node were not heard."""
    lost = on_node(topic, command.node)
    for sub in lost:
        sub.leave()
        sub.connection, sub.since, sub.is_dead = "", now, False
        sub.reconnect_deadline = now + rules.reconnect_grace
    for sub in lost:
        if _has_subscribed_again(topic, sub, sub.delivered_until):
            del topic.subs[sub.subscription_id]


def _has_subscribed_again(topic: Topic, lost: Sub, delivered_until: float) -> bool:
    """Whether the application subscribed again before its broken connection was noticed (SUB-40)."""
    return bool(lost.name) and any(
        (sub.name, sub.app) == (lost.name, lost.app) and sub is not lost and sub.since > delivered_until
        for sub in topic.connected()
    )


def restarted(topic: Topic, now: float) -> None:
    """All sockets are gone with the hub's processes (SUB-41)."""
    topic.reopened = False
    for sub in topic.subs.values():
        if sub.connection:
            last_opens = topic.replay(sub.events)[1]
            last = {t: c.implied[t] for c in topic.contexts.values() for t in c.implied if f"{t}-open" in sub.events}
            sub.last_opens, sub.shown = {}, {last_opens.get(t, (last.get(t, ""), ""))[0] for t in DERIVED} - {""}
            sub.left = sub.left if sub.is_dead else len(topic.changes)
            sub.connection, sub.since, sub.is_dead = "", now, False
            sub.reconnect_deadline = now + RESTART
        elif sub.reconnect_deadline:
            sub.reconnect_deadline = now + RESTART
