"""Event names (FHIRcast 3.0.0, 2.3 Events): their syntax, the kind of event that each names, their spelling in the catalogue."""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_EVENTS

#: Names of the four catalogue resources with each suffix, infrastructure events, and the hub's own heartbeat.
#: Clients compare the heartbeat in lower case.
CATALOGUE = (
    *(
        f"{resource}-{verb}"
        for resource in ("Patient", "Encounter", "ImagingStudy", "DiagnosticReport")
        for verb in ("open", "close", "update", "select")
    ),
    *("SyncError", "UserLogout", "UserHibernate", "Home-open", "heartbeat"),
)
#: The keys of context items that differ from the lower-case type ("due to legacy reasons", 2.3).
ANCHOR_KEYS = {"imagingstudy": "study", "diagnosticreport": "report"}
#: The types whose opens the hub derives from other contexts, in the order in which they are sent (DER-7).
DERIVED = ("patient", "encounter", "imagingstudy")
#: The events that open a context of each of these types, in lower case.
OPEN_KEYS = {type_: f"{type_}-open" for type_ in DERIVED}

_SPELLING = {name.lower(): name for name in CATALOGUE}
#: The catalogue in lower case. Logs may have these names, as they tell nothing about a person.
CATALOGUE_LOWER = frozenset(_SPELLING)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_RESOURCE_EVENT = re.compile(r"([a-z]+)-(open|close|update|select)", re.ASCII | re.IGNORECASE)
_REVERSE_DOMAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+", re.ASCII)


class Kind(enum.Enum):
    """The effect of an event on its session."""

    OPEN = "open"
    CLOSE = "close"
    UPDATE = "update"
    SELECT = "select"
    HOME = "home"
    #: Broadcast, without a change of the session: SyncError, UserLogout, UserHibernate, and events with a reverse-domain name.
    PASSED_ON = "passed on"


@functools.lru_cache(maxsize=1024)  # only valid names are cached, and they are short
def classify(name: str) -> tuple[Kind, str]:
    """The kind of a published event, and its anchor's type in lower case. "": the event has no anchor.

    Raises BadRequest for a name that may not be published (EVT-5): "EventName ::= FHIRresource '-' ( 'open' | 'close' |
    'update' | 'select' )", an infrastructure event, or reverse-domain notation, which "SHALL NOT contain a dash" (2.3).
    """
    lower = name.lower()
    if lower == "home-open":
        return Kind.HOME, ""
    if lower in ("syncerror", "userlogout", "userhibernate"):
        return Kind.PASSED_ON, ""
    if not _NAME.fullmatch(name):
        actual = f"{len(name)} characters of something else"
        raise BadRequest(f"hub.event must be a name of letters, digits, '.', '_' and '-', not {actual}")
    if found := _RESOURCE_EVENT.fullmatch(name):
        return Kind(found[2].lower()), found[1].lower()
    if lower == "heartbeat":
        raise BadRequest("hub.event must not be heartbeat, which only the hub sends")
    if _REVERSE_DOMAIN.fullmatch(name):
        return Kind.PASSED_ON, ""
    raise BadRequest(
        "hub.event must be Resource-open, -close, -update or -select, SyncError, UserLogout, UserHibernate, Home-open"
        " or a reverse-domain name without a dash, not …",
        quoted=name,
    )


def parse_events(items: Iterable[str]) -> tuple[str, ...]:
    """The event names in hub.events, each once, in their order and as the subscriber spells them (SUB-18).

    "Hubs SHALL treat multiple values as a single instance" and "be case insensitive for event-names" (2.4): of two spellings the
    first counts. Raises BadRequest for invalid names, too many names, or none (SUB-5).
    """
    names: dict[str, str] = {}
    for item in dict.fromkeys(items):  # a client may repeat a name thousands of times
        if name := item.strip():
            if not _NAME.fullmatch(name):
                actual = f"one of {len(name)} characters is something else"
                raise BadRequest(
                    f"hub.events must be names of up to 128 letters, digits, '.', '_' and '-', and {actual}"
                )
            names.setdefault(name.lower(), name)
    if len(names) > MAX_EVENTS:
        raise BadRequest(f"hub.events may have at most {MAX_EVENTS} event names, and this one has {len(names)}")
    if not names:
        raise BadRequest("hub.events must have at least one event name, and this one has none")
    return tuple(names.values())


def spelling(name: str) -> str:
    """The catalogue's spelling of `name`; `name` itself if the catalogue does not have it."""
    return _SPELLING.get(name.lower(), name)


def anchor_keys(type_: str) -> tuple[str, str]:
    """The context keys that an anchor of this lower-case type may have (EVT-9)."""
    return ANCHOR_KEYS.get(type_, type_), type_


@functools.lru_cache(16384)  # the names in one session
def never_matches(name: str) -> bool:
    """Whether no event can have this name, though clients may subscribe to it (SUB-5)."""
    if name.lower() in CATALOGUE_LOWER:  # also the heartbeat, which only the hub sends
        return False
    try:
        classify(name)
    except BadRequest:
        return True
    return False


#: The event names of 2018 (FHIRcast 0.1), in lower case, and today's name of each.
NAMES_OF_2018 = {
    **{f"{verb}-patient-chart": "Patient-open" for verb in ("open", "switch")},
    "close-patient-chart": "Patient-close",
    **{f"{verb}-imaging-study": "ImagingStudy-open" for verb in ("open", "switch")},
    "close-imaging-study": "ImagingStudy-close",
    "logout-user": "UserLogout",
    "hibernate-user": "UserHibernate",
}


def modern_name(name: str) -> str:
    """Today's name for an event name of 2018; any other `name` itself."""
    return NAMES_OF_2018.get(name.lower(), name)
