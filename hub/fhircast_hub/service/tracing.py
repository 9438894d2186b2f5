"""Steps of a request for its trace: decide, commit and write. Used only where traces are on, so nothing here costs others time."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Command
from fhircast_hub.core.state.effects import Effect, Send
from fhircast_hub.core.state.session import Outcome, Session
from fhircast_hub.service.ports import Changed, Deliver, Limits, SessionStore, ignore_changes
from fhircast_hub.service.service import Service
from fhircast_hub.telemetry.traces import Traces


class TracedService(Service):
    """A Service whose decisions are steps of the requests that ask for them. The arguments behind `traces` are those of a Service."""

    def __init__(self, traces: Traces, *args: Any) -> None:
        super().__init__(*args)
        self._decide_timed = traces.timed("decide", super()._decide)

    def _decide(self, session: Session | None, command: Command, now: float) -> Outcome:
        return self._decide_timed(session, command, now)


class _Write:
    """The write of one commit's frames to the sockets. Times are those of time.perf_counter_ns, 0 for none."""

    __slots__ = ("began", "connections", "ended")

    def __init__(self) -> None:
        self.began = self.ended = 0
        self.connections: set[str] = set()


class TracedStore:
    """A store whose commits are steps of the requests that make them. `kind` is such as sqlite.

    A store delivers the effects of several commits together, in no request's context. So each frame leads to its commit.
    """

    def __init__(self, store: SessionStore, traces: Traces, kind: str) -> None:
        self._store, self._traces, self._kind = store, traces, kind
        self._deliver: Deliver = lambda effects: None
        #: The id() of each frame of the commits that are under way.
        self._writes: dict[int, _Write] = {}

    @property
    def node(self) -> str:
        """See ports.SessionStore, as for all methods."""
        return self._store.node

    async def open(self, deliver: Deliver, changed: Changed = ignore_changes) -> None:
        self._deliver = deliver
        await self._store.open(self._deliver_timed, changed)

    def sessions(self) -> Iterable[Session]:
        return self._store.sessions()

    def load(self, key: SessionKey) -> Coroutine[Any, Any, tuple[Session | None, int]]:
        return self._store.load(key)

    def confirm(self, key: SessionKey, revision: int) -> Coroutine[Any, Any, None]:
        return self._store.confirm(key, revision)

    async def commit_and_deliver(
        self,
        key: SessionKey,
        revision: int,
        before: Session | None,
        after: Session | None,
        effects: Sequence[Effect],
        limits: Limits | None = None,
    ) -> None:
        recording = self._traces.current()
        if recording is None:
            await self._store.commit_and_deliver(key, revision, before, after, effects, limits)
            return
        began, error, write = time.perf_counter_ns(), "", _Write()
        frames = [id(effect) for effect in effects if isinstance(effect, Send)]
        self._writes.update(dict.fromkeys(frames, write))
        try:
            await self._store.commit_and_deliver(key, revision, before, after, effects, limits)
        except BaseException as failure:
            error = type(failure).__name__
            raise
        finally:
            for frame in frames:
                self._writes.pop(frame, None)
            attributes = {"fhircast.store": self._kind} | ({"error.type": error} if error else {})
            recording.add("commit", began, attributes, write.began)
            if write.ended:
                recording.add("write", write.began, {"fhircast.subscribers": len(write.connections)}, write.ended)

    async def close(self) -> None:
        await self._store.close()

    def _deliver_timed(self, effects: Sequence[Effect]) -> None:
        if not self._writes:
            self._deliver(effects)
            return
        began = time.perf_counter_ns()
        self._deliver(effects)
        ended = time.perf_counter_ns()
        for effect in effects:
            if isinstance(effect, Send) and (write := self._writes.pop(id(effect), None)) is not None:
                write.began, write.ended = began, ended
                write.connections.update(effect.to)
