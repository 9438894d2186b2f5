"""Failures on request, as they happen at real servers. Each server has its own switches."""

from __future__ import annotations

from dataclasses import dataclass

from demo.auth.texts import Text


@dataclass
class Switches:
    """The switches that are on."""

    single_sign_on: bool = False
    expired_token: bool = False
    unknown_key: bool = False
    scope_withheld: bool = False
    slow: bool = False
    down: bool = False


#: Their names, and their effects.
LABELS: dict[str, tuple[Text, Text]] = {
    "single_sign_on": (
        Text("Single sign-on", "Felles pålogging"),
        Text(
            "Whom the application names is signed in without being asked.",
            "Den som programmet navngir, logges inn uten å bli spurt.",
        ),
    ),
    "expired_token": (
        Text("Expired token", "Utløpt token"),
        Text("New access tokens have expired already.", "Nye tilgangstokener er allerede utløpt."),
    ),
    "unknown_key": (
        Text("Unknown key", "Ukjent nøkkel"),
        Text(
            "New tokens are signed with a key that is not published.",
            "Nye tokener signeres med en nøkkel som ikke er publisert.",
        ),
    ),
    "scope_withheld": (
        Text("Scope withheld", "Rettighet holdes tilbake"),
        Text(
            "New access tokens may follow the session, and tell the others nothing.",
            "Nye tilgangstokener kan følge økten, men ikke si noe til de andre.",
        ),
    ),
    "slow": (
        Text("Slow", "Treg"),
        Text("Tokens and keys take five seconds.", "Tokener og nøkler tar fem sekunder."),
    ),
    "down": (
        Text("Down", "Nede"),
        Text("Everything but this page answers 503.", "Alt utenom denne siden svarer 503."),
    ),
}
