"""The frames that subscribers must receive, as the labels that the oracle compares."""

from __future__ import annotations

from tests.simulation.model import Label, Sub, Told, Topic
from tests.simulation.posts import Post

#: Stands in a label for the new UUID of what is lost (SYN-1).
LOST = "lost"


def event_frames(topic: Topic, post: Post) -> Told:
    return [(sub.connection, ("event", post.key, post.id, "")) for sub in topic.connected(post.key)]


def confirmation_label(sub: Sub) -> Label:
    return "confirmation", sub.events


def sync_error_frames(topic: Topic, but: str, event: str, name: str, subscriber: str) -> Told:
    label = "syncerror", event, name, subscriber or "unnamed"
    return [(sub.connection, label) for sub in topic.connected("syncerror") if sub.connection != but]


def lost_frames(topic: Topic, sub: Sub) -> Told:
    return sync_error_frames(topic, "", LOST, "syncerror", sub.name)
