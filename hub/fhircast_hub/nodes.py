"""Duties of a node: what some node must do, whichever it is. Doing them twice is harmless, for each is a compare-and-set.

- Sessions whose deadline nobody has ticked are ticked.
- Sessions of dead nodes lose the sockets of these, and their posts are taken over.
- Where this node itself cannot serve a session any more, its sockets end, and come back.
"""

from __future__ import annotations

import asyncio

import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import HubError
from fhircast_hub.core.state.commands import NodeLost, Tick
from fhircast_hub.core.wire.close_codes import SERVICE_RESTART
from fhircast_hub.service.ports import SharedStore
from fhircast_hub.service.service import Service
from fhircast_hub.webhook.deliver import Webhooks
from fhircast_hub.ws.registry import Registry

#: Seconds between two looks for duties.
POLL_SECONDS = 1.0

_log = structlog.get_logger()


class Duties:
    """The duties of one node."""

    def __init__(self, store: SharedStore, service: Service, registry: Registry, webhooks: Webhooks) -> None:
        self._store = store
        self._service = service
        self._registry = registry
        self._webhooks = webhooks
        self._task: asyncio.Task[None] | None = None

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
        for key in await self._store.overdue():
            await self._submit(key, Tick())
        while orphans := await self._store.orphans():
            for key, node, seen_at in orphans:
                await self._submit(key, NodeLost(node, seen_at))

    def abandoned(self, key: SessionKey, connections: list[str]) -> None:
        """This node missed changes of a session: its sockets come back, and its posts are begun anew."""
        self._registry.close(connections, SERVICE_RESTART, "this node missed a change; connect again")
        self._webhooks.forget(key)
        self._service.submit_soon(key, NodeLost(self._store.node))

    def begin_anew(self) -> None:
        """This node was marked dead: others have taken its sessions over."""
        self._registry.close_all(SERVICE_RESTART, "this node begins anew; connect again")
        self._webhooks.forget()

    async def _submit(self, key: SessionKey, command: Tick | NodeLost) -> None:
        try:
            await self._service.submit(key, command)
        except HubError:
            raise
        except Exception as error:
            _log.error("duty failed", exc_info=error)

    async def _work_forever(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.work()
            except HubError:
                pass  # the database is away: the next look is soon
            except Exception as error:
                _log.error("duties failed", exc_info=error)
