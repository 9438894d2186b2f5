"""The id of the request that is being answered, for the log lines of the request and of its consequences."""

from __future__ import annotations

from contextvars import ContextVar

#: None: the hub acts on its own, as timers do.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
