"""Checks of callbacks: whether the hub would post there."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.callback_url import check_callback
from fhircast_hub.online.finding import Failed, Finding, found
from fhircast_hub.settings.settings import Settings
from fhircast_hub.settings.types import mask
from fhircast_hub.webhook.address_guard import INSECURE_PORTS, SECURE_PORTS, ForbiddenAddress, Guard, GuardedBackend
from fhircast_hub.webhook.client import CONNECT_SECONDS


def describe(settings: Settings) -> Finding:
    """Which callbacks are allowed."""
    if not settings.webhooks:
        return Finding(True, "FHIRCAST_WEBHOOKS", "off: no callback is taken")
    said = f"callbacks may be public, by https at port {SECURE_PORTS[0]} or {SECURE_PORTS[1]}"
    if settings.allow_insecure:
        said += f", or by http at port {INSECURE_PORTS[0]} or {INSECURE_PORTS[1]}"
    if settings.webhook_allowed_networks:
        said += f", or in {', '.join(settings.webhook_allowed_networks)}"
    if settings.webhook_forbidden_networks:
        said += f", and not in {', '.join(settings.webhook_forbidden_networks)}"
    return Finding(True, "FHIRCAST_WEBHOOKS", said, "--callback URL tells of one")


class CallbackCheck:
    """Tells whether the hub would post to callbacks. `certificates` returns the trusted ones."""

    def __init__(self, settings: Settings, certificates: Callable[[], ssl.SSLContext]) -> None:
        self._is_on = settings.webhooks
        self._guard = Guard(
            settings.webhook_networks,
            allow_insecure=settings.allow_insecure,
            forbidden=settings.no_webhook_networks,
        )
        self._certificates = certificates

    async def finding(self, url: str) -> Finding:
        """Connect as the hub would, and send nothing."""
        return await found(f"--callback {mask(url)}", self._connect(url), 2 * CONNECT_SECONDS + 2)

    async def _connect(self, url: str) -> str:
        if not self._is_on:
            raise Failed("no callback is taken", "FHIRCAST_WEBHOOKS is false")
        try:
            check_callback(url)
        except BadRequest as error:
            raise Failed(str(error)) from None
        parts = urlsplit(url)
        secure = parts.scheme.lower() == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        try:
            addresses = await self._guard.addresses(host, port, secure=secure)
        except ForbiddenAddress as error:
            raise Failed(f"the hub does not post there, since {error}") from None
        except OSError:
            raise Failed(f"the name {host!r} is not resolved", "check the DNS of this machine") from None
        way = await self._try(host, port, secure=secure)
        return f"{host} is {', '.join(addresses)}; the hub may post there, and {way}"

    async def _try(self, host: str, port: int, *, secure: bool) -> str:
        """Connect, and speak TLS where the callback has it."""
        stream = await GuardedBackend(self._guard, secure=secure).connect_tcp(host, port, CONNECT_SECONDS)
        try:
            if secure:
                stream = await stream.start_tls(self._certificates(), host, CONNECT_SECONDS)
                return f"port {port} speaks {stream.get_extra_info('ssl_object').version()}"
            return f"port {port} takes connections"
        finally:
            await stream.aclose()
