"""Starts a hub, or its workers, once the settings are right.

This module imports all that serves, which takes a second. Refused settings and other commands do not wait for the imports.
"""

from __future__ import annotations

import socket
import sys
import time

import structlog

from fhircast_hub.app import Hub
from fhircast_hub.reloading import Reloading, log_issuers
from fhircast_hub.server import Tls, listen, serve
from fhircast_hub.settings import secret_files
from fhircast_hub.settings.errors import NotNow, SettingsError
from fhircast_hub.settings.serving import needs_proxy
from fhircast_hub.settings.settings import Settings
from fhircast_hub.settings.types import mask
from fhircast_hub.stores import shared_parts
from fhircast_hub.telemetry.logs import configure_logging
from fhircast_hub.versions import VERSION
from fhircast_hub.workers import NOT_NOW, REFUSED, NoFolderError, Worker, Workers

_log = structlog.get_logger()


def listen_on(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError where the system gives none."""
    try:
        return listen(host, port)
    except OSError as error:
        said = f"cannot listen on {host} {port}: {error.strerror or error}"
        raise SettingsError(f"FHIRCAST_HOST, FHIRCAST_PORT: {said}") from None


def run(
    hub: Hub,
    settings: Settings,
    listener: socket.socket,
    tls: Tls | None = None,
    reloading: Reloading | None = None,
) -> None:
    """Serve until SIGTERM. Raises SettingsError, with the reason, where the hub does not start."""
    _begin_log(settings, listener, tls)
    if not serve(hub, listener, tls, reloading=reloading):
        raise _failure(hub)


def run_workers(workers: int, reloading: Reloading, tls: Tls | None) -> int:
    """Serve with so many processes until SIGTERM. Returns the exit code.

    Raises SettingsError where nothing can be started, such as without the library of the shared store.
    """
    settings = reloading.settings
    shared_parts(settings, time.time)  # imports what the workers then have in common
    listener = listen_on(settings.host, settings.port)

    def work(worker: Worker) -> int:
        settings = reloading.settings  # read again, where SIGHUP came before this worker's start
        configure_logging(settings.log_format, settings.log_level, worker.number)
        if not settings.max_bytes:  # each worker may come to hold all sessions
            settings = settings.model_copy(update={"max_bytes": settings.all_bytes // workers})
        hub = Hub(settings, worker=worker)
        if serve(hub, listener, tls, worker, reloading):
            return 0
        if worker.is_later:  # said again and again, while others serve
            _log.error("worker cannot start", reason=str(_failure(hub)))
        else:
            print(_failure(hub), file=sys.stderr)
        return NOT_NOW if isinstance(_failure(hub), NotNow) else REFUSED

    _begin_log(settings, listener, tls, workers)
    try:
        code = Workers(workers, listener, work, lambda: reloading.reload(lambda _: None)).run()
    except NoFolderError as error:
        raise SettingsError(f"--workers: {error}") from None
    _log.info("stopped", version=VERSION)
    return code


def _begin_log(settings: Settings, listener: socket.socket, tls: Tls | None, workers: int = 1) -> None:
    configure_logging(settings.log_format, settings.log_level)
    if settings.allow_insecure:
        _log.warning("insecure", reason="FHIRCAST_ALLOW_INSECURE is set: tokens and patients may travel unencrypted")
    for name, _ in secret_files.open_to_all(settings, tls.key if tls else None):
        _log.warning("secret can be read by every user", reason=f"by the mode of the file that {name} names")
    fields = {"host": settings.host, "port": listener.getsockname()[1], "store": mask(settings.store)}
    more = {"count": workers} if workers > 1 else {}
    _log.info("starting", version=VERSION, hub_url=settings.public_url, **fields, **more)
    if needs_proxy(settings, tls.certificate if tls else None):
        _log.info(
            "a proxy must end TLS",
            reason="FHIRCAST_PUBLIC_URL is https, and without --ssl-certfile the hub speaks http",
        )
    log_issuers(settings)


def _failure(hub: Hub) -> SettingsError:
    return hub.failure or SettingsError("the hub did not start; the log has the reason")
