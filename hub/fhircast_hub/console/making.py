"""Puts the console together, from the parts of a hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import httpx

from fhircast_hub.audit.event import AuditEntry
from fhircast_hub.auth.verifier import Verifier
from fhircast_hub.console.app import Console
from fhircast_hub.console.login import Login
from fhircast_hub.console.recorder import Recorder
from fhircast_hub.console.scans import Scans
from fhircast_hub.console.sessions import Sessions
from fhircast_hub.console.state import Callbacks, HubState, Limits
from fhircast_hub.console.streams import Streams
from fhircast_hub.http.rate_limit import Rates
from fhircast_hub.service.session_list import SessionList
from fhircast_hub.settings.settings import Settings
from fhircast_hub.versions import VERSION
from fhircast_hub.ws.services import SocketServices


class Outside(NamedTuple):
    """The parts of a hub that ask or serve others than sockets."""

    verifier: Verifier
    callbacks: Callbacks
    rates: Rates
    #: Asks the issuer for its endpoints.
    client: httpx.AsyncClient
    audit: Callable[[AuditEntry], None]


class Worker(Protocol):
    """A worker's number, from 0 on, and how many there are."""

    @property
    def number(self) -> int: ...

    @property
    def total(self) -> int: ...


def make_console(
    settings: Settings, parts: SocketServices, listed: SessionList, outside: Outside, worker: Worker | None
) -> Console:
    """The console of a hub with these settings and parts. From now on, its recorder observes the service."""
    recorder, streams = Recorder(parts.clock, settings.ack_timeout), Streams()
    parts.service.observe = recorder.committed
    sessions = Sessions(
        service=parts.service,
        listed=listed,
        scans=Scans(parts.accounts),
        recorder=recorder,
        acknowledged_at=parts.ack_timer.acknowledged_at,
        queued_of=parts.registry.queued_of,
        node=parts.registry.node,
        log_hash=parts.log_hash,
    )
    return Console(
        verifier=outside.verifier,
        state=_make_state(settings, parts, listed, outside, streams, worker),
        sessions=sessions,
        streams=streams,
        login=Login(
            settings.console_issuer,
            outside.verifier.health,
            settings.console_client_id,
            settings.public_url,
            outside.client,
            allow_insecure=settings.allow_insecure,
        ),
        accounts=parts.accounts,
        log_hash=parts.log_hash,
        clock=parts.clock,
        audit=outside.audit,
    )


def _make_state(
    settings: Settings,
    parts: SocketServices,
    listed: SessionList,
    outside: Outside,
    streams: Streams,
    worker: Worker | None,
) -> HubState:
    return HubState(
        version=VERSION,
        hub_url=settings.public_url,
        node=parts.registry.node,
        worker=(worker.number + 1, worker.total) if worker else None,
        clock=parts.clock,
        metrics=parts.metrics,
        usage=parts.service.usage,
        sockets=parts.registry,
        callbacks=outside.callbacks,
        streams=streams,
        issuers=outside.verifier,
        accounts=parts.accounts,
        rates=outside.rates,
        limits=Limits(
            user_bytes=settings.max_bytes_per_user,
            user_topics=settings.max_topics_per_user,
            user_subscriptions=settings.max_subscriptions_per_user,
        ),
        log_hash=parts.log_hash,
        sessions=listed,
    )
