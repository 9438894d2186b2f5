"""`python -m demo [--keep] [--port N]`: start everything, play the script, stop everything."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from websockets.exceptions import WebSocketException

from demo import DemoError
from demo.auth import running_issuer
from demo.chart import Chart
from demo.ehr import Ehr, as_of_now
from demo.fhir import MESSAGES, Message, example
from demo.follower import Follower
from demo.hub import running_hub
from demo.reporting import Reporting
from demo.screen import say, title
from demo.script import CLOSES, OPENS, STUDY_ALONE, Step
from demo.session import Session
from demo.viewer import Viewer
from fhircast_hub.dev import DevIssuer

#: The session of the specification's examples, so that they can be posted as they are.
TOPIC = example("Patient-open")["event"]["hub.topic"]


def main() -> int:
    """Exit code 0 when everyone was told what they should have been, 1 when not, 130 when interrupted before that."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the hub running afterwards, until Ctrl-C")
    parser.add_argument("--port", type=int, help="where the hub listens; by default a free port")
    options = parser.parse_args()
    try:
        asyncio.run(demo(options.port, keep=options.keep))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except (httpx.HTTPError, WebSocketException, OSError) as error:
        print(f"demo: the hub cannot be reached: {type(error).__name__} {error}".rstrip(), file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


async def demo(port: int | None, *, keep: bool) -> None:
    """Raises DemoError as soon as somebody is out of step."""
    _stop_on_signals()
    started = time.monotonic()
    async with running_issuer() as issuer, _session(issuer, port) as session, AsyncExitStack() as joined:
        followers = await _everything(session, issuer, joined)
        if not keep:
            for follower in followers:
                await follower.leave()
        events, seconds = len(OPENS + CLOSES + STUDY_ALONE), time.monotonic() - started
        print(f"\ndemo: {events} events, {len(followers)} followers, everyone in step in {seconds:.1f} s", flush=True)
        if keep:
            print(_commands(session, issuer), flush=True)
            await _keep(followers)


async def _everything(session: Session, issuer: DevIssuer, joined: AsyncExitStack) -> list[Follower]:
    """All scenes; the followers, who are in the session as long as `joined` is open."""
    ehr, viewer, reporting = Ehr(session, issuer), Viewer(session, issuer), Reporting(session, issuer)
    followers: list[Follower] = [viewer, Chart(session, issuer)]
    for follower in followers:
        await joined.enter_async_context(follower.joined())
    await _the_viewer_may_not_drive(session, viewer)

    title("The clinician opens a patient, a study and an encounter")
    opened = await _play(OPENS, ehr, followers)

    title("A reporting application joins, and is told at once what is open")
    await joined.enter_async_context(reporting.joined())
    await reporting.hear(opened)
    followers.append(reporting)

    title("The clinician closes them again")
    await _play(CLOSES, ehr, followers)

    title("A study alone: the hub derives its patient for those who do not know of that one")
    await _play(STUDY_ALONE, ehr, followers)
    return followers


async def _play(steps: Iterable[Step], ehr: Ehr, followers: Sequence[Follower]) -> list[Message]:
    """Publish one after the other, each when all followers have taken in the one before; what was published."""
    published = []
    for step in steps:
        message = await ehr.publish(step.event)
        for follower in followers:
            expected = step.told(follower.name, message)
            await follower.hear(expected)
            if not expected:
                follower.skip(message)
        published.append(message)
    return published


async def _the_viewer_may_not_drive(session: Session, viewer: Follower) -> None:
    message = as_of_now(example("Patient-open"), session.topic)
    await session.publish(viewer.token, message, expect=httpx.codes.FORBIDDEN)
    say(viewer.name, "403 Forbidden", f"may not open a patient for others: its token allows {viewer.scope}")


@asynccontextmanager
async def _session(issuer: DevIssuer, port: int | None) -> AsyncIterator[Session]:
    """A session at a hub of its own."""
    async with running_hub(issuer.issuer, port) as url, httpx.AsyncClient(trust_env=False) as http:
        say("hub", "ready", f"{url}; it trusts tokens of {issuer.issuer}")
        yield Session(url, TOPIC, http)


def _stop_on_signals() -> None:
    """Ctrl-C, a terminal that is closed, `kill`: each ends the demo in order, and the hub with it."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _commands(session: Session, issuer: DevIssuer) -> str:
    """What there is to paste while the hub runs. The messages have the specification's topic, and so has the session."""
    bearer = '-H "Authorization: Bearer $TOKEN"'
    lines = [
        "The hub runs until Ctrl-C, and the followers with it. In another terminal:",
        "",
        f"export HUB={session.url} TOPIC={session.topic}",
        f"export TOKEN={issuer.token(topic=session.topic)}",
        "# Open a study:",
        f'curl -si $HUB {bearer} -H "Content-Type: application/json" \\',
        f"  -d @{os.path.relpath(MESSAGES)}/ImagingStudy-open.json",
        "# What is open now?",
        f"curl -s $HUB/$TOPIC {bearer}",
        "# Subscribe; the answer holds the endpoint of a WebSocket:",
        f"curl -s $HUB {bearer} -d hub.channel.type=websocket -d hub.mode=subscribe \\",
        "  -d hub.topic=$TOPIC -d hub.events=Patient-open,Patient-close",
        "",
    ]
    return "\n".join(lines)


async def _keep(followers: Iterable[Follower]) -> None:
    """Leave everything running until a signal comes. Whoever pastes a command sees what the followers make of it."""
    try:
        await asyncio.gather(*(follower.follow() for follower in followers))
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task
        task.uncancel()  # it was not this that was to be cancelled: all else ends in order
    print("\ndemo: stopped", flush=True)


if __name__ == "__main__":
    sys.exit(main())
