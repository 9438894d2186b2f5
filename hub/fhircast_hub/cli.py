"""`fhircast-hub serve | dev | token | check-config`."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import ssl
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import structlog
import typer

from fhircast_hub import dev as development
from fhircast_hub.app import Hub
from fhircast_hub.server import Tls, listen
from fhircast_hub.server import serve as serve_on
from fhircast_hub.settings.settings import Settings, SettingsError, load, require_issuers
from fhircast_hub.telemetry.logs import configure_logging

_log = structlog.get_logger()

#: A disk, or a user's part of it, is full; nobody reads any more; a terminal is gone.
_UNWRITTEN = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EPIPE, errno.EIO))

app = typer.Typer(add_completion=False, no_args_is_help=True, help="A FHIRcast hub.", pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
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
    Path | None, typer.Option(help="A TOML file with settings; the environment (FHIRCAST_*) wins over it.")
]


@app.command()
def serve(
    config: Config = None,
    ssl_certfile: Annotated[Path | None, typer.Option(help="PEM: the certificate and its chain; serves TLS.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="PEM: its key.")] = None,
) -> None:
    """Run the hub."""
    settings = _settings(config)
    try:
        require_issuers(settings)
    except SettingsError as error:
        _refuse(error)
    _run(Hub(settings), settings, _listen(settings.host, settings.port), _tls(ssl_certfile, ssl_keyfile))


@app.command()
def dev(
    port: Annotated[
        int | None, typer.Option(help="Where to listen on loopback; by default FHIRCAST_PORT, or 8080. 0: a free port.")
    ] = None,
    legacy: Annotated[
        bool,
        typer.Option(
            help="INSECURE: take requests without a token, and serve the clients of 2018, which choose their endpoint."
        ),
    ] = False,
) -> None:
    """Run a hub to try things with: own key, loopback only, in memory. INSECURE: not for patients."""
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
    user: Annotated[str, typer.Option(help="Whose token: the claim sub.")] = development.USER,
    scope: Annotated[str, typer.Option(help="Its scopes, separated by spaces.")] = "fhircast/*.*",
    client: Annotated[str, typer.Option(help="The claim client_id.")] = "dev",
    topic: Annotated[str | None, typer.Option(help="The claim hub.topic, which limits it to that topic.")] = None,
    lifetime: Annotated[int, typer.Option(help="Seconds until it expires.")] = development.LIFETIME,
    port: Annotated[int | None, typer.Option(help="Which dev hub it is for, where several run.")] = None,
) -> None:
    """Print a token for the `fhircast-hub dev` that runs."""
    try:
        issuer = development.running(port)
    except ValueError as error:
        _refuse(error)
    print(issuer.token(user=user, scope=scope, client=client, topic=topic, lifetime=lifetime))


@app.command()
def check_config(config: Config = None) -> None:
    """Print the effective settings, secrets masked, and where each comes from; exit code 2 if one of them is wrong."""
    settings = _settings(config)
    is_unicode = getattr(sys.stdout, "encoding", "").lower().startswith("utf")
    print(json.dumps(settings.masked(), indent=2, ensure_ascii=not is_unicode))
    try:
        require_issuers(settings)
    except SettingsError as error:
        _refuse(error)


def _settings(config: Path | None) -> Settings:
    try:
        return load(config, os.environ)
    except SettingsError as error:
        _refuse(error)


def _dev(port: int | None, *, legacy: bool) -> tuple[Settings, development.DevIssuer, socket.socket]:
    """The settings of a dev hub, its issuer, and the socket that listens. Port 0 is a free one, which hub.url then names."""
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
    """The files, if they can be used: said before anything is begun. A key under a passphrase cannot: nobody is there to be asked."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        _refuse(ValueError("--ssl-certfile and --ssl-keyfile: expected both, got one"))
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one
        _refuse(
            ValueError(
                f"--ssl-certfile, --ssl-keyfile: expected a certificate and its key, got {error.strerror or error}"
            )
        )
    return Tls(certificate, key)


def _run(hub: Hub, settings: Settings, listener: socket.socket, tls: Tls | None = None) -> NoReturn:
    configure_logging(settings.log_format, settings.log_level)
    if settings.allow_insecure:
        _log.warning("insecure", reason="FHIRCAST_ALLOW_INSECURE is set: tokens and patients may travel unencrypted")
    port = listener.getsockname()[1]
    _log.info("starting", hub_url=settings.public_url, host=settings.host, port=port, store=settings.store)
    if not serve_on(hub, listener, tls):
        _refuse(ValueError(hub.failure or "the hub did not start; the log says why"))
    raise typer.Exit(0)


def main() -> None:
    """The console script. Exit code 1 where output cannot be written; the command's own where nobody reads it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal in ASCII shows the rest
    try:
        try:
            app()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except OSError as error:
        if error.errno not in _UNWRITTEN:
            raise
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # Python flushes once more at its end
        ended = error.__context__
        if isinstance(error, BrokenPipeError):
            sys.exit(ended.code if isinstance(ended, SystemExit) else 1)
        print(f"fhircast-hub: cannot write: {error.strerror}", file=sys.stderr)
        sys.exit(1)
