"""`python -m demo`: runs a hub, two authorization servers, an EHR, two viewers, a chart and a reporting application,
until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from socket import socket

import uvicorn
from starlette.types import ASGIApp

from demo import DemoError
from demo.apps import issuers, make_apps
from demo.hub import running_hub
from demo.places import FIRST, PORTS, Places, find_places


def main() -> int:
    """Returns exit code 0 after Ctrl-C or a signal to stop, 1 where a part could not be started."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; browsers come to localhost")
    parser.add_argument(
        "--no-hub", action="store_true", help="a hub listens on the first port already, and no port may move"
    )
    parser.add_argument(
        "--first-port",
        type=_first_port,
        default=FIRST,
        metavar="PORT",
        help=f"the hub's port (default: {FIRST}); the other parts have the ports after it",
    )
    parser.add_argument(
        "--token-seconds", type=int, default=300, help="how long access tokens last; apps renew in time"
    )
    options = parser.parse_args()
    try:
        asyncio.run(demo(options))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def _first_port(text: str) -> int:
    last = 65536 - len(PORTS)
    if not (text.isdecimal() and 1 <= int(text) <= last):
        raise argparse.ArgumentTypeError(f"expected a port from 1 to {last}, not {text}")
    return int(text)


async def demo(options: argparse.Namespace) -> None:
    """Runs until a signal comes. Raises DemoError where a part does not start."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    own_hub = not options.no_hub
    places, sockets = find_places(options.host, own_hub=own_hub, first_port=options.first_port)
    apps = make_apps(places, options.token_seconds)
    hub = running_hub(places, options.host, issuers(places)) if own_hub else nullcontext()
    async with _serving(apps, sockets), hub:
        print(_welcome(places), flush=True)
        await stop.wait()
    print("\ndemo: stopped", flush=True)


class _Server(uvicorn.Server):
    """One of several servers in this process, which handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(apps: Mapping[str, ASGIApp], sockets: Mapping[str, socket]) -> AsyncIterator[None]:
    """Runs all applications, each on its socket, within the block."""
    servers = {
        name: _Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1))
        for name, app in apps.items()
    }
    serving = [asyncio.create_task(server.serve(sockets=[sockets[name]])) for name, server in servers.items()]
    try:
        while not all(server.started for server in servers.values()):
            if any(task.done() for task in serving):
                raise DemoError("an application did not start")
            await asyncio.sleep(0.02)
        yield
    finally:
        for server in servers.values():
            server.should_exit = True
        await asyncio.gather(*serving, return_exceptions=True)


def _welcome(places: Places) -> str:
    return f"""
  Open this in a browser:   {places.origin("ehr")}

  Log in as any of the three clinicians, open a patient, launch the viewers. The story is in demo/README.md.
  What goes wrong on request: {places.origin("auth")}/switches
  The hub is {places.hub_url}. Ctrl-C stops everything."""


if __name__ == "__main__":
    sys.exit(main())
