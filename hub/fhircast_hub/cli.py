"""`fhircast-hub serve | dev | token | check-config | topic-hash | store upgrade`."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fhircast_hub import dev as development
from fhircast_hub.hashes import keyed_hash, lines_of
from fhircast_hub.reloading import Reloading
from fhircast_hub.settings.errors import Mistake, SettingsError
from fhircast_hub.settings.reading import Reading, load, read
from fhircast_hub.settings.serving import check_serving, check_tls, check_workers
from fhircast_hub.settings.settings import Settings
from fhircast_hub.settings.types import mask
from fhircast_hub.signals import hold_hangup
from fhircast_hub.stores import shared_parts
from fhircast_hub.telemetry.logs import configure_logging
from fhircast_hub.versions import versions

if TYPE_CHECKING:
    from fhircast_hub.online.finding import Finding

#: Errors of output: a full disk or quota, a closed pipe, a closed terminal.
_OUTPUT_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EPIPE, errno.EIO))

app = typer.Typer(add_completion=False, no_args_is_help=True, help="A FHIRcast hub.", pretty_exceptions_enable=False)
store = typer.Typer(no_args_is_help=True, help="The tables of a PostgreSQL store.")
app.add_typer(store, name="store")


def _print_version(given: bool) -> None:
    if given:
        print(versions())
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the versions of hub, Python and the stores' libraries.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """A FHIRcast hub."""


Config = Annotated[
    Path | None, typer.Option(help="TOML file with settings. The environment (FHIRCAST_*) wins over the file.")
]
Certificate = Annotated[
    Path | None, typer.Option(help="PEM file with the certificate and its chain. The hub serves TLS.")
]
Key = Annotated[Path | None, typer.Option(help="PEM file with the key.")]


@app.command()
def serve(
    config: Config = None,
    ssl_certfile: Certificate = None,
    ssl_keyfile: Key = None,
    workers: Annotated[
        int, typer.Option(help="So many processes serve the port. Several need a store on PostgreSQL.")
    ] = 1,
) -> None:
    """Run the hub. SIGHUP reads the settings again: issuers, the log's level and form, and the certificate."""
    hold_hangup()  # where main() of __main__ was not the door
    try:
        reading = _for_serving(read(config, os.environ), ssl_certfile, ssl_keyfile)
        settings = reading.also(check_workers(reading.settings, workers)).right()
        reloading = Reloading(lambda: _for_serving(read(config, os.environ), None, None).right(), settings)
        # These take a second, for which no refusal waits.
        from fhircast_hub.app import Hub
        from fhircast_hub.server import Tls
        from fhircast_hub.starting import listen_on, run, run_workers

        tls = Tls(ssl_certfile, ssl_keyfile) if ssl_certfile and ssl_keyfile else None
        if workers > 1:
            raise typer.Exit(run_workers(workers, reloading, tls))
        hub = Hub(settings)
        run(hub, settings, listen_on(settings.host, settings.port), tls, reloading)
    except SettingsError as error:
        _refuse(error)


@app.command()
def dev(
    port: Annotated[
        int | None, typer.Option(help="Port on loopback. 0: any free port. Default: FHIRCAST_PORT, or 8080.")
    ] = None,
    legacy: Annotated[
        bool,
        typer.Option(help="INSECURE: accept requests without a token. Clients of 2018 may choose their endpoint."),
    ] = False,
) -> None:
    """Run a hub for development: a key of its own, loopback only, sessions in memory. INSECURE: not for patients."""
    from fhircast_hub.app import Hub
    from fhircast_hub.starting import listen_on, run

    try:
        settings, issuer, listener = _dev(port, listen_on, legacy=legacy)
        hub = Hub(settings, anonymous=issuer.anonymous() if legacy else None)
        hub.add_root_route("/dev/jwks", issuer.jwks)
        with ExitStack() as stack:
            try:
                stack.enter_context(development.published(issuer, settings.port))
            except ValueError as error:
                _refuse(error)
            console = issuer.console_link() if settings.console else ""
            url, token = settings.public_url, issuer.token()
            print(development.banner(url, token, settings.port, legacy=legacy, console=console), flush=True)
            run(hub, settings, listener)
    except SettingsError as error:
        _refuse(error)


@app.command()
def token(
    user: Annotated[str, typer.Option(help="The user: the claim sub.")] = development.USER,
    scope: Annotated[str, typer.Option(help="The scopes, separated by spaces.")] = "fhircast/*.*",
    client: Annotated[str, typer.Option(help="The claim client_id.")] = "dev",
    topic: Annotated[
        str | None, typer.Option(help="The only topic that the token allows: the claim hub.topic.")
    ] = None,
    lifetime: Annotated[int, typer.Option(help="Seconds until the token expires.")] = development.LIFETIME,
    port: Annotated[int | None, typer.Option(help="Port of the dev hub. Required if several run.")] = None,
) -> None:
    """Print a token for the running `fhircast-hub dev`."""
    try:
        issuer = development.running(port)
    except ValueError as error:
        _refuse(error)
    print(issuer.token(user=user, scope=scope, client=client, topic=topic, lifetime=lifetime))


@app.command()
def check_config(
    config: Config = None,
    ssl_certfile: Certificate = None,
    ssl_keyfile: Key = None,
    online: Annotated[
        bool, typer.Option("--online", help="Also ask issuers, store and audit trail, each in a line on stderr.")
    ] = False,
    callback: Annotated[
        list[str] | None, typer.Option(help="With --online: a URL. Tell whether the hub would post there.")
    ] = None,
) -> None:
    """Print the effective settings with their sources. Secrets are masked. Exit code 2 if a setting is wrong.

    Lines on stderr tell of certificates, realms and secret files. Of a PostgreSQL store, ask the database for its tables, and
    which failures accepted events survive. A line begins with ok, note, warning or FAILED. The exit code is 1 if a check fails.
    """
    reading = read(config, os.environ)
    if not reading.lines:
        is_unicode = getattr(sys.stdout, "encoding", "").lower().startswith("utf")
        print(json.dumps(reading.settings.masked(), indent=2, ensure_ascii=not is_unicode))
    try:
        reading = _for_serving(reading, ssl_certfile, ssl_keyfile)
        settings = reading.also([Mistake("--callback needs --online")] if callback and not online else []).right()
        parts = shared_parts(settings, time.time)
    except SettingsError as error:
        _refuse(error)
    from fhircast_hub.online.alone import check_alone
    from fhircast_hub.online.places import check_database
    from fhircast_hub.online.run import check_online

    is_ok = _tell(check_alone(settings, ssl_certfile, ssl_keyfile))
    if online:
        configure_logging(level="critical")  # each line says what the log would
        is_ok &= _tell(asyncio.run(check_online(settings, callback or [], parts.look if parts else None)))
    elif parts is not None:
        is_ok &= _tell(asyncio.run(check_database(settings, parts.look)))
    if not is_ok:
        raise typer.Exit(1)


@app.command()
def topic_hash(
    topic: Annotated[
        str, typer.Argument(help="A hub.topic, or any text. -: each line of stdin, shown behind its hash.")
    ],
    config: Config = None,
) -> None:
    """Print the hash by which the hub's log lines name a topic. The hub may run meanwhile."""
    settings = _settings(config)
    try:
        for line in lines_of(topic, sys.stdin, keyed_hash(settings, lambda: shared_parts(settings, time.time))):
            print(line)
    except (SettingsError, ValueError) as error:
        _refuse(error)


@store.command()
def upgrade(
    config: Config = None,
    grant: Annotated[
        str | None,
        typer.Option(help="The hub's user of the database, who may then use the tables, and not change them."),
    ] = None,
) -> None:
    """Make the tables of a PostgreSQL store, or bring them to this hub's version. Run as the user that is to own them."""
    settings = _settings(config)
    try:
        parts = shared_parts(settings, time.time)
        if parts is None:
            not_shared = f"not {mask(settings.store)!r}{settings.hint('store')}"
            raise SettingsError(f"FHIRCAST_STORE must be a postgresql:// URL, {not_shared}")
        print(asyncio.run(parts.upgrade(grant)))
    except SettingsError as error:
        _refuse(error)
    except ValueError as error:
        _refuse(ValueError(f"FHIRCAST_STORE: {error}"))


def _tell(findings: list[Finding]) -> bool:
    """Print the findings. Returns whether none of them failed."""
    for finding in findings:
        print(finding, file=sys.stderr)
    return all(finding.is_ok for finding in findings)


def _for_serving(reading: Reading, certificate: Path | None, key: Path | None) -> Reading:
    """With all for which `serve` could not work."""
    return reading.also(check_serving(reading.settings)).also(check_tls(reading.settings, certificate, key))


def _settings(config: Path | None) -> Settings:
    try:
        return load(config, os.environ)
    except SettingsError as error:
        _refuse(error)


def _dev(
    port: int | None, listen_on: Callable[[str, int], socket.socket], *, legacy: bool
) -> tuple[Settings, development.DevIssuer, socket.socket]:
    """The settings of a dev hub, its issuer, and its listening socket. Raises SettingsError.

    For port 0, the socket comes first: settings and issuer contain the port that it got.
    """
    listener: socket.socket | None = None
    try:
        environ, issuer = development.environment(os.environ, port, legacy=legacy)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if environ["FHIRCAST_PORT"] == "0":
        listener = listen_on(environ["FHIRCAST_HOST"], 0)
        environ, issuer = development.environment(os.environ, listener.getsockname()[1], legacy=legacy)
    settings = load(None, environ)
    return settings, issuer, listener or listen_on(settings.host, settings.port)


def _refuse(error: Exception) -> NoReturn:
    print(error, file=sys.stderr)
    raise typer.Exit(error.code if isinstance(error, SettingsError) else 2)


def main() -> None:
    """The console script. If output cannot be written, exit code 1; if the reader closed the pipe, the command's own code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals in ASCII
    try:
        try:
            app()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # Python flushes it at exit
        ended = error.__context__
        if isinstance(error, BrokenPipeError):
            sys.exit(ended.code if isinstance(ended, SystemExit) else 1)
        print(f"fhircast-hub: cannot write: {error.strerror}", file=sys.stderr)
        sys.exit(1)
