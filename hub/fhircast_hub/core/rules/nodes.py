"""Nodes: the processes of one hub. They share its sessions (NOD).

A node has a name of its own. The names of its sockets begin with that name.
"""

from __future__ import annotations

from fhircast_hub.core.rules.webhook_outbox import CONNECTION_PREFIX
from fhircast_hub.core.state.session import Session


def socket_name(node: str, number: int) -> str:
    """The connection name of a node's socket. The node's name is not empty, and does not begin with CONNECTION_PREFIX."""
    return f"{node}-{number}"


def node_of(connection: str) -> str:
    """The node of a socket, by the connection's name. "": no node has it, since it is a callback, or there is none."""
    return "" if connection.startswith(CONNECTION_PREFIX) else connection.rpartition("-")[0]


def nodes_of(session: Session | None) -> frozenset[str]:
    """The nodes that a session concerns: those of its sockets, its poster, and those that watch its opaque tokens."""
    if session is None:
        return frozenset()
    names = {name for each in session.subscriptions.values() for name in (node_of(each.connection), each.watcher)}
    return frozenset((names | {session.poster}) - {""})
