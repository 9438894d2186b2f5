"""The frames that subscribers must receive, as the labels that the oracle compares."""

from __future__ import annotations

from tests.simulation.model import Label, Messages, Sub, Topic
from tests.simulation.posts import Post

#: The event id, in a label, of the SyncError about a lost connection: a new UUID (SYN-1).
LOST = "lost"


def event_frames(topic: Topic, post: Post) -> Messages:
    return [(sub.connection, ("event", post.key, post.id, "")) for sub in topic.connected(post.key)]


def confirmation_label(sub: Sub) -> Label:
    return "confirmation", sub.events


def sync_error_frames(topic: Topic, except_connection: str, event: str, name: str, subscriber: str) -> Messages:
    label = "syncerror", event, name, subscriber or "unnamed"
    return [(sub.connection, label) for sub in topic.connected("syncerror") if sub.connection != except_connection]


def lost_frames(topic: Topic, sub: Sub) -> Messages:
    return sync_error_frames(topic, "", LOST, "syncerror", sub.name)
