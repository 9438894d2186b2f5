"""Audiences: the connected subscriptions of a session, grouped so that an event is decided once per group, not per socket.

Two connections are in one audience when they were granted the same events and were last told the same opens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from fhircast_hub.core.state.session import Audience, LastOpen, LastOpened
from fhircast_hub.core.wire.event_names import DERIVED

#: What somebody who just came has been told.
NOTHING: LastOpened = (LastOpen(), LastOpen(), LastOpen())
#: Where in `last_opened` the opens of a type stand.
PLACE = {type_: place for place, type_ in enumerate(DERIVED)}


def join(
    audiences: Iterable[Audience], connection: str, keys: frozenset[str], last_opened: LastOpened
) -> tuple[Audience, ...]:
    """The audiences with one more connection."""
    return merge((*audiences, Audience(keys, last_opened, (connection,))))


def leave(audiences: Iterable[Audience], connection: str) -> tuple[Audience, ...]:
    """The audiences without this connection."""
    left = []
    for audience in audiences:
        if connection in audience.members:
            members = tuple(member for member in audience.members if member != connection)
            if members:
                left.append(replace(audience, members=members))
        else:
            left.append(audience)
    return tuple(left)


def last_opened_of(audiences: Iterable[Audience], connection: str) -> LastOpened:
    """The opens that this connection was last told."""
    return next((audience.last_opened for audience in audiences if connection in audience.members), NOTHING)


def merge(audiences: Iterable[Audience]) -> tuple[Audience, ...]:
    """The audiences with those that became alike made one."""
    merged: dict[tuple[frozenset[str], LastOpened], Audience] = {}
    for audience in audiences:
        alike = audience.keys, audience.last_opened
        if (other := merged.get(alike)) is not None:
            audience = replace(other, members=other.members + audience.members)
        merged[alike] = audience
    return tuple(merged.values())


def subscribed(audiences: Iterable[Audience], key: str) -> tuple[str, ...]:
    """The connections that were granted the event of this lower-case name."""
    found = [audience.members for audience in audiences if key in audience.keys]
    return found[0] if len(found) == 1 else tuple(member for members in found for member in members)


def named(last_opened: LastOpened, by: str, refs: Mapping[str, str]) -> LastOpened:
    """`last_opened` after an open of the type `by` was sent, which names these contexts, by type.

    What the open before named counts no more. An open of its own, once told, stays what told a context, and stays in doubt.
    """
    after = []
    for type_, last in zip(DERIVED, last_opened, strict=True):
        ref = refs.get(type_, "")
        if type_ == by:
            after.append(LastOpen(ref))
        elif ref and (ref != last.ref or (last.stale and last.by)):
            after.append(LastOpen(ref, by))
        else:
            after.append(LastOpen() if last.by == by and not ref else last)
    return _last_opened(after)


def replaced(last_opened: LastOpened, type_: str, last: LastOpen) -> LastOpened:
    """`last_opened` with this for `type_`."""
    return _last_opened(last if place == PLACE[type_] else other for place, other in enumerate(last_opened))


def doubted(last_opened: LastOpened, refs: Collection[str]) -> LastOpened:
    """`last_opened` with these contexts in doubt: the subscribers may show something else."""
    return _last_opened(last._replace(stale=True) if last.ref in refs else last for last in last_opened)


def back(
    last_opened: LastOpened, shown: Collection[str], unheard: Collection[str], named: Collection[str]
) -> LastOpened:
    """What a subscription counts as told after its return, when the subscription is sent what a joiner is `last_opened`.

    `shown` are the contexts that the subscription was told opens of before. They may be shown still while open contexts name
    them; `named` are the contexts that do. A context whose close may be `unheard` is in doubt where an event names the context.
    """
    after = []
    for type_, last in zip(DERIVED, last_opened, strict=True):
        own = next((ref for ref in shown if ref.startswith(f"{type_}/")), "")
        if last.by and last.ref in unheard:
            after.append(LastOpen(last.ref, stale=True))
        elif last.ref:
            after.append(last._replace(by="") if last.ref == own else last)
        else:
            after.append(LastOpen(own, stale=True) if own in named else last)
    return _last_opened(after)


def renewed(before: LastOpened, last_opened: LastOpened, added: Collection[str], *, at_home: bool) -> LastOpened:
    """What a subscription counts as told after its renewal, which was told `before`, where a joiner is `last_opened` that.

    Only opens of the types whose events are `added` are sent. What is not sent is in doubt. `at_home` is whether a joiner is told
    a Home-open last.
    """
    after = []
    for type_, was, now in zip(DERIVED, before, last_opened, strict=True):
        if was.ref == now.ref:
            after.append(was)
        elif now.ref or was.by or at_home:
            after.append(now if f"{type_}-open" in added else now._replace(stale=bool(now.ref)))
        else:
            after.append(was._replace(stale=True))  # the subscription was told an open, and no close
    return _last_opened(after)


def before_home(last_opened: LastOpened, keys: frozenset[str]) -> LastOpened:
    """`last_opened` after a Home-open, of those who were granted these events.

    Every open is news again then (DER-3). Who was not told of the Home-open goes on showing what came before.
    """
    return NOTHING if "home-open" in keys else _last_opened(last._replace(stale=bool(last.ref)) for last in last_opened)


def _last_opened(lasts: Iterable[LastOpen]) -> LastOpened:
    patient, encounter, study = lasts
    return patient, encounter, study


def forget(audiences: tuple[Audience, ...], ref: str) -> tuple[Audience, ...]:
    """The audiences after the context `ref` was closed: nobody counts as told of the context any more (DER-3)."""
    if not any(ref == last.ref for audience in audiences for last in audience.last_opened):
        return audiences
    return merge(
        replace(
            audience, last_opened=_last_opened(LastOpen() if last.ref == ref else last for last in audience.last_opened)
        )
        for audience in audiences
    )


def orphaned(audiences: tuple[Audience, ...], type_: str) -> tuple[Audience, ...]:
    """The audiences after a context of `type_` was closed: what its open named counts no more for who knows of no other."""
    if type_ not in PLACE:
        return audiences
    place = PLACE[type_]
    return merge(
        replace(
            audience,
            last_opened=_last_opened(LastOpen() if last.by == type_ else last for last in audience.last_opened),
        )
        if not audience.last_opened[place].ref and any(last.by == type_ for last in audience.last_opened)
        else audience
        for audience in audiences
    )


def forget_all(audiences: tuple[Audience, ...]) -> tuple[Audience, ...]:
    """The audiences after a Home-open."""
    return merge(
        replace(audience, last_opened=before_home(audience.last_opened, audience.keys)) for audience in audiences
    )


def forget_open(audiences: tuple[Audience, ...], connection: str, refs: Collection[str]) -> tuple[Audience, ...]:
    """The audiences after `connection` refused an open that names these contexts: they are in doubt, and told again (DER-3)."""
    found = next((audience for audience in audiences if connection in audience.members), None)
    if found is None or all(last.ref not in refs for last in found.last_opened):
        return audiences
    return join(leave(audiences, connection), connection, found.keys, doubted(found.last_opened, refs))
