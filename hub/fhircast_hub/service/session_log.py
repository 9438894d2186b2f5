"""SessionLog: reports of sessions, for the log and for the audit trail."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from fhircast_hub.audit.event import Act, AuditEntry
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.session import Session
from fhircast_hub.service.ports import Clock, Log
from fhircast_hub.service.request_id import REQUEST_ID

_log = structlog.get_logger()


class SessionLog:
    """Reports what happens to sessions. `log_hash` turns a topic into text that may be logged."""

    def __init__(
        self,
        log_hash: Callable[[str], str],
        clock: Clock,
        audit: Callable[[AuditEntry], None] = lambda entry: None,
        log: Log = _log,
    ) -> None:
        self._log_hash = log_hash
        self._clock = clock
        self._audit = audit
        self._log = log

    def changed(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        """A session began (`before` is None), was forgotten (`after` is None), or has another number of subscriptions."""
        event = "session begun" if before is None else "session forgotten" if after is None else "session changed"
        count = len(after.subscriptions) if after else 0
        self._log.info(event, request_id=REQUEST_ID.get(), topic=self._log_hash(key.topic), subscriptions=count)
        self._audit(AuditEntry(Act.SESSION, self._clock(), key.topic, reason=event))

    def tick_failed(self, key: SessionKey, error: Exception) -> None:
        """A Tick raised an unexpected error."""
        self._log.error("tick failed", topic=self._log_hash(key.topic), exc_info=error)

    def command_failed(self, key: SessionKey, error: Exception) -> None:
        """A command of the hub itself raised an unexpected error."""
        self._log.error("command failed", topic=self._log_hash(key.topic), exc_info=error)

    def too_many_bytes(self, size: int) -> None:
        """At the start, the stored sessions have more bytes than the limit."""
        self._log.error("more bytes are held than may be, and no more are taken", bytes=size)
