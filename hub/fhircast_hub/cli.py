"""`fhircast-hub serve | dev | token | check-config | store upgrade`."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import socket
import ssl
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import structlog
import typer

from fhircast_hub import dev as development
from fhircast_hub.app import Hub, shared_parts
from fhircast_hub.server import Tls, listen
from fhircast_hub.server import serve as serve_on
from fhircast_hub.settings.serving import require_all, require_workers
from fhircast_hub.settings.settings import Settings, SettingsError, load
from fhircast_hub.settings.types import mask
from fhircast_hub.telemetry.logs import configure_logging
from fhircast_hub.workers import REFUSED, NoFolderError, Worker, Workers

_log = structlog.get_logger()

#: Errors of output: a full disk or quota, a closed pipe, a closed terminal.
_OUTPUT_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EPIPE, errno.EIO))

app = typer.Typer(add_completion=False, no_args_is_help=True, help="A FHIRcast hub.", pretty_exceptions_enable=False)
store = typer.Typer(no_args_is_help=True, help="The tables of a PostgreSQL store.")
app.add_typer(store, name="store")


def _print_version(given: bool) -> None:
    if given:
        print(f"fhircast-hub {version('fhircast-hub')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A FHIRcast hub."""


Config = Annotated[
    Path | None, typer.Option(help="TOML file with settings. The environment (FHIRCAST_*) wins over the file.")
]


@app.command()
def serve(
    config: Config = None,
    ssl_certfile: Annotated[
        Path | None, typer.Option(help="PEM file with the certificate and its chain. The hub serves TLS.")
    ] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="PEM file with the key.")] = None,
    workers: Annotated[
        int, typer.Option(help="So many processes serve the port. Several need a store on PostgreSQL.")
    ] = 1,
) -> None:
    """Run the hub."""
    settings = _settings(config)
    try:
        require_all(settings)
        if workers != 1:
            _run_workers(workers, settings, ssl_certfile, ssl_keyfile)
        hub = Hub(settings)
    except SettingsError as error:
        _refuse(error)
    _run(hub, settings, _listen(settings.host, settings.port), _tls(ssl_certfile, ssl_keyfile))


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
    settings, issuer, listener = _dev(port, legacy=legacy)
    hub = Hub(settings, anonymous=issuer.anonymous() if legacy else None)
    hub.add_root_route("/dev/jwks", issuer.jwks)
    with ExitStack() as stack:
        try:
            stack.enter_context(development.published(issuer, settings.port))
        except ValueError as error:
            _refuse(error)
        print(development.banner(settings.public_url, issuer.token(), settings.port, legacy=legacy), flush=True)
        _run(hub, settings, listener)


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
def check_config(config: Config = None) -> None:
    """Print the effective settings with their sources. Secrets are masked. Exit code 2 if a setting is wrong.

    Of a PostgreSQL store, ask the database which failures accepted events survive, and print the answer to stderr.
    """
    settings = _settings(config)
    is_unicode = getattr(sys.stdout, "encoding", "").lower().startswith("utf")
    print(json.dumps(settings.masked(), indent=2, ensure_ascii=not is_unicode))
    try:
        require_all(settings)
        if (parts := shared_parts(settings, time.time)) is not None:
            print(f"FHIRCAST_STORE: {asyncio.run(parts.promise())}", file=sys.stderr)
    except SettingsError as error:
        _refuse(error)
    except ValueError as error:
        _refuse(ValueError(f"FHIRCAST_STORE: {error}"))


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
            raise SettingsError(f"FHIRCAST_STORE must be a postgresql:// URL, not {mask(settings.store)!r}")
        print(asyncio.run(parts.upgrade(grant)))
    except SettingsError as error:
        _refuse(error)
    except ValueError as error:
        _refuse(ValueError(f"FHIRCAST_STORE: {error}"))


def _settings(config: Path | None) -> Settings:
    try:
        return load(config, os.environ)
    except SettingsError as error:
        _refuse(error)


def _dev(port: int | None, *, legacy: bool) -> tuple[Settings, development.DevIssuer, socket.socket]:
    """The settings of a dev hub, its issuer, and its listening socket.

    For port 0, the socket comes first: settings and issuer contain the port that it got.
    """
    listener: socket.socket | None = None
    try:
        environ, issuer = development.environment(os.environ, port, legacy=legacy)
        if environ["FHIRCAST_PORT"] == "0":
            listener = _listen(environ["FHIRCAST_HOST"], 0)
            environ, issuer = development.environment(os.environ, listener.getsockname()[1], legacy=legacy)
        settings = load(None, environ)
    except (SettingsError, ValueError) as error:
        _refuse(error)
    return settings, issuer, listener or _listen(settings.host, settings.port)


def _refuse(error: Exception) -> NoReturn:
    print(error, file=sys.stderr)
    raise typer.Exit(2)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        _refuse(ValueError(f"FHIRCAST_HOST, FHIRCAST_PORT: cannot listen on {host} {port}: {error.strerror or error}"))


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    """The files, if usable; checked before the hub starts. A key with a passphrase is refused: nobody can be asked for it."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        _refuse(ValueError("--ssl-certfile and --ssl-keyfile must be given together"))
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one
        _refuse(
            ValueError(f"--ssl-certfile and --ssl-keyfile must be a certificate and its key: {error.strerror or error}")
        )
    return Tls(certificate, key)


def _run(hub: Hub, settings: Settings, listener: socket.socket, tls: Tls | None = None) -> NoReturn:
    _begin_log(settings, listener)
    if not serve_on(hub, listener, tls):
        _refuse(ValueError(_failure(hub)))
    raise typer.Exit(0)


def _begin_log(settings: Settings, listener: socket.socket, workers: int = 1) -> None:
    configure_logging(settings.log_format, settings.log_level)
    if settings.allow_insecure:
        _log.warning("insecure", reason="FHIRCAST_ALLOW_INSECURE is set: tokens and patients may travel unencrypted")
    fields = {"host": settings.host, "port": listener.getsockname()[1], "store": mask(settings.store)}
    _log.info("starting", hub_url=settings.public_url, **fields, **({"count": workers} if workers > 1 else {}))


def _failure(hub: Hub) -> str:
    return hub.failure or "the hub did not start; the log has the reason"


def _run_workers(workers: int, settings: Settings, certificate: Path | None, key: Path | None) -> NoReturn:
    """Raises SettingsError where these settings are not for several workers."""
    if workers < 1:
        _refuse(ValueError(f"--workers must be a number of processes from 1 on, not {workers}"))
    require_workers(settings)
    if not settings.max_bytes:  # each worker may come to hold all sessions
        settings = settings.model_copy(update={"max_bytes": settings.all_bytes // workers})
    shared_parts(settings, time.time)  # imports what the workers then have in common
    listener, tls = _listen(settings.host, settings.port), _tls(certificate, key)

    def work(worker: Worker) -> int:
        configure_logging(settings.log_format, settings.log_level, worker.number)
        hub = Hub(settings, worker=worker)
        if serve_on(hub, listener, tls, worker):
            return 0
        if worker.is_later:  # said again and again, while others serve
            _log.error("worker cannot start", reason=_failure(hub))
        else:
            print(_failure(hub), file=sys.stderr)
        return REFUSED

    _begin_log(settings, listener, workers)
    try:
        code = Workers(workers, listener, work).run()
    except NoFolderError as error:
        _refuse(ValueError(f"--workers: {error}"))
    raise typer.Exit(code)


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
