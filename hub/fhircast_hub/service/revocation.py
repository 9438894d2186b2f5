"""Revocation: subscriptions end when their tokens are revoked (AUT-14).

Raw tokens are kept here only, in memory, while the subscription of an opaque token lives.
"""

from __future__ import annotations

import asyncio

import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import HubError, Unauthenticated
from fhircast_hub.core.state.commands import Revoked
from fhircast_hub.service.ports import TokenVerifier
from fhircast_hub.service.service import Service

#: Seconds between two checks. With the time that the verifier keeps its answers, less than a minute.
POLL_SECONDS = 15.0
#: Tokens that are verified at the same time, so that a check of all does not take much longer than one verification.
AT_ONCE = 8

_log = structlog.get_logger()


class Revocation:
    """Verifies the tokens of live subscriptions again and again."""

    def __init__(self, service: Service, verifier: TokenVerifier) -> None:
        self._service = service
        self._verifier = verifier
        #: subscription_id -> its session and raw token.
        self._tokens: dict[str, tuple[SessionKey, str]] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, subscription_id: str, key: SessionKey, token: str) -> None:
        """Watch the token that a subscription was made or renewed with."""
        self._tokens[subscription_id] = key, token
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._check_forever())

    async def check(self) -> None:
        """End the subscriptions whose tokens are not valid any more. A subscription stays while its issuer does not answer."""
        slots = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(
            *(self._check(subscription_id, key, token, slots) for subscription_id, (key, token) in self._tokens.items())
        )

    async def _check(self, subscription_id: str, key: SessionKey, token: str, slots: asyncio.Semaphore) -> None:
        try:
            if await self._service.usage.session_of(subscription_id) is None:
                self._tokens.pop(subscription_id, None)
                return
            async with slots:
                await self._verifier.verify(token)
        except Unauthenticated:
            pass
        except HubError:
            return
        else:
            return
        if self._tokens.get(subscription_id) == (key, token):  # otherwise the subscription was renewed meanwhile
            try:
                await self._service.submit(key, Revoked(subscription_id))
            except HubError:
                return  # the store failed: the next check tries again
            self._tokens.pop(subscription_id, None)

    async def stop(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.check()
            except Exception as error:
                _log.error("revocation failed", exc_info=error)
