"""Revoked tokens end the subscriptions that were made with them (AUT-14).

Only here are raw tokens kept, in memory, for as long as a subscription lives whose token only its issuer can explain.
"""

from __future__ import annotations

import asyncio

import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import HubError, Unauthenticated
from fhircast_hub.core.state.commands import Revoked
from fhircast_hub.service.ports import TokenVerifier
from fhircast_hub.service.service import Service

#: Seconds between two looks. With the seconds for which the verifier's answers count, less than a minute.
POLL_SECONDS = 15.0
#: Tokens asked about at once, so that one look over all of them does not take much longer than one question.
AT_ONCE = 8

_log = structlog.get_logger()


class Revocation:
    """Asks again and again whether tokens are still good."""

    def __init__(self, service: Service, verifier: TokenVerifier) -> None:
        self._service = service
        self._verifier = verifier
        self._tokens: dict[str, tuple[SessionKey, str]] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, subscription_id: str, key: SessionKey, token: str) -> None:
        """The subscription `subscription_id` was made or renewed with this token."""
        self._tokens[subscription_id] = key, token
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look_again())

    async def check(self) -> None:
        """End the subscriptions whose tokens are not good any more; whose issuer does not answer, they stay."""
        slots = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(
            *(self._check(subscription_id, key, token, slots) for subscription_id, (key, token) in self._tokens.items())
        )

    async def _check(self, subscription_id: str, key: SessionKey, token: str, slots: asyncio.Semaphore) -> None:
        if self._service.usage.find(subscription_id) is None:
            self._tokens.pop(subscription_id, None)
            return
        try:
            async with slots:
                await self._verifier.verify(token)
        except Unauthenticated:
            pass
        except HubError:
            return
        else:
            return
        if self._tokens.get(subscription_id) == (key, token):  # else it was renewed meanwhile
            try:
                await self._service.submit(key, Revoked(subscription_id))
            except HubError:
                return  # the store's trouble; the next look tries again
            self._tokens.pop(subscription_id, None)

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.check()
            except Exception as error:
                _log.error("revocation failed", exc_info=error)
