"""Revoked tokens end the subscriptions that were made with them (AUT-14).

Only here are raw tokens kept, in memory, for as long as a subscription lives whose token only its issuer can explain.
"""

from __future__ import annotations

import asyncio

import structlog

from fhircast_hub.core.commands import Revoked
from fhircast_hub.core.errors import HubError, Unauthenticated
from fhircast_hub.core.principal import SessionKey
from fhircast_hub.ports import TokenVerifier
from fhircast_hub.service import Service

#: Seconds between two looks. With the seconds for which the verifier's answers count, less than a minute.
LOOK_SECONDS = 15.0

_log = structlog.get_logger()


class Revocation:
    """Asks again and again whether tokens are still good."""

    def __init__(self, service: Service, verifier: TokenVerifier) -> None:
        self._service = service
        self._verifier = verifier
        self._tokens: dict[str, tuple[SessionKey, str]] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, sid: str, key: SessionKey, token: str) -> None:
        """The subscription `sid` was made or renewed with this token."""
        self._tokens[sid] = key, token
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look_again())

    async def look(self) -> None:
        """End the subscriptions whose tokens are not good any more; whose issuer does not answer, they stay."""
        for sid, (key, token) in list(self._tokens.items()):
            if self._service.usage.find(sid) is None:
                self._tokens.pop(sid, None)
                continue
            try:
                await self._verifier.verify(token)
            except Unauthenticated:
                if self._tokens.get(sid) == (key, token):  # else it was renewed meanwhile
                    del self._tokens[sid]
                    await self._service.submit(key, Revoked(sid))
            except HubError:
                continue

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception as error:
                _log.error("revocation failed", exc_info=error)
