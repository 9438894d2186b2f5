"""Duties of a node: what some node must do, whichever it is. Doing them twice is harmless, for each is a compare-and-set.

- Sessions whose deadline nobody has ticked are ticked.
- Sessions of dead nodes lose the sockets of these, and their posts are taken over.
- Where this node itself cannot serve a session any more, its sockets end, and come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import HubError
from fhircast_hub.core.state.commands import Command, NodeLost, ResumePosts, Tick
from fhircast_hub.core.wire.close_codes import SERVICE_RESTART
from fhircast_hub.service.ports import SharedStore
from fhircast_hub.service.service import Service
from fhircast_hub.webhook.deliver import Webhooks
from fhircast_hub.ws.registry import Registry

#: Seconds between two looks for duties.
POLL_SECONDS = 1.0
#: Seconds until a session that failed is tried again.
PAUSE_SECONDS = 10.0
#: Sessions that are ticked together.
TOGETHER = 64

_log = structlog.get_logger()


class Duties:
    """The duties of one node."""

    def __init__(self, store: SharedStore, service: Service, registry: Registry, webhooks: Webhooks) -> None:
        self._store = store
        self._service = service
        self._registry = registry
        self._webhooks = webhooks
        self._task: asyncio.Task[None] | None = None
        #: Sessions that failed, and when they are tried again (the loop's time).
        self._not_before: dict[SessionKey, float] = {}

    def start(self) -> None:
        """Begin to look for duties."""
        self._task = asyncio.get_running_loop().create_task(self._work_forever())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def work(self) -> None:
        """Do what is due now. Raises Unavailable where the database does not answer."""
        while orphans := await self._store.orphans():
            if not any(await self._submit_all([(key, NodeLost(node, at)) for key, node, at in orphans])):
                break  # the next look is soon
        overdue = [key for key in await self._store.overdue() if self._not_before.get(key, 0.0) <= self._now()]
        await self._submit_all([(key, Tick()) for key in overdue[:TOGETHER]])
        self._not_before = {key: at for key, at in self._not_before.items() if at > self._now()}

    def abandoned(self, key: SessionKey, connections: list[str]) -> None:
        """This node missed changes of a session: its sockets come back, and its posts are begun anew."""
        self._registry.close(connections, SERVICE_RESTART, "this node missed a change; connect again")
        self.resume_posts(key)

    def resume_posts(self, key: SessionKey) -> None:
        """Begin the session's posts and verifications anew, where they are this node's."""
        self._webhooks.forget(key)
        self._service.submit_soon(key, ResumePosts())

    def begin_anew(self) -> None:
        """This node was marked dead: others have taken its sessions over."""
        self._registry.close_all(SERVICE_RESTART, "this node begins anew; connect again")
        self._webhooks.forget()

    async def _submit_all(self, commands: Sequence[tuple[SessionKey, Command]]) -> list[bool]:
        """Submit these commands together. Returns for each whether it was carried out."""
        return await asyncio.gather(*(self._submit(key, command) for key, command in commands))

    async def _submit(self, key: SessionKey, command: Command) -> bool:
        """A session that fails stops no other one, and is left alone for a while."""
        try:
            await self._service.submit(key, command)
        except Exception as error:
            if not isinstance(error, HubError):
                _log.error("duty failed", exc_info=error)
            self._not_before[key] = self._now() + PAUSE_SECONDS
            return False
        return True

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _work_forever(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.work()
            except HubError:
                pass  # the database is away: the next look is soon
            except Exception as error:
                _log.error("duties failed", exc_info=error)
