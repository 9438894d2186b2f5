"""Requests to callbacks as spans. Used only where traces are on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fhircast_hub.telemetry.traces import Traces
from fhircast_hub.webhook.client import Answer, Client
from fhircast_hub.webhook.fair_slots import NOBODY, User


class TracedClient(Client):
    """A Client whose requests are spans without the URL. The arguments behind `traces` are those of a Client."""

    def __init__(self, traces: Traces, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._traces = traces

    async def request(
        self,
        method: str,
        url: str,
        seconds: float,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        user: User = NOBODY,
    ) -> Answer:
        """See Client.request."""
        began, status, error = time.perf_counter_ns(), 0, "NoAnswer"
        try:
            answer = await super().request(method, url, seconds, body, headers, user)
            status, error = answer.status, "" if answer.status else error
        except BaseException as failure:
            error = type(failure).__name__
            raise
        else:
            return answer
        finally:
            self._traces.asked_callback(method, began, status, error)
