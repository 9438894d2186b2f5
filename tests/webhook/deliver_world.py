"""Events that tests publish to callbacks."""

from __future__ import annotations

from tests.running import Follower, RunningHub, event


def opens(count: int, first: int = 1) -> list[str]:
    """What so many opens are called in short."""
    return [f"Patient-open p{number}" for number in range(first, first + count)]


async def publish(hub: RunningHub, count: int, first: int = 1) -> None:
    """So many opens, one after the other."""
    for number in range(first, first + count):
        assert (await hub.publish(event("Patient-open", f"p{number}"))).status_code == 202


async def sync_error(follower: Follower) -> tuple[str, list[str]]:
    """The next message, a SyncError: its text, and its codes."""
    message = await follower.next()
    assert message["event"]["hub.event"] == "SyncError"
    (item,) = message["event"]["context"]
    (issue,) = item["resource"]["issue"]
    return issue["diagnostics"], [coding["code"] for coding in issue["details"]["coding"]][:3]
