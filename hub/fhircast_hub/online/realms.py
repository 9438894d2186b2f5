"""Realms: which issuers share their users, and realms whose names were perhaps meant to be one."""

from __future__ import annotations

from fhircast_hub.online.finding import NOTE, WARNING, Finding, quoted
from fhircast_hub.settings.issuers import IssuerSettings
from fhircast_hub.settings.realms import Near, near_names
from fhircast_hub.settings.settings import Settings


def check_realms(settings: Settings) -> list[Finding]:
    """One for each realm, and one for each group of names that are nearly alike. A single issuer needs none."""
    if len(settings.issuers) < 2:
        return []
    realms: dict[str, list[IssuerSettings]] = {}
    for issuer in settings.issuers:
        realms.setdefault(issuer.realm_name, []).append(issuer)
    return [*(_realm(*each) for each in realms.items()), *map(_near, near_names(settings.issuers))]


def _realm(realm: str, issuers: list[IssuerSettings]) -> Finding:
    said = ", ".join(f"{issuer.issuer} (user_claim {issuer.user_claim})" for issuer in issuers)
    advice = "these issuers share their users" if len(issuers) > 1 else "its users are of this issuer alone"
    return Finding(True, f"FHIRCAST_ISSUERS realm {quoted(realm)}", said, advice, NOTE)


def _near(near: Near) -> Finding:
    return Finding(True, f"FHIRCAST_ISSUERS {near.what}", near.said, near.advice, WARNING)
