"""How the hub fares with an issuer: requests, failures, age of the keys. For the log, the metrics and the console (OPS-18)."""

from __future__ import annotations

from enum import Enum
from math import inf

import structlog

from fhircast_hub.service.ports import Clock
from fhircast_hub.telemetry.metrics import Metrics

#: Seconds from a warning of the log to the next about the same.
WARNING_SECONDS = 60.0

_log = structlog.get_logger()


class About(Enum):
    """What the hub asks an issuer about. The value is a label of metrics."""

    KEYS = "keys"
    TOKENS = "introspection"
    #: The endpoints of the console's login.
    LOGIN = "login"


class IssuerHealth:
    """What happened with an issuer so far. `issuer` is the URL of the settings."""

    def __init__(self, issuer: str, clock: Clock, metrics: Metrics | None = None) -> None:
        metrics = metrics or Metrics()
        self.issuer = issuer
        self._clock = clock
        self._requests = {about: metrics.issuer_requests.of(issuer, about.value) for about in About}
        self._failures = {about: metrics.issuer_failures.of(issuer, about.value) for about in About}
        #: When the keys were fetched last, in epoch seconds. None: never.
        self.keys_at: float | None = None
        #: Usable keys at that time.
        self.keys = 0
        #: The last failure, and its time in epoch seconds. "": there was none.
        self.failure, self.failed_at = "", 0.0
        #: When the log warned last about each, in epoch seconds.
        self._warned_at: dict[About, float] = {}
        #: What the log said to be failing, and not yet to work again.
        self._told: set[About] = set()

    @property
    def requests(self) -> int:
        """Requests to the issuer so far, of all kinds."""
        return sum(count.value for count in self._requests.values())

    @property
    def failures(self) -> int:
        """Those of them that brought no usable answer."""
        return sum(count.value for count in self._failures.values())

    def fetched(self, keys: int) -> None:
        """The issuer's keys were fetched, and so many of them are usable."""
        self.keys_at, self.keys = self._clock(), keys
        self.succeeded(About.KEYS)

    def succeeded(self, about: About) -> None:
        """A request was answered."""
        self._requests[about].inc()
        if about in self._told:
            self._told.remove(about)
            _log.info("issuer answers again", issuer=self.issuer, reason=about.value)

    def failed(self, about: About, reason: str) -> None:
        """A request failed. The log warns once in WARNING_SECONDS. `reason` quotes nothing of the answer."""
        self._requests[about].inc()
        self._failures[about].inc()
        now = self._clock()
        self.failure, self.failed_at = reason, now
        if not 0 <= now - self._warned_at.get(about, -inf) < WARNING_SECONDS:  # the clock may have been set back
            self._warned_at[about] = now
            self._told.add(about)
            if about is About.KEYS:
                _log.warning("issuer keys not fetched", issuer=self.issuer, reason=reason)
            elif about is About.LOGIN:
                _log.warning("endpoints of login not found", issuer=self.issuer, reason=reason)
            else:
                _log.warning("introspection failed", issuer=self.issuer, reason=reason)
