"""Event names that no event can have: a hub may grant them, and then nothing ever comes (FHIRcast 3.0.0, 2.3)."""

from __future__ import annotations

import re
from difflib import get_close_matches

#: The catalogue, and the hub's own heartbeat.
CATALOGUE = (
    *(
        f"{resource}-{verb}"
        for resource in ("Patient", "Encounter", "ImagingStudy", "DiagnosticReport")
        for verb in ("open", "close", "update", "select")
    ),
    *("SyncError", "UserLogout", "UserHibernate", "Home-open", "heartbeat"),
)
_KNOWN = {name.lower(): name for name in CATALOGUE}
#: How like a name of the catalogue another must be to be taken for a slip of the pen.
_LIKE = 0.7

#: "EventName ::= FHIRresource '-' ( 'open' | 'close' | 'update' | 'select' )", or reverse-domain notation, which "SHALL NOT
#: contain a dash" (2.3).
_NAME = re.compile(r"[a-z]+-(open|close|update|select)|[a-z0-9_]+(\.[a-z0-9_]+)+", re.ASCII | re.IGNORECASE)
#: How events were called in 2018, and what stood for the resource.
_OF_2018 = re.compile(r"(open|switch|close)-(patient-chart|imaging-study)", re.ASCII | re.IGNORECASE)
_RESOURCES = {"patient-chart": "Patient", "imaging-study": "ImagingStudy"}
_USER = {"logout-user": "UserLogout", "hibernate-user": "UserHibernate"}


def never_matches(name: str) -> bool:
    """Whether no event can ever be published under this name."""
    return name.lower() not in _KNOWN and not _NAME.fullmatch(name)


def meant(name: str) -> str:
    """The name of the catalogue that was probably meant; "" where none is like it."""
    lower = name.lower()
    if old := _OF_2018.fullmatch(lower):
        return f"{_RESOURCES[old[2]]}-{'close' if old[1] == 'close' else 'open'}"
    near = get_close_matches(lower, _KNOWN, n=1, cutoff=_LIKE)
    return _USER.get(lower) or (_KNOWN[near[0]] if near else "")


def shown(name: str) -> str:
    """A name that never matches, with the one that was probably meant."""
    better = meant(name)
    return f"{name} (did you mean {better}?)" if better else name
