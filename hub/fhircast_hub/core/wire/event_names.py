"""Event names (FHIRcast 3.0.0, 2.3 Events): what they may look like, what each asks of the hub, how the catalogue spells them."""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_EVENTS

#: The event catalogue, and the hub's own heartbeat, which clients compare in lower case.
CATALOGUE = (
    *(
        f"{resource}-{verb}"
        for resource in ("Patient", "Encounter", "ImagingStudy", "DiagnosticReport")
        for verb in ("open", "close", "update", "select")
    ),
    *("SyncError", "UserLogout", "UserHibernate", "Home-open", "heartbeat"),
)
#: Keys of a context item that differ from the lower-case type ("due to legacy reasons", 2.3).
ANCHOR_KEYS = {"imagingstudy": "study", "diagnosticreport": "report"}
#: The types whose opens the hub derives from other contexts, in the order they are sent (DER-7).
DERIVED = ("patient", "encounter", "imagingstudy")

_SPELLING = {name.lower(): name for name in CATALOGUE}
#: The catalogue in lower case: names that say nothing of anybody.
CATALOGUE_LOWER = frozenset(_SPELLING)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_RESOURCE_EVENT = re.compile(r"([a-z]+)-(open|close|update|select)", re.ASCII | re.IGNORECASE)
_REVERSE_DOMAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+", re.ASCII)


class Kind(enum.Enum):
    """What an event does to its session."""

    OPEN = "open"
    CLOSE = "close"
    UPDATE = "update"
    SELECT = "select"
    HOME = "home"
    #: passed on, changes nothing: SyncError, UserLogout, UserHibernate, and events of reverse-domain name
    PASSED_ON = "passed on"


@functools.lru_cache(maxsize=1024)  # of names that are good, and so short
def classify(name: str) -> tuple[Kind, str]:
    """The kind of a published event, and the lower-case type of its anchor ("" where it has none).

    Raises BadRequest for a name that may not be published (EVT-5): "EventName ::= FHIRresource '-' ( 'open' | 'close' |
    'update' | 'select' )", an infrastructure event, or reverse-domain notation, which "SHALL NOT contain a dash" (2.3).
    """
    lower = name.lower()
    if lower == "home-open":
        return Kind.HOME, ""
    if lower in ("syncerror", "userlogout", "userhibernate"):
        return Kind.PASSED_ON, ""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"hub.event: expected a name of letters, digits, '.', '_' and '-', got {len(name)} characters that are not"
        )
    if found := _RESOURCE_EVENT.fullmatch(name):
        return Kind(found[2].lower()), found[1].lower()
    if lower == "heartbeat":
        raise BadRequest("hub.event: heartbeat is sent by the hub only")
    if _REVERSE_DOMAIN.fullmatch(name):
        return Kind.PASSED_ON, ""
    raise BadRequest(
        f"hub.event: expected Resource-open, -close, -update or -select, SyncError, UserLogout, UserHibernate, Home-open"
        f" or a reverse-domain name without a dash, got {name}"
    )


def parse_events(items: Iterable[str]) -> tuple[str, ...]:
    """The set of event names asked for in hub.events, in the order asked and as the subscriber spells them (SUB-18).

    "Hubs SHALL treat multiple values as a single instance" and "be case insensitive for event-names" (2.4): of one name in two
    spellings the first counts.
    Raises BadRequest for a name outside the alphabet, too many of them, or none (SUB-5).
    """
    names: dict[str, str] = {}
    for item in dict.fromkeys(items):  # thousands of the same are one
        if name := item.strip():
            if not _NAME.fullmatch(name):
                raise BadRequest(
                    f"hub.events: expected names of up to 128 letters, digits, '.', '_' and '-', got one of {len(name)} characters that is not"
                )
            names.setdefault(name.lower(), name)
    if len(names) > MAX_EVENTS:
        raise BadRequest(f"hub.events: expected at most {MAX_EVENTS} event names, got {len(names)}")
    if not names:
        raise BadRequest("hub.events: expected at least one event name, got none")
    return tuple(names.values())


def spelling(name: str) -> str:
    """The catalogue's spelling of `name`, or `name` itself where the catalogue does not know it."""
    return _SPELLING.get(name.lower(), name)


def anchor_keys(type_: str) -> tuple[str, str]:
    """The context keys under which an event's anchor of this lower-case type may stand (EVT-9)."""
    return ANCHOR_KEYS.get(type_, type_), type_


@functools.lru_cache(16384)  # a session may have so many
def never_matches(name: str) -> bool:
    """Whether no event can ever be published under this name, though it may be subscribed to (SUB-5)."""
    if name.lower() in CATALOGUE_LOWER:  # heartbeat among them, which the hub itself sends
        return False
    try:
        classify(name)
    except BadRequest:
        return True
    return False


#: The names of 2018 (FHIRcast 0.1), in lower case, and today's name of each.
NAMES_OF_2018 = {
    **{f"{verb}-patient-chart": "Patient-open" for verb in ("open", "switch")},
    "close-patient-chart": "Patient-close",
    **{f"{verb}-imaging-study": "ImagingStudy-open" for verb in ("open", "switch")},
    "close-imaging-study": "ImagingStudy-close",
    "logout-user": "UserLogout",
    "hibernate-user": "UserHibernate",
}


def modern_name(name: str) -> str:
    """Today's name of an event that had another in 2018, else `name` itself."""
    return NAMES_OF_2018.get(name.lower(), name)
