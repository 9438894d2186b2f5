"""Commits in groups: all that wait are written by one statement. While one group is written, the next one fills."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.access.topic_access import NO_OWNER
from fhircast_hub.core.rules.nodes import node_of, nodes_of
from fhircast_hub.core.state.effects import Effect, Post, Verify
from fhircast_hub.core.state.session import Session, Subscription
from fhircast_hub.core.wire.callback_url import origin_of
from fhircast_hub.postgresql.cache import Entry
from fhircast_hub.postgresql.database import DatabaseError, Fenced, Link, Lost, OverLimits
from fhircast_hub.postgresql.log import encode_changes, encode_effects
from fhircast_hub.service.ports import Limits, OverLimit, Stale
from fhircast_hub.service.weights import growth
from fhircast_hub.storage.rows import shared_changes
from fhircast_hub.waiter import Waiter

#: Commits of one group, at most.
MOST = 64
_PLACES = ", ".join(f"${number}" for number in range(1, 33))
_COMMIT = f"select place, revision, committed_at from fhircast.commit_1({_PLACES})"  # noqa: S608  # numbers

_log = structlog.get_logger()


class Commit:
    """A change of one session that waits to be written."""

    __slots__ = (
        "after",
        "before",
        "changes",
        "effects",
        "entry",
        "expected",
        "key",
        "limits",
        "node",
        "nodes",
        "told",
        "weight",
        "written",
    )

    def __init__(
        self,
        key: SessionKey,
        entry: Entry,
        after: Session | None,
        effects: Sequence[Effect],
        limits: Limits | None,
        node: str,
    ) -> None:
        self.key = key
        #: The node that commits, by its name of now.
        self.node = node
        self.entry = entry
        self.before = entry.session
        #: The revision of `before`. While the commit waits for its group, the entry may go on to a newer one.
        self.expected = entry.revision
        self.after = after
        self.effects = effects
        self.limits = limits
        self.changes = shared_changes(key, self.before, after) if after is not self.before else []
        self.weight = entry.weight + growth(self.before, after)
        if limits and self.weight > max(limits.bytes, entry.weight) and after and after.owner == NO_OWNER:
            raise OverLimit  # of one session; those of users are checked by the database
        #: The nodes that have something of the session after the commit.
        self.nodes = nodes_of(after)
        before_nodes = self.nodes if _has_same_nodes(self.before, after) else nodes_of(self.before)
        if self.nodes - before_nodes - {node}:
            raise Fenced  # decided under an earlier name
        if any(node_of(each.connection) not in ("", node) for each in new_connections(self.before, after)):
            raise Fenced  # a handshake that began under an earlier name
        #: The nodes that must hear of the commit.
        self.told = before_nodes | self.nodes
        #: Settled by the store, for the request that waits.
        self.written = Waiter()


class Ends(Protocol):
    """What becomes of commits: methods of the store."""

    def committed(self, commits: list[tuple[Commit, int, datetime]]) -> None:
        """The commits are in the database, at these revisions, and with this time in the log."""
        ...

    def not_committed(self, commit: Commit, error: Exception) -> None:
        """The commit is not in the database. Of Lost: whether it is there is unknown."""
        ...


class Writer:
    """Writes commits, one group after the other."""

    def __init__(self, link: Link, ends: Ends) -> None:
        self._link = link
        self._ends = ends
        self._waiting: list[Commit] = []
        self._work: asyncio.Task[None] | None = None
        #: Set while no group is under way.
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def pid(self) -> int | None:
        """The server's process that writes."""
        return self._link.pid

    def add(self, commit: Commit) -> None:
        """Write a commit with the next group."""
        self._waiting.append(commit)
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._write_all())

    async def settled(self) -> None:
        """Wait until the group that is under way, if any, is committed or not."""
        await self._settled.wait()

    async def stop(self) -> None:
        """Wait for what is under way."""
        if self._work is not None:
            await asyncio.wait([self._work])

    async def _write_all(self) -> None:
        await asyncio.sleep(0)  # so that all commits of one turn are one group
        while self._waiting:
            group = self._next_group()
            self._settled.clear()
            try:
                await self._write(group)
            except Exception as error:
                _log.error("group failed", exc_info=error)
                for commit in group:
                    self._ends.not_committed(commit, Lost())
            finally:
                self._settled.set()
        self._work = None

    def _next_group(self) -> list[Commit]:
        """The commits to write next: of one node's name, and at most one of each session."""
        group: dict[SessionKey, Commit] = {}
        left = []
        for commit in self._waiting:
            if len(group) < MOST and commit.key not in group and commit.node == self._waiting[0].node:
                group[commit.key] = commit
            else:
                left.append(commit)
        self._waiting = left
        return list(group.values())

    async def _write(self, group: list[Commit]) -> None:
        group.sort(key=lambda commit: commit.key)
        try:
            rows = await self._link.fetch(_COMMIT, *_arguments(group))
        except OverLimits as over:
            await self._write_others(group, over.places)
            return
        except DatabaseError as error:
            for commit in group:
                self._ends.not_committed(commit, error)
            return
        committed = [(group[place - 1], revision, at) for place, revision, at in rows]
        self._ends.committed(sorted(committed, key=lambda each: each[1]))
        fresh = {place for place, _, _ in rows}
        for place, commit in enumerate(group, 1):
            if place not in fresh:
                self._ends.not_committed(commit, Stale())

    async def _write_others(self, group: list[Commit], over: frozenset[int]) -> None:
        """Write a group again, without those that exceed limits."""
        others = []
        for place, commit in enumerate(group, 1):
            if place in over:
                self._ends.not_committed(commit, OverLimit())
            else:
                others.append(commit)
        if others:
            await self._write(others)


def has_work_for_callbacks(effects: Sequence[Effect]) -> bool:
    """Whether there is something to post or to verify."""
    return any(isinstance(effect, Verify | Post) for effect in effects)


def new_connections(before: Session | None, after: Session | None) -> list[Subscription]:
    """The subscriptions of `after` whose connection is new."""
    old, new = before.subscriptions if before else {}, after.subscriptions if after else {}
    if old is new:
        return []
    changed = [(each, old.get(id_)) for id_, each in new.items() if old.get(id_) is not each]
    return [each for each, other in changed if each.connection and (not other or other.connection != each.connection)]


def _has_same_nodes(before: Session | None, after: Session | None) -> bool:
    """Whether both have the same nodes for certain. Few events change a subscription, of which there may be a thousand."""
    if before is None or after is None:
        return before is after
    return before.subscriptions is after.subscriptions and before.poster == after.poster


def _arguments(group: list[Commit]) -> list[Any]:
    node = group[0].node
    after = [commit.after for commit in group]
    heard = [commit.told - {node} for commit in group]
    parts = [
        (place, kind, name, body)
        for place, commit in enumerate(group, 1)
        for (_, _, kind, name), body in commit.changes
    ]
    return [
        node,
        [commit.key.realm for commit in group],
        [commit.key.topic for commit in group],
        [commit.expected for commit in group],
        [session is None for session in after],
        [session.owner if session else "" for session in after],
        [session.deadline if session else None for session in after],
        [session.last_used_at if session else 0.0 for session in after],
        [session.created_at if session else 0.0 for session in after],
        [commit.weight for commit in group],
        [len(session.subscriptions) if session else 0 for session in after],
        [",".join(sorted(commit.nodes)) for commit in group],
        [",".join(sorted(commit.told)) for commit in group],
        [commit.limits.bytes if commit.limits else None for commit in group],
        [commit.limits.sessions if commit.limits else None for commit in group],
        [commit.limits.subscriptions if commit.limits else None for commit in group],
        # Only this node hears of most commits, and knows them. So nothing is written for others.
        [encode_changes(commit.changes) if others else None for commit, others in zip(group, heard, strict=True)],
        [encode_effects(commit.effects) if others else None for commit, others in zip(group, heard, strict=True)],
        *_columns(parts, 4),
        *_columns(list(_subscriptions(group)), 10),
    ]


def _columns(rows: list[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _subscriptions(group: list[Commit]) -> Iterator[tuple[Any, ...]]:
    """The subscriptions that changed."""
    for place, commit in enumerate(group, 1):
        old = commit.before.subscriptions if commit.before else {}
        new = commit.after.subscriptions if commit.after else {}
        if old is new:
            continue
        for id_ in old.keys() - new.keys():
            yield place, id_, True, False, "", "", "", False, 0.0, ""
        for id_, each in new.items():
            if old.get(id_) is not each:
                yield (
                    place,
                    id_,
                    False,
                    id_ not in old,
                    each.subscriber,
                    each.issuer,
                    each.client,
                    bool(each.connection),
                    each.connected_or_lost_at,
                    _place(each),
                )


def _place(subscription: Subscription) -> str:
    """Where the posts of a verified callback go, "" for others."""
    verified = subscription.callback and not subscription.never_connected
    return origin_of(subscription.callback) if verified else ""
