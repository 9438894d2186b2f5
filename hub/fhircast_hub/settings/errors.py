"""Mistakes in settings, each one line for the operator. A line names the setting and shows no secret (SEC-3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

from fhircast_hub.settings.types import mask

PREFIX = "FHIRCAST_"
#: Characters of a wrong value in an error.
MAX_SHOWN = 80


class Mistake(NamedTuple):
    """A mistake in the settings."""

    line: str
    #: The settings and members that decide it, such as `max_lease` and `issuers[0].realm`.
    about: tuple[str, ...] = ()


class SettingsError(Exception):
    """Settings that prevent the start. `lines` has one line for each mistake, and `str(error)` all of them."""

    #: The exit code of a command that they end.
    code = 2

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class NotNow(SettingsError):
    """A reason against the start that may pass by itself, such as a database that is away. Another start may succeed (OPS-42)."""

    code = 1


def wrong(field: str, value: object, expected: str, *others: str) -> Mistake:
    """A wrong value. `expected` completes the sentence "the setting must be ...". The fields `others` decide too."""
    return Mistake(f"{full_name(field)} must be {expected}, not {shown(value)}", (field, *others))


def unknown(name_shown: str, kind: str, hint: str | None) -> str:
    """The line about an unknown name, without its value: the value may be a secret for another program."""
    return f"{name_shown} is no {kind} of docs/settings.md{f'; did you mean {hint}?' if hint else ''}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` may be a misspelling of, in any case, with or without prefix."""
    spelled = {candidate.upper().removeprefix(PREFIX): candidate for candidate in known}
    near = get_close_matches(name.upper().removeprefix(PREFIX), spelled, n=1)
    return spelled[near[0]] if near else None


def full_name(field: str) -> str:
    """`issuers[0].audience` -> FHIRCAST_ISSUERS[0].audience"""
    first, dot, member = field.partition(".")
    return f"{PREFIX}{first.upper()}{dot}{member}"


def plain_name(name: object) -> str:
    """A name as it is, where an error can show it so; else quoted."""
    return str(name) if re.fullmatch(r"[\w-]{1,80}", str(name), re.ASCII) else shown(str(name))


def shown(value: object) -> str:
    """A wrong value for an error: short, on one line, without passwords and keys."""
    match value:
        case None:
            return "nothing"
        case str():
            text = repr(mask(value))
            return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(value)} characters)"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
        case int() if value.bit_length() > 64:  # Python refuses to print an integer of some thousand digits
            return "a number of more than 64 bits"
    return str(value).lower()
