"""Event names that no event has: a hub may grant them, and then nothing ever comes (FHIRcast 3.0.0, 2.3). No I/O."""

from __future__ import annotations

import re

_TYPES = ("Patient", "Encounter", "ImagingStudy", "DiagnosticReport")
#: The catalogue, and the hub's own heartbeat.
CATALOGUE = (
    *(f"{resource}-{verb}" for resource in _TYPES for verb in ("open", "close", "update", "select")),
    *("SyncError", "UserLogout", "UserHibernate", "Home-open", "heartbeat"),
)
_KNOWN = {name.lower(): name for name in CATALOGUE}
#: A name is taken for a slip of the pen where at most this share of its letters is wrong.
_WRONG = 0.4
#: So many letters may be wrong in a type: no other type of FHIR is as like one of the catalogue.
_WRONG_IN_TYPE = 2

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
    near = min(_KNOWN, key=lambda known: _wrong(lower, known))
    is_like = _wrong(lower, near) <= _WRONG * max(len(lower), len(near))
    return _USER.get(lower) or (_KNOWN[near] if is_like else "")


def misspelt(name: str) -> str:
    """What is wrong with the name of a handler, as a sentence; "" where events may have it."""
    type_ = name.lower().partition("-")[0]
    is_near = any(0 < _wrong(type_, known.lower()) <= _WRONG_IN_TYPE for known in _TYPES)
    if not is_near and not never_matches(name):
        return ""
    better = meant(name)
    return f'expected an event name such as Patient-open, got "{name}"' + (
        f": did you mean {better}?" if better else ""
    )


def shown(name: str) -> str:
    """A name that never matches, with the one that was probably meant."""
    better = meant(name)
    return f"{name} (did you mean {better}?)" if better else name


def _wrong(one: str, other: str) -> int:
    """How many letters must be changed, added or taken away to make one text of another (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        before, row[0] = row[0], number
        for place, its in enumerate(other, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (letter != its))
    return row[-1]
