"""Reads the settings of the environment and of a file.

A hub that starts has understood all of its settings. Mistakes end the start with one line each, all at once (SEC-3). A line
names the setting and shows no secret. Therefore the environment and the file are read here: the sources of pydantic-settings
report several lines with the values in them. In the file a setting has its name in docs/settings.md, without the prefix.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from fhircast_hub.settings.combinations import check_combinations
from fhircast_hub.settings.errors import (
    PREFIX,
    Mistake,
    SettingsError,
    full_name,
    nearest,
    plain_name,
    shown,
    unknown,
    wrong,
)
from fhircast_hub.settings.issuers import IssuerSettings
from fhircast_hub.settings.secret_files import with_secrets
from fhircast_hub.settings.settings import CLIENTS, LISTS, NAMES, Settings

_FIELDS = tuple(Settings.model_fields)
#: Field by its name in a file.
_SPELLED = {field.upper(): field for field in _FIELDS}
#: Ends of the names whose values no error shows. The path of a file may be a secret at the wrong place.
_SECRETS = ("secret_key", "introspection_client_secret", "_file")


class Reading(NamedTuple):
    """What was read, with all that is wrong."""

    #: The settings. In the place of a wrong value is the default.
    settings: Settings
    #: One line for each mistake: unknown names, then values in the order of docs/settings.md, then the others.
    lines: tuple[str, ...]
    #: The settings and members whose value is unknown, because what was given is wrong.
    unknown: frozenset[str] = frozenset()

    def also(self, found: Iterable[Mistake]) -> Reading:
        """With the lines of further mistakes, but for those that a wrong value decides."""
        more = (each.line for each in found if not any(map(self._is_unknown, each.about)))
        return self._replace(lines=(*self.lines, *more))

    def right(self) -> Settings:
        """The settings. Raises SettingsError if anything is wrong."""
        if self.lines:
            raise SettingsError(*self.lines)
        return self.settings

    def _is_unknown(self, field: str) -> bool:
        """Whether `issuers[0].realm`, `issuers[0]` or `issuers` is unknown."""
        issuer, _, _ = field.partition(".")
        return not self.unknown.isdisjoint((field, issuer, issuer.partition("[")[0]))


def load(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings of a TOML file and of the environment. The environment wins. Raises SettingsError with all mistakes."""
    return read(config, environ).right()


def read(config: Path | None, environ: Mapping[str, str]) -> Reading:
    """Read the settings of a TOML file and of the environment. The environment wins."""
    faults = _Faults()
    in_env = _read_environ(environ, faults)
    in_file = _read_file(config, faults, in_env.keys()) if config else {}
    settings = _validate(in_file | in_env, faults)
    settings._origin.update(dict.fromkeys(in_file, "file") | dict.fromkeys(in_env, "env"))
    settings._file = config
    settings, mistakes = with_secrets(settings)
    reading = Reading(settings, faults.lines(), frozenset(faults.unknown))
    reading = reading.also(check_combinations(settings)).also(mistakes)
    return reading._replace(unknown=reading.unknown.union(*(mistake.about for mistake in mistakes)))


class _Faults:
    """Collects mistakes in names and values."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []
        #: The settings and members whose values are unknown.
        self.unknown: set[str] = set()

    def add_name(self, line: str, meant: str | None = None) -> None:
        """A line about a name or a file. The value was meant for the field `meant`."""
        self._found.append((-1, line))
        self.unknown |= {meant} if meant else set()

    def add_value(self, field: str, line: str) -> None:
        """A line about a value."""
        self._found.append((_FIELDS.index(re.split(r"[.\[]", field)[0]), line))
        self.unknown.add(field)

    def lines(self) -> tuple[str, ...]:
        """Names first, then values in the order of docs/settings.md."""
        return tuple(line for _, line in sorted(self._found, key=lambda fault: fault[0]))


# --- the environment and the file ---


def _read_environ(environ: Mapping[str, str], faults: _Faults) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in sorted(environ.items()):
        # In any case: fhircast_port was meant as a setting, and would have no effect.
        if not name.upper().startswith(PREFIX) or name in CLIENTS:
            continue
        if name not in NAMES:
            hint = nearest(name, NAMES)
            faults.add_name(unknown(plain_name(name), "setting", hint), hint and NAMES[hint])
        else:
            values[NAMES[name]] = _read_json(name, text) if NAMES[name] in LISTS else text
    return values


class _NoJson(NamedTuple):
    """A value in the place of a list, which no setting takes. The text may hold a secret, so only length and place are kept."""

    line: str


def _read_json(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        fault = f"{error.msg} at line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError) as error:
        fault = type(error).__name__
    return _NoJson(f"{name} must be a JSON list, not {len(text)} characters that are not JSON ({fault})")


def _read_file(path: Path, faults: _Faults, elsewhere: Iterable[str]) -> dict[str, Any]:
    """The values of the file. Where it cannot be read, all but the fields `elsewhere` are unknown."""
    known = _SPELLED
    file = f"settings file {shown(str(path))}"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        place = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        fault = getattr(error, "strerror", None) or place
        faults.add_name(f"{file} cannot be read as TOML in UTF-8: {fault}")
        faults.unknown |= {*_FIELDS} - {*elsewhere}
        return {}
    for key, value in table.items():
        _check_place(key, value, file, faults)
    for key in [key for key in table if key not in known]:
        hint = nearest(key, known)
        faults.add_name(unknown(f"{plain_name(key)} in {file}", "setting", hint), hint and known[hint])
    return {known[key]: value for key, value in table.items() if key in known}


def _check_place(key: str, value: object, file: str, faults: _Faults) -> None:
    """Take settings out of the tables of the file, in any case. TOML takes a line below a table's head for a member of the table."""
    tables = value if isinstance(value, list) else [value]
    head = f"the first [[{plain_name(key)}]]" if isinstance(value, list) else f"[{plain_name(key)}]"
    found: set[str] = set()
    for table in tables:
        if isinstance(table, dict):
            inside = {name for name in table if _plain(name) in _SPELLED and name not in IssuerSettings.model_fields}
            found |= {_plain(name) for name in inside}
            for name in inside:
                del table[name]
    for plain in sorted(found):
        faults.add_name(f"{plain} in {file} is a setting: put {plain} above {head}", _SPELLED[plain])


def _plain(name: str) -> str:
    """A name as the file has settings: in capitals, without prefix."""
    return name.upper().removeprefix(PREFIX)


# --- values ---


def _validate(values: dict[str, Any], faults: _Faults) -> Settings:
    """The settings of these values, with the defaults in the place of wrong ones."""
    for field in [field for field, value in values.items() if isinstance(value, _NoJson)]:
        faults.add_value(field, values.pop(field).line)
    try:
        return Settings(**values)
    except ValidationError as error:
        found = error.errors(include_url=False)
    # A misspelled member comes first, because a required member is then missing too.
    for fault in sorted(found, key=lambda fault: fault["type"] != "extra_forbidden"):
        _add(fault, faults)
    return Settings(**_without(values, [fault["loc"] for fault in found]))


def _add(fault: Mapping[str, Any], faults: _Faults) -> None:
    first, *members = fault["loc"]
    field = str(first) + "".join(f"[{part}]" if isinstance(part, int) else f".{plain_name(part)}" for part in members)
    if fault["type"] == "extra_forbidden":
        hint = nearest(str(members[-1]), IssuerSettings.model_fields)
        faults.add_value(field, unknown(full_name(field), "member", hint))
        faults.unknown |= {f"{first}[{members[0]}].{hint}"} if hint else set()
    elif fault["type"] == "missing":
        if field not in faults.unknown:  # else it is there, misspelled
            faults.add_value(field, f"{full_name(field)} is required")
    else:
        # Only the list of issuers and its items are checked by pydantic itself, all others by settings/types.py.
        ours = "a list of objects (JSON in the environment, [[ISSUERS]] in a file)" if not members else "an object"
        expected = str(fault.get("ctx", {}).get("error", ours))
        faults.add_value(field, _line(field, fault["input"], expected))


def _line(field: str, value: object, expected: str) -> str:
    if field.endswith(_SECRETS):
        return f"{full_name(field)} must be {expected}, not a value of {len(str(value))} characters"
    return wrong(field, value, expected).line


def _without(values: dict[str, Any], places: list[tuple[Any, ...]]) -> dict[str, Any]:
    """The values without those at `places`. Issuers keep their number in the list."""
    for first, *members in places:
        if not members:
            values.pop(first, None)
        elif isinstance(values.get(first), list):
            issuers = values[first] = list(values[first])
            number, *names = members
            given = issuers[number] if isinstance(issuers[number], dict) else {}
            required = {"issuer": f"https://{number}.invalid", "audience": "-"}
            left = {name: value for name, value in given.items() if name not in names}
            issuers[number] = {**required, **left}
    return values
