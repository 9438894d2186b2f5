"""Audiences: the connected subscriptions of a session, grouped so that an event is decided once per group, not per socket.

Two connections are in one audience when they were granted the same events and were last told the same opens.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from fhircast_hub.core.names import DERIVED
from fhircast_hub.core.session import Audience

Told = tuple[str, str, str]

#: What somebody who just came has been told.
NOTHING: Told = ("", "", "")
#: Where in `told` the opens of a type stand.
PLACE = {type_: place for place, type_ in enumerate(DERIVED)}


def join(audiences: Iterable[Audience], connection: str, keys: frozenset[str], told: Told) -> tuple[Audience, ...]:
    """The audiences with one more connection."""
    return merge((*audiences, Audience(keys, told, (connection,))))


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


def told_to(audiences: Iterable[Audience], connection: str) -> Told:
    """The opens that this connection was last told."""
    return next((audience.told for audience in audiences if connection in audience.members), NOTHING)


def merge(audiences: Iterable[Audience]) -> tuple[Audience, ...]:
    """The audiences with those that became alike made one."""
    merged: dict[tuple[frozenset[str], Told], Audience] = {}
    for audience in audiences:
        alike = audience.keys, audience.told
        if (other := merged.get(alike)) is not None:
            audience = replace(other, members=other.members + audience.members)
        merged[alike] = audience
    return tuple(merged.values())


def subscribed(audiences: Iterable[Audience], key: str) -> tuple[str, ...]:
    """The connections that were granted the event of this lower-case name."""
    found = [audience.members for audience in audiences if key in audience.keys]
    return found[0] if len(found) == 1 else tuple(member for members in found for member in members)


def remember(told: Told, type_: str, ref: str) -> Told:
    """`told` after an open of `type_` was sent; "" as `ref` forgets it."""
    patient, encounter, study = (ref if place == PLACE[type_] else other for place, other in enumerate(told))
    return patient, encounter, study


def forget(audiences: tuple[Audience, ...], ref: str) -> tuple[Audience, ...]:
    """The audiences after the context `ref` was closed: nobody counts as told of it any more (DER-3)."""
    if not any(ref in audience.told for audience in audiences):
        return audiences
    type_ = ref[: ref.index("/")]
    return merge(
        replace(audience, told=remember(audience.told, type_, "")) if ref in audience.told else audience
        for audience in audiences
    )


def forget_all(audiences: tuple[Audience, ...]) -> tuple[Audience, ...]:
    """The audiences after a Home-open."""
    return merge(replace(audience, told=NOTHING) for audience in audiences)


def untold(audiences: tuple[Audience, ...], connection: str, ref: str) -> tuple[Audience, ...]:
    """The audiences after `connection` refused the open of `ref`: it does not count as told of it (DER-3)."""
    found = next((audience for audience in audiences if connection in audience.members), None)
    if found is None or ref not in found.told or not ref:
        return audiences
    told = remember(found.told, ref[: ref.index("/")], "")
    return join(leave(audiences, connection), connection, found.keys, told)
