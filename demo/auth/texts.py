"""The texts of the pages, in English and in Norwegian."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Language = Literal["en", "no"]

#: Their names in HTML's lang attribute.
LANG = {"en": "en", "no": "nb"}
#: The tags by which users ask for them.
TAGS: dict[str, Language] = {"en": "en", "no": "no", "nb": "no", "nn": "no"}

_WEIGHT = re.compile(r"q=([01](?:\.\d{0,3})?)", re.ASCII)


class Text(NamedTuple):
    """The same in both languages."""

    en: str
    no: str

    def to(self, language: Language) -> str:
        """In this language."""
        return self.no if language == "no" else self.en


TEXTS = {
    "sign_in": Text("Who are you?", "Hvem er du?"),
    "sign_in_for": Text("to go on to {app}", "for å gå videre til {app}"),
    "no_password": Text(
        "This is a demonstration: there is no password.", "Dette er en demonstrasjon: det er ikke noe passord."
    ),
    "consent": Text("{app} asks for your permission", "{app} ber om din tillatelse"),
    "signed_in_as": Text("You are signed in as {name}.", "Du er logget inn som {name}."),
    "wants": Text("It wants to:", "Det ønsker å:"),
    "remembered": Text(
        "Your answer is remembered until this server stops.", "Svaret huskes til denne tjeneren stopper."
    ),
    "allow": Text("Allow", "Tillat"),
    "deny": Text("Do not allow", "Ikke tillat"),
    "somebody_else": Text("I am somebody else", "Jeg er en annen"),
    "error": Text("This did not work", "Dette gikk ikke"),
    "error_help": Text("Go back to the application and begin again.", "Gå tilbake til programmet og begynn på nytt."),
    "switches": Text("What goes wrong", "Hva som går galt"),
    "switches_help": Text(
        "This server fails on request, as real ones do. Nothing is changed in tokens that were given before.",
        "Denne tjeneren feiler på bestilling, slik ekte tjenere gjør. Tokener som er gitt før, endres ikke.",
    ),
    "all_well": Text("Now: everything works.", "Nå: alt virker."),
    "now_on": Text("Now on:", "På nå:"),
    "on": Text("on", "på"),
    "off": Text("off", "av"),
    "save": Text("Save", "Lagre"),
    "reset": Text("Reset all", "Tilbakestill alt"),
    "unknown_client": Text("No such application is registered here.", "Et slikt program er ikke registrert her."),
    "unknown_redirect": Text(
        "The application wants the answer at an address that is not registered for it.",
        "Programmet vil ha svaret til en adresse som ikke er registrert for det.",
    ),
    "repeated": Text("A parameter came twice.", "En parameter kom to ganger."),
    "too_old": Text("This page is too old.", "Denne siden er for gammel."),
    "bad_form": Text("This form is not from here.", "Dette skjemaet er ikke herfra."),
}


def preferred(ui_locales: str, accept_language: str) -> Language:
    """The preferred language among those that exist. The request's parameter counts before the header."""
    for tag in [*ui_locales.split(), *_by_weight(accept_language)]:
        if found := TAGS.get(tag.partition("-")[0].lower()):
            return found
    return "en"


def _by_weight(accept_language: str) -> list[str]:
    """The tags of an Accept-Language header (RFC 9110 section 12.5.4), the preferred first."""
    weighted = []
    for item in accept_language[:200].split(","):
        tag, _, weight = item.strip().partition(";")
        found = _WEIGHT.fullmatch(weight.strip())
        weighted.append((float(found[1]) if found else 1.0, tag.strip()))
    return [tag for weight, tag in sorted(weighted, key=lambda each: -each[0]) if weight > 0]
