"""The command `fhircast`: follows, drives and examines a session from a terminal.

export FHIRCAST_HUB=https://hub.example/api/hub FHIRCAST_TOPIC=… FHIRCAST_TOKEN=…
fhircast check
fhircast listen Patient-open ImagingStudy-open
fhircast open patient.json
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fhircast_client.check import check
from fhircast_client.client import FHIRcastClient
from fhircast_client.errors import HubError, Refuse
from fhircast_client.events import Event
from fhircast_client.printing import context_line, event_line, status_line
from fhircast_client.status import Status

#: Events of `listen` by default: those of the catalogue that users cause.
EVENTS = (
    *(
        f"{anchor}-{verb}"
        for anchor in ("Patient", "Encounter", "ImagingStudy", "DiagnosticReport")
        for verb in ("open", "close")
    ),
    *("DiagnosticReport-update", "DiagnosticReport-select", "Home-open", "UserLogout", "UserHibernate"),
)


class UsageError(Exception):
    """The command cannot be carried out. The text says why."""


class Unwritten(Exception):
    """The output cannot be written, as on a full disk. The text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 where the hub refuses, a step of `check` fails, or the output cannot be written; 2
    for wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal in ASCII shows names all the same
    if not sys.stderr:  # argparse of Debian 12 writes to stderr, even if it is closed
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        try:
            return _run(_parser().parse_args(arguments))
        finally:
            for stream in ("stdout", "stderr"):
                _say("", stream, end="")  # the output of argparse
    except Unwritten as error:
        _say(f"fhircast: {error}", "stderr")
        return 1


def _run(options: argparse.Namespace) -> int:
    try:
        return asyncio.run(_COMMANDS[options.command](options))
    except UsageError as error:
        _say(f"fhircast: {error}", "stderr")
        return 2
    except HubError as error:
        _say(f"fhircast: {error}", "stderr")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fhircast", description="Follow, drive and examine a FHIRcast session.")
    parser.add_argument("--version", action="version", version=f"fhircast {version('fhircast-client')}")
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--hub", default=os.environ.get("FHIRCAST_HUB"), help="hub.url (FHIRCAST_HUB)")
    every.add_argument("--topic", default=os.environ.get("FHIRCAST_TOPIC"), help="hub.topic (FHIRCAST_TOPIC)")
    every.add_argument(
        "--token-file", metavar="FILE", help="the access token, '-' for standard input (or FHIRCAST_TOKEN)"
    )
    every.add_argument("--name", default="fhircast command line", help="subscriber.name, which others see")
    every.add_argument("--json", action="store_true", help="JSON, one message a line")
    commands = parser.add_subparsers(dest="command", required=True)
    listen = commands.add_parser("listen", parents=[every], help="print the session's events until Ctrl-C")
    listen.add_argument("events", nargs="*", metavar="EVENT", help=f"by default {', '.join(EVENTS)}")
    listen.add_argument("--refuse", metavar="REASON", help="answer every event with 409 and this reason")
    for verb in ("open", "close"):
        command = commands.add_parser(verb, parents=[every], help=f"{verb} a context for everybody")
        command.add_argument(
            "files",
            nargs="+",
            metavar="FILE",
            help="a FHIR resource as JSON, '-' for standard input; the first is the anchor",
        )
    commands.add_parser("context", parents=[every], help="show the current context; others may be open")
    examine = commands.add_parser("check", parents=[every], help="join step by step, and say which step fails")
    examine.add_argument(
        "--events", default="Patient-open,Patient-close", help="what to subscribe to (default: %(default)s)"
    )
    return parser


class _Listener:
    """Prints events, until the output cannot be written or has no reader. Then `end` is called. `unwritten` says why."""

    def __init__(self, options: argparse.Namespace, end: Callable[[], object]) -> None:
        self._options, self._end = options, end
        self.unwritten: Unwritten | None = None

    def event(self, event: Event) -> None:
        """Raises Refuse with the option `--refuse`."""
        self._tell(lambda: _print(self._options, event.body, event_line(event)))
        if self._options.refuse:
            raise Refuse(self._options.refuse)

    def status(self, status: Status) -> None:
        """The reason of the end is printed at the end."""
        if status.connection != "ended":
            self._tell(lambda: _say(status_line(status), "stderr"))

    def _tell(self, say: Callable[[], bool]) -> None:
        """A handler must not raise: the hub would be told."""
        try:
            if say():
                return
        except Unwritten as error:
            self.unwritten = error
        self._end()


async def _listen(options: argparse.Namespace) -> int:
    client = _client(options)
    task = asyncio.current_task()
    assert task
    listener = _Listener(options, task.cancel)
    for name in {name.lower(): name for name in options.events or EVENTS}.values():
        client.on(name, listener.event)
    client.on_status(listener.status)
    logging.getLogger("fhircast_client.connection").setLevel(logging.ERROR)  # the status says the same
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with client:
            await client.run()
    except asyncio.CancelledError:
        task.uncancel()
    if listener.unwritten:
        raise listener.unwritten
    return 0


def _print(options: argparse.Namespace, body: object, line: str) -> bool:
    """Print JSON, in ASCII where the encoding is not Unicode, or a line. The same result as `_say`."""
    is_unicode = getattr(sys.stdout, "encoding", "").lower().startswith("utf")
    return _say(json.dumps(body, ensure_ascii=not is_unicode) if options.json else line)


def _say(text: str, stream: str = "stdout", end: str = "\n") -> bool:
    """Print a line. Returns False once the reader is gone, as with `| head`. A stream that was never open (`>&-`) is
    skipped.

    Raises Unwritten.
    """
    file = getattr(sys, stream)
    if file is None:
        return True
    try:
        print(text, file=file, flush=True, end=end)
    except OSError as error:
        # Python flushes once more at its end, which must not fail.
        setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # until the end
        if isinstance(error, BrokenPipeError):
            return False
        raise Unwritten(f"{stream} cannot be written: {error.strerror}") from None
    return True


async def _publish(options: argparse.Namespace) -> int:
    resources = [_resource(file) for file in options.files]
    client = _client(options)
    try:
        event = await (client.open if options.command == "open" else client.close)(*resources)
    finally:
        await client.stop()
    _print(options, event.body, event_line(event))
    return 0


async def _context(options: argparse.Namespace) -> int:
    client = _client(options)
    try:
        context = await client.fetch()
    finally:
        await client.stop()
    _print(options, context.event.body if context else None, context_line(context))
    return 0


async def _check(options: argparse.Namespace) -> int:
    hub, topic, token = _where(options)
    failed = False
    async for step in check(hub, topic, token, options.name, options.events):
        failed |= step.good is False
        line = f"{ {True: 'ok', False: 'FAILED', None: '-'}[step.good]:<7} {step.name:<13} {step.text}"
        _print(options, step._asdict(), line)
    return int(failed)


_COMMANDS = {"listen": _listen, "open": _publish, "close": _publish, "context": _context, "check": _check}


def _client(options: argparse.Namespace) -> FHIRcastClient:
    hub, topic, token = _where(options)
    try:
        return FHIRcastClient(hub, topic, token=token, name=options.name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _where(options: argparse.Namespace) -> tuple[str, str, str | None]:
    """hub.url, hub.topic and token. The token is not an argument: all users of the machine can read arguments."""
    for name in ("hub", "topic"):
        if not getattr(options, name):
            raise UsageError(f"--{name} or FHIRCAST_{name.upper()} is required")
    token = _read(options.token_file).strip() if options.token_file else os.environ.get("FHIRCAST_TOKEN")
    return options.hub, options.topic, token or None


def _resource(file: str) -> dict[str, Any]:
    """Read a FHIR resource. Raises UsageError for any other content."""
    try:
        found = json.loads(_read(file))
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("resourceType"), str) or not found.get("id"):
        raise UsageError(f"{file} is not a FHIR resource with resourceType and id")
    return found


def _read(file: str) -> str:
    try:
        # RFC 8259, 8.1: "MUST be encoded using UTF-8", whatever the terminal's encoding is
        return sys.stdin.buffer.read().decode() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


if __name__ == "__main__":
    sys.exit(main())
