"""Conflicts (409): updates and selects that do not fit the state of their context (FHIRcast 3.0.0, 2.10).

"If the incoming context.versionId and last assigned context.versionId do not match, the Hub SHALL reject" an update.
Example: two applications know version v1 of a report, and both publish an update of v1. The hub accepts the first update, which
makes version v2. The second update is answered with 409, which names v2.

Two more conflicts are decided elsewhere: a topic that has a session already (administration.py), and a system client on a topic
that no user owns (core/access).
"""

from __future__ import annotations

from fhircast_hub.core.errors import Conflict
from fhircast_hub.core.state.session import OpenContext, Session
from fhircast_hub.core.wire.event import Event

#: Characters of a version that an error quotes; the hub's own versions have 36.
_QUOTED = 64


def open_context(session: Session, event: Event) -> OpenContext:
    """The open context of an update or a select. Raises Conflict if it is not open (CON-11)."""
    context = session.contexts.get(event.ref)
    if context is None:
        raise Conflict("… needs an open context, and this context is not open", quoted=event.name)
    return context


def check_version(context: OpenContext, event: Event) -> None:
    """Raise Conflict unless the update was made on the current version of its context (CON-3)."""
    if context.version in event.versions:
        return
    version = event.versions[0] if event.versions else ""
    if not version:
        actual = "and the event has none"
    elif len(version) <= _QUOTED and version.isascii() and version.isprintable():
        actual = "not …"
    else:
        actual = f"not {len(version)} characters of something else"
    raise Conflict(f"context.versionId must be the current version {context.version}, {actual}", quoted=version)


def check_select(session: Session, event: Event) -> None:
    """Raise Conflict unless the select is in the current context (CON-14).

    "Subscribers SHALL NOT send [FHIR resource]-select events unrelated to the current context" (2.10).
    """
    if open_context(session, event).ref != session.current:
        raise Conflict("… must be in the current context, and this context is not current", quoted=event.name)
