"""Verification of callbacks: a callback is asked by GET whether it wants a subscription (WHK-2), and told by GET when it is denied.

A subscriber chooses which host is asked. So each host gets one GET at a time: verifications, retries and denials (WHK-14).
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import structlog

from fhircast_hub.budgets import table
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import BadRequest, TooMany
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import Connected, VerificationFailed
from fhircast_hub.core.state.effects import EndWebhook, Verify
from fhircast_hub.core.wire.callback_url import origin_of, with_query
from fhircast_hub.service.service import Service
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.webhook.address_guard import ForbiddenAddress, Guard
from fhircast_hub.webhook.backoff import FIRST_PAUSE, jittered
from fhircast_hub.webhook.client import NO_ANSWER, Answer, Client
from fhircast_hub.webhook.fair_slots import FairSlots, User, user_of
from fhircast_hub.webhook.new_callbacks import BURST, SECONDS_EACH, NewCallbacks
from fhircast_hub.webhook.resolver import one_name

#: Verifications under way at once, and denials; posts have slots of their own. Each user has a share of each (WHK-15).
#: Per kind, so that verification floods cannot delay deliveries.
AT_ONCE = int(table.AT_WORK.most)
#: Seconds for one GET, and attempts.
VERIFY_SECONDS, VERIFY_ATTEMPTS = 10.0, 3
#: Seconds after which a waiting denial is given up.
DENIAL_SECONDS = 60.0
#: Seconds that a subscribing request waits for the look-up of its callback's name (WHK-10).
RESOLVE_SECONDS = 1.0

#: The first digit of a successful HTTP status, and the first status of a failing server.
_SUCCESS, _FAILURES = 2, 500

_log = structlog.get_logger()


class CallbackVerifier:
    """Decides which callbacks may be asked, asks them, and denies them. `log_hash` makes a topic's hash that may be logged."""

    def __init__(
        self, service: Service, guard: Guard, client: Client, metrics: Metrics, log_hash: Callable[[str], str]
    ) -> None:
        self._service = service
        self._guard = guard
        self._client = client
        self._metrics = metrics
        self._log_hash = log_hash
        self._new_callbacks = NewCallbacks()
        self._slots: dict[type[object], FairSlots] = {kind: FairSlots(AT_ONCE) for kind in (Verify, EndWebhook)}
        #: One request at a time. A lock is forgotten when no task uses it.
        self._locks: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()

    async def check(self, callback: str, principal: Principal) -> None:
        """Check a callback before it is subscribed.

        Raises BadRequest if the hub may not connect to its host (WHK-10). The look-up of a name has RESOLVE_SECONDS: without
        an address by then, only the later connections are checked.
        Raises TooMany if `principal` brings too many new callbacks (WHK-13).
        """
        user = principal.realm, principal.subscriber
        is_new = not await self._service.usage.has_verified_callback(
            principal.realm, principal.application, origin_of(callback)
        )
        if is_new:
            self._check_new(user)
        parts = urlsplit(callback)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                await self._guard.addresses(parts.hostname or "", port, secure=secure, user=user)
        except ForbiddenAddress as error:
            raise BadRequest(f"hub.callback must be a public https URL: {error}") from None
        except (TimeoutError, OSError):
            pass  # the guard checks every connection
        if is_new:
            self._check_new(user)  # other requests of the user may have been counted meanwhile
            self._new_callbacks.take(user, asyncio.get_running_loop().time())

    def _check_new(self, user: User) -> None:
        wait = self._new_callbacks.wait(user, asyncio.get_running_loop().time())
        if wait:
            self._metrics.callbacks_refused.inc()
            raise TooMany(
                f"hub.callback is new, and a user may bring at most {BURST} new callbacks at once, and one more every"
                f" {SECONDS_EACH:g} seconds",
                retry_after=math.ceil(wait),
            )

    async def verify(self, effect: Verify) -> None:
        """Ask a callback whether it wants the subscription. The result becomes a command.

        "The Hub SHALL consider other server response codes (3xx, 4xx, 5xx) to mean that the verification request has failed" (STU2).
        """
        challenge = secrets.token_urlsafe(32)
        parameters = {
            "hub.mode": "subscribe",
            "hub.topic": effect.key.topic,
            "hub.events": ",".join(effect.events),
            "hub.challenge": challenge,
            "hub.lease_seconds": str(effect.lease),
        }
        answer = await self._get(effect, parameters)
        if answer.status // 100 == _SUCCESS and answer.body.strip() == challenge.encode():
            connected = Connected(effect.subscription_id, connection_name(effect.subscription_id))
            self._service.submit_soon(effect.key, connected)
        else:
            _log.info("callback not verified", topic=self._log_hash(effect.key.topic), status=answer.status)
            self._service.submit_soon(effect.key, VerificationFailed(effect.subscription_id))

    async def deny(self, effect: EndWebhook) -> None:
        """Tell a callback that its subscription has ended (WHK-11). After DENIAL_SECONDS the denial is given up."""
        parameters = {
            "hub.mode": "denied",
            "hub.topic": effect.key.topic,
            "hub.events": ",".join(effect.events),
            "hub.reason": effect.reason,
        }
        try:
            async with asyncio.timeout(DENIAL_SECONDS):
                await self._get(effect, parameters)
        except TimeoutError:
            pass

    async def _get(self, effect: Verify | EndWebhook, parameters: dict[str, str]) -> Answer:
        """GET the callback. A server that fails or does not answer is asked again; a forbidden address is not."""
        url = with_query(effect.callback, parameters)
        user, kind, host = user_of(effect), type(effect), one_name(urlsplit(url).hostname or "")
        answer, pause = NO_ANSWER, FIRST_PAUSE
        for attempt in range(VERIFY_ATTEMPTS):
            if attempt:
                await asyncio.sleep(jittered(pause := pause * 2))
            try:
                # Waiting for a host takes at most one slot of its user. So other hosts need not wait for this host.
                async with self._lock(user, kind, host), self._slots[kind].slot(user), self._lock(host):
                    answer = await self._client.request("GET", url, VERIFY_SECONDS, user=user)
            except ForbiddenAddress:
                return NO_ANSWER
            if 0 < answer.status < _FAILURES:
                break
        return answer

    def _lock(self, *key: object) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())
