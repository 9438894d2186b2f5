"""Refusals: why no local id was found, in sentences for users. No sentence contains a value of the patient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fhircast_client import Refuse

_NOUNS = {"Patient": ("patient", "patients"), "ImagingStudy": ("study", "studies")}
_UNCERTAIN = "It is not certain which one is meant."


class NoMatch(Refuse):
    """No local id has the identifier, or the event has no identifier that a rule selects."""


class SeveralMatches(Refuse):
    """The event means several patients or studies, or may mean several."""


class Mismatch(Refuse):
    """Found by the identifier, but the demographics differ. `differing`: of family name, birth date, gender."""

    def __init__(self, reason: str, differing: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.differing = differing


class LookupFailed(Refuse):
    """The lookup failed. This says nothing about the patient."""


def noun(kind: str, *, several: bool = False) -> str:
    """A clinician's word for a resource type."""
    return _NOUNS.get(kind, (kind, f"{kind} records"))[several]


def no_rule(kind: str) -> NoMatch:
    return NoMatch(f"This application does not look up any {noun(kind)}.")


def not_named(kind: str) -> NoMatch:
    return NoMatch(f"The message names no {noun(kind)}.")


def not_sent() -> NoMatch:
    return NoMatch("The message has no patient or study to look up.")


def several_named(kind: str) -> SeveralMatches:
    return SeveralMatches(f"The message names several {noun(kind, several=True)}. {_UNCERTAIN}")


def no_identifier(kind: str, labels: Iterable[str]) -> NoMatch:
    sentence = f"The {noun(kind)} was sent without an identifier that is understood here."
    return NoMatch(f"{sentence} Send {' or '.join(labels)}.")


def unknown(kind: str, label: str) -> NoMatch:
    return NoMatch(f"No {noun(kind)} here has the {label} that was sent.")


def several(kind: str, label: str) -> SeveralMatches:
    return SeveralMatches(f"Several {noun(kind, several=True)} here have the {label} that was sent. {_UNCERTAIN}")


def conflicting(kind: str, label: str) -> SeveralMatches:
    many = noun(kind, several=True)
    return SeveralMatches(f"Several values were sent as {label}, and they lead to different {many} here. {_UNCERTAIN}")


def partly_known(kind: str, label: str) -> SeveralMatches:
    return SeveralMatches(
        f"Several values were sent as {label}, and only some of them lead to a {noun(kind)} here. {_UNCERTAIN}"
    )


def too_many(kind: str, label: str) -> SeveralMatches:
    return SeveralMatches(f"The {noun(kind)} was sent with too many values as {label}. {_UNCERTAIN}")


def differ(kind: str, differing: tuple[str, ...]) -> Mismatch:
    what = listed(differing).capitalize()
    here = "the patient found here" if kind == "Patient" else f"the patient of the {noun(kind)} found here"
    verb = "differs" if len(differing) == 1 else "differ"
    return Mismatch(f"{what} {verb} between the patient that was sent and {here}.", differing)


def another_subject(kind: str) -> Mismatch:
    return Mismatch(f"The {noun(kind)} that was sent belongs to another patient than the one sent with it.", ())


def sources_differ(kind: str, differing: tuple[str, ...]) -> Mismatch:
    return Mismatch(f"The sources here do not agree on the {listed(differing)} of this {noun(kind)}.", differing)


def several_known(kind: str) -> SeveralMatches:
    return SeveralMatches(f"Several {noun(kind, several=True)} here have this id. {_UNCERTAIN}")


def not_here(kind: str) -> NoMatch:
    return NoMatch(f"This {noun(kind)} is not known here, so it cannot be shared.")


def failed(kind: str, source: str) -> LookupFailed:
    return LookupFailed(f"The {noun(kind)} could not be looked up: {source} gave no usable answer. Try again later.")


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
