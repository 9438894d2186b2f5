"""Event names that can never match: a hub may grant them, but no event will come (FHIRcast 3.0.0, 2.3). No I/O."""

from __future__ import annotations

import re

_TYPES = ("Patient", "Encounter", "ImagingStudy", "DiagnosticReport")
#: The catalogue of events, and the hub's own heartbeat.
CATALOGUE = (
    *(f"{resource}-{verb}" for resource in _TYPES for verb in ("open", "close", "update", "select")),
    *("SyncError", "UserLogout", "UserHibernate", "Home-open", "heartbeat"),
)
_KNOWN = {name.lower(): name for name in CATALOGUE}
#: A name counts as misspelt where at most this share of its letters is wrong.
_WRONG = 0.4
#: Wrong letters in a type that count as misspelt. No other FHIR type is as similar to one of the catalogue.
_WRONG_IN_TYPE = 2

#: "EventName ::= FHIRresource '-' ( 'open' | 'close' | 'update' | 'select' )", or reverse-domain notation, which "SHALL NOT
#: contain a dash" (2.3).
_NAME = re.compile(r"[a-z]+-(open|close|update|select)|[a-z0-9_]+(\.[a-z0-9_]+)+", re.ASCII | re.IGNORECASE)
#: Event names of 2018, and the resource type for each.
_OF_2018 = re.compile(r"(open|switch|close)-(patient-chart|imaging-study)", re.ASCII | re.IGNORECASE)
_RESOURCES = {"patient-chart": "Patient", "imaging-study": "ImagingStudy"}
_USER = {"logout-user": "UserLogout", "hibernate-user": "UserHibernate"}


def never_matches(name: str) -> bool:
    """Whether no event can ever have this name."""
    return name.lower() not in _KNOWN and not _NAME.fullmatch(name)


def meant(name: str) -> str:
    """The similar name of the catalogue. "" where none is similar."""
    lower = name.lower()
    if old := _OF_2018.fullmatch(lower):
        return f"{_RESOURCES[old[2]]}-{'close' if old[1] == 'close' else 'open'}"
    near = min(_KNOWN, key=lambda known: _wrong(lower, known))
    is_like = _wrong(lower, near) <= _WRONG * max(len(lower), len(near))
    return _USER.get(lower) or (_KNOWN[near] if is_like else "")


def misspelt(name: str) -> str:
    """The fault in the name of a handler, as a sentence. "" where events may have the name."""
    type_ = name.lower().partition("-")[0]
    is_near = any(0 < _wrong(type_, known.lower()) <= _WRONG_IN_TYPE for known in _TYPES)
    if not is_near and not never_matches(name):
        return ""
    better = meant(name)
    return f'unknown event name "{name}"' + (
        f": did you mean {better}?" if better else "; a name is such as Patient-open"
    )


def shown(name: str) -> str:
    """A name that never matches, with the similar name of the catalogue."""
    better = meant(name)
    return f"{name} (did you mean {better}?)" if better else name


def _wrong(one: str, other: str) -> int:
    """Letters to change, add or remove to turn one text into the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        before, row[0] = row[0], number
        for place, its in enumerate(other, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (letter != its))
    return row[-1]
