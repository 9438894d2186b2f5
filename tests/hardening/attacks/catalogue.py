"""All attacks, by row: the six of which one token stopped the hub, and five of their kind."""

from __future__ import annotations

from tests.hardening.attacks import bodies, console, requests, sockets
from tests.hardening.attacks.attacker import Attack

ATTACKS: dict[str, dict[str, Attack]] = {
    "frames": sockets.FRAMES,
    "unread answers": requests.ANSWERS,
    "bodies slow to parse": bodies.PARSING,
    "topics of a megabyte": bodies.TOPICS,
    "slow bodies": bodies.SLOW,
    "callbacks": requests.CALLBACKS,
    "cheap requests": requests.CHEAP,
    "handshakes": sockets.HANDSHAKES,
    "subscriptions": requests.SUBSCRIBING,
    "unread sockets": sockets.UNREAD,
    "console": console.CONSOLE,
}
