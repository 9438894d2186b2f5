"""Scopes: which are granted, and their meaning in words (SMART App Launch 2.2, "Scopes"; FHIRcast 3.0.0, 2.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from demo.auth.texts import Language, Text

_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}", re.ASCII)
_FHIRCAST = re.compile(r"fhircast/(\*|[a-z0-9][a-z0-9._-]{0,127})\.(read|write|\*)", re.ASCII | re.IGNORECASE)
_FHIR = re.compile(r"(patient|user)/(\*|[A-Za-z]{1,64})\.(read|write|\*|(?=[cruds])c?r?u?d?s?)(\?.*)?", re.ASCII)

_PLAIN = {
    "openid": Text("know that it is you", "vite at det er deg"),
    "profile": Text("know your name", "vite hva du heter"),
    "fhirUser": Text("know your entry in the staff directory", "se oppføringen din i ansattregisteret"),
    "launch": Text("know what is open in the record", "vite hva som er åpent i journalen"),
    "online_access": Text("stay signed in while you are", "forbli pålogget så lenge du er det"),
    "offline_access": Text("stay signed in when you have left", "forbli pålogget når du har gått"),
}
_THINGS = {
    "patient": Text("a patient", "en pasient"),
    "encounter": Text("an encounter", "en konsultasjon"),
    "imagingstudy": Text("an imaging study", "en bildeundersøkelse"),
    "diagnosticreport": Text("a report", "en rapport"),
}
_DEEDS = {
    "open": Text("{} is opened", "{} åpnes"),
    "close": Text("{} is closed", "{} lukkes"),
    "update": Text("{} is changed", "{} endres"),
    "select": Text("something is selected in {}", "noe velges i {}"),
}
_NAMED = {"userlogout": Text("you log out", "du logger ut")}
_EVERYTHING = Text("something happens in the session", "noe skjer i økten")
_EVENT = Text("{} happens", "{} skjer")
_HEAR = Text("be told when {}", "få vite når {}")
_TELL = Text("tell your other applications when {}", "si fra til de andre programmene dine når {}")
_HEAR_AND_TELL = Text("be told, and tell your other applications, when {}", "få vite, og si fra, når {}")
_READ, _WRITE, _READ_AND_WRITE = (
    Text("read {what} {whose}", "lese {what} {whose}"),
    Text("change {what} {whose}", "endre {what} {whose}"),
    Text("read and change {what} {whose}", "lese og endre {what} {whose}"),
)
_WHOSE = {
    "patient": Text("of the open patient", "for den åpne pasienten"),
    "user": Text("that you may see", "som du har tilgang til"),
}
_EVERY_RESOURCE = Text("everything", "alt")
_RESOURCES = {
    "DiagnosticReport": Text("reports", "rapporter"),
    "Observation": Text("measurements and findings", "målinger og funn"),
}


def parse(text: str) -> tuple[str, ...]:
    """The scopes of a request, each once. Raises ValueError for characters that RFC 6749 section 3.3 forbids."""
    scopes = tuple(dict.fromkeys(scope for scope in text.split(" ") if scope))
    if len(scopes) > 100 or not all(_TOKEN.fullmatch(scope) for scope in scopes):
        raise ValueError("scope must have at most 100 names, separated by single spaces")
    return scopes


def allowed(asked: Iterable[str], most: Iterable[str]) -> tuple[str, ...]:
    """The scopes of `asked` that `most` covers, as they were asked for."""
    rules = tuple(most)
    return tuple(scope for scope in asked if any(_covers(rule, scope) for rule in rules))


def _covers(rule: str, scope: str) -> bool:
    if rule == scope:
        return True
    if (wide := _FHIRCAST.fullmatch(rule)) and (narrow := _FHIRCAST.fullmatch(scope)):
        return all(a == "*" or a.lower() == b.lower() for a, b in zip(wide.groups(), narrow.groups(), strict=True))
    if (wide := _FHIR.fullmatch(rule)) and (narrow := _FHIR.fullmatch(scope)):
        same = wide[1] == narrow[1] and wide[2] in {"*", narrow[2]} and wide[4] in {None, narrow[4]}
        return same and _rights(narrow[3]) <= _rights(wide[3])
    return False


def _rights(text: str) -> set[str]:
    """SMART App Launch 2.2, "Scopes for requesting FHIR Resources": names of version 1 as the letters of version 2."""
    return set({"read": "rs", "write": "cud", "*": "cruds"}.get(text, text))


def has_fhircast(scopes: Iterable[str]) -> bool:
    """Whether a FHIRcast session is of use with these scopes."""
    return any(_FHIRCAST.fullmatch(scope) for scope in scopes)


def without_writing(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes without the right to publish events; `fhircast/*.*` becomes `fhircast/*.read`."""
    kept = []
    for scope in scopes:
        found = _FHIRCAST.fullmatch(scope)
        if not found or found[2].lower() == "read":
            kept.append(scope)
        elif found[2] == "*":
            kept.append(f"fhircast/{found[1]}.read")
    return tuple(dict.fromkeys(kept))


def in_words(scopes: Iterable[str], language: Language) -> list[str]:
    """The scopes in words, each once. Unknown scopes as written."""
    return list(dict.fromkeys(_in_words(scope, language) for scope in scopes))


def _in_words(scope: str, language: Language) -> str:
    if plain := _PLAIN.get(scope):
        return plain.to(language)
    if found := _FHIRCAST.fullmatch(scope):
        sentence = {"read": _HEAR, "write": _TELL}.get(found[2].lower(), _HEAR_AND_TELL)
        return sentence.to(language).format(_event(found[1], language))
    if found := _FHIR.fullmatch(scope):
        known = _EVERY_RESOURCE if found[2] == "*" else _RESOURCES.get(found[2])
        what = known.to(language) if known else found[2]
        return _access(found[3]).to(language).format(what=what, whose=_WHOSE[found[1]].to(language))
    return scope


def _event(name: str, language: Language) -> str:
    thing, _, deed = name.lower().partition("-")
    if name == "*":
        return _EVERYTHING.to(language)
    if thing in _THINGS and deed in _DEEDS:
        return _DEEDS[deed].to(language).format(_THINGS[thing].to(language))
    return _NAMED.get(thing, _EVENT).to(language).format(name)


def _access(rights: str) -> Text:
    reads, writes = _rights(rights) & set("rs"), _rights(rights) & set("cud")
    if reads and writes:
        return _READ_AND_WRITE
    return _WRITE if writes else _READ
