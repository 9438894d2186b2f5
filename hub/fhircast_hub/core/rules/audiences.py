"""Audiences: connections of a session that every event treats alike.

"Once a requested context change is accepted, the Hub SHALL broadcast the context notification to all Subscribers" (FHIRcast
3.0.0, 2.6). The hub decides about an event once for each audience, not once for each connection.
`subscribers_of` finds the connections that receive an event. publishing.py finds those that receive a derived open.

Connections share an audience when they were granted the same events and have equal last opens (last_opens.py).
Example: two viewers with Patient-open are one audience. One viewer refuses a Patient-open. Its last open is then in doubt
(last_opens.py), so there are two audiences. The next Patient-open is sent to both viewers and makes them one audience again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from fhircast_hub.core.rules import last_opens
from fhircast_hub.core.rules.last_opens import NOTHING_OPENED, TYPE_INDEX
from fhircast_hub.core.state.session import Audience, LastOpened


def with_connection(
    audiences: Iterable[Audience], connection: str, keys: frozenset[str], last_opened: LastOpened
) -> tuple[Audience, ...]:
    """The audiences with one more connection, which was granted the events `keys` (lower case)."""
    return merge_equal((*audiences, Audience(keys, last_opened, (connection,))))


def without_connection(audiences: Iterable[Audience], connection: str) -> tuple[Audience, ...]:
    """The audiences without this connection. An audience without members is dropped."""
    kept = []
    for audience in audiences:
        if connection in audience.members:
            members = tuple(member for member in audience.members if member != connection)
            if members:
                kept.append(replace(audience, members=members))
        else:
            kept.append(audience)
    return tuple(kept)


def last_opened_of(audiences: Iterable[Audience], connection: str) -> LastOpened:
    """The last opens of a connection; NOTHING_OPENED for an unknown one."""
    return next((audience.last_opened for audience in audiences if connection in audience.members), NOTHING_OPENED)


def merge_equal(audiences: Iterable[Audience]) -> tuple[Audience, ...]:
    """The audiences. Audiences with the same events and last opens become one."""
    audiences = tuple(audiences)
    if len(audiences) < 2:
        return audiences
    merged: dict[tuple[frozenset[str], LastOpened], Audience] = {}
    for audience in audiences:
        shared = audience.keys, audience.last_opened
        if (other := merged.get(shared)) is not None:
            audience = replace(other, members=other.members + audience.members)
        merged[shared] = audience
    return tuple(merged.values())


def subscribers_of(audiences: Iterable[Audience], key: str) -> tuple[str, ...]:
    """The connections that were granted the event of this lower-case name."""
    found = [audience.members for audience in audiences if key in audience.keys]
    return found[0] if len(found) == 1 else tuple(member for members in found for member in members)


def after_close(audiences: tuple[Audience, ...], ref: str) -> tuple[Audience, ...]:
    """The audiences after the context `ref` was closed: the context is nobody's last open any more (DER-3)."""
    if not any(ref == last.ref for audience in audiences for last in audience.last_opened):
        return audiences
    return merge_equal(
        replace(audience, last_opened=last_opens.without_context(audience.last_opened, ref)) for audience in audiences
    )


def forget_named(audiences: tuple[Audience, ...], type_: str) -> tuple[Audience, ...]:
    """The audiences after a context of `type_` was closed.

    Without a last open of `type_`, contexts that a `type_` open named are no last opens either.
    """
    if type_ not in TYPE_INDEX:
        return audiences
    index = TYPE_INDEX[type_]
    return merge_equal(
        replace(audience, last_opened=last_opens.without_named_by(audience.last_opened, type_))
        if not audience.last_opened[index].ref and any(last.named_by == type_ for last in audience.last_opened)
        else audience
        for audience in audiences
    )


def after_home_open(audiences: tuple[Audience, ...]) -> tuple[Audience, ...]:
    """The audiences after a Home-open."""
    return merge_equal(
        replace(audience, last_opened=last_opens.after_home_open(audience.last_opened, audience.keys))
        for audience in audiences
    )


def forget_open(audiences: tuple[Audience, ...], connection: str, refs: Collection[str]) -> tuple[Audience, ...]:
    """The audiences after the connection did not follow an event. Last opens of `refs` are in doubt (DER-3)."""
    found = next((audience for audience in audiences if connection in audience.members), None)
    if found is None or all(last.ref not in refs for last in found.last_opened):
        return audiences
    in_doubt = last_opens.put_in_doubt(found.last_opened, refs)
    return with_connection(without_connection(audiences, connection), connection, found.keys, in_doubt)
