"""`python -m demo.webhook`: subscribes, and prints a line for each event until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import socket
import sys

import uvicorn

from demo.webhook.subscriber import Subscriber, make_app

EVENTS = "Patient-open,Patient-close,ImagingStudy-open,ImagingStudy-close"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.webhook", description="A FHIRcast subscriber by webhook.")
    parser.add_argument("--hub", default="http://localhost:8080/api/hub", help="hub.url (%(default)s)")
    parser.add_argument("--token", default=os.environ.get("TOKEN", ""), help="the access token (TOKEN)")
    parser.add_argument("--topic", required=True, help="the session to follow")
    parser.add_argument("--events", default=EVENTS, help="what to follow in it (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1 (a free port)")
    parser.add_argument("--callback", help="how the hub reaches that (http://127.0.0.1:<port>/callback)")
    return parser.parse_args()


def main() -> int:
    """Run until a signal comes. Returns 1 if the hub refuses."""
    given = _arguments()
    with socket.create_server(("127.0.0.1", given.port)) as listener:  # before subscribing: the hub calls back at once
        callback = given.callback or f"http://127.0.0.1:{listener.getsockname()[1]}/callback"
        subscriber = Subscriber(given.hub, given.token, callback, functools.partial(print, flush=True))
        answer = asyncio.run(subscriber.subscribe(given.topic, given.events))
        if not answer.is_success:
            print(f"the hub refuses ({answer.status_code}): {answer.text.strip()}", file=sys.stderr)
            return 1
        try:
            uvicorn.Server(uvicorn.Config(make_app(subscriber), log_level="warning")).run([listener])
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
