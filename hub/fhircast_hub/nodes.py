"""Duties of a node: what some node must do, whichever it is. Doing them twice is harmless, for each is a compare-and-set.

- Sessions whose deadline nobody has ticked are ticked.
- Sessions of dead nodes lose the sockets of these, and their posts are taken over.
- Where this node itself cannot serve a session any more, its sockets end, and come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import HubError
from fhircast_hub.core.rules.nodes import node_of
from fhircast_hub.core.rules.webhook_outbox import waiting_posts
from fhircast_hub.core.state.commands import Command, Disconnected, NodeLost, ResumePosts, Tick
from fhircast_hub.core.wire.close_codes import ABNORMAL, SERVICE_RESTART
from fhircast_hub.service.ports import SharedStore
from fhircast_hub.service.service import Service
from fhircast_hub.webhook.deliver import Webhooks
from fhircast_hub.ws.registry import Registry

#: Seconds between two looks for duties.
POLL_SECONDS = 1.0
#: Seconds until a session that failed again and again is tried again.
MAX_PAUSE_SECONDS = 60.0

_log = structlog.get_logger()


class Duties:
    """The duties of one node."""

    def __init__(self, store: SharedStore, service: Service, registry: Registry, webhooks: Webhooks) -> None:
        self._store = store
        self._service = service
        self._registry = registry
        self._webhooks = webhooks
        self._task: asyncio.Task[None] | None = None
        #: Sessions that failed: how often, and until when they are left alone (the loop's time).
        self._failures: dict[SessionKey, tuple[int, float]] = {}
        #: Sessions whose posts are being begun anew, and whether that must be done again.
        self._resuming: dict[SessionKey, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to look for duties."""
        self._task = asyncio.get_running_loop().create_task(self._work_forever())

    async def stop(self) -> None:
        """Look no more."""
        for task in (self._task, *self._tasks):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def work(self) -> None:
        """Do what is due now. Raises Unavailable where the database does not answer."""
        while orphans := await self._store.orphans(self._failing()):
            if not any(await self._submit_all([(key, NodeLost(node, at)) for key, node, at in orphans])):
                break  # the next look is soon
        await self._submit_all([(key, Tick()) for key in await self._store.overdue(self._failing())])

    def _failing(self) -> set[SessionKey]:
        """The sessions that failed a short while ago."""
        now = self._now()
        return {key for key, (_, until) in self._failures.items() if until > now}

    def abandoned(self, key: SessionKey, connections: list[str]) -> None:
        """This node missed changes of a session: its sockets come back, and its posts are begun anew."""
        self._registry.close(connections, SERVICE_RESTART, "this node missed a change; connect again")
        self.resume_posts(key)

    def resume_posts(self, key: SessionKey) -> None:
        """Begin the session's posts and verifications anew, where they are this node's."""
        if key in self._resuming:
            self._resuming[key] = True
            return
        self._resuming[key] = False
        self._spawn(self._resume_posts(key))

    def holds_posts(self, key: SessionKey) -> bool:
        """Whether the session's posts have yet to be begun anew. Then a later post waits, and is begun with these."""
        if key not in self._resuming:
            return False
        self._resuming[key] = True
        return True

    def look_again(self, key: SessionKey) -> None:
        """A change was committed that this node had counted as lost: a connection that it names may be none."""
        self._spawn(self._look_again(key))
        self.resume_posts(key)

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
            times = self._failures.get(key, (0, 0.0))[0] + 1
            pause = min(2.0 ** min(times, 10), MAX_PAUSE_SECONDS)  # 2.0 ** 1024 overflows
            self._failures[key] = times, self._now() + pause
            return False
        self._failures.pop(key, None)
        return True

    async def _resume_posts(self, key: SessionKey) -> None:
        """Begin the posts anew until that is committed, and again where more was lost meanwhile."""
        try:
            while True:
                self._resuming[key] = False
                if not (await self._submit(key, ResumePosts()) and await self._drop_ended(key)):
                    await asyncio.sleep(POLL_SECONDS)
                elif not self._resuming[key]:
                    return
        finally:
            del self._resuming[key]

    async def _drop_ended(self, key: SessionKey) -> bool:
        """Drop queued posts that the session has no more: this node may have missed an end. Returns whether that is done."""
        if queued := self._webhooks.posts_of(key):
            try:
                session = await self._service.session(key)
            except HubError:
                return False
            waiting = waiting_posts(session) if session else frozenset[int]()
            self._webhooks.drop([post for post in queued if post.number not in waiting])
        return True

    async def _look_again(self, key: SessionKey) -> None:
        session = await self._service.session(key)
        for each in session.subscriptions.values() if session else ():
            name = each.connection
            if node_of(name) == self._store.node and not self._registry.has(name):
                self._service.submit_soon(key, Disconnected(each.subscription_id, name, 0.0, ABNORMAL))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, HubError):
            _log.error("duty failed", exc_info=error)

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
