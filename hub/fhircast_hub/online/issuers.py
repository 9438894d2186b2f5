"""Checks of issuers: discovery, keys, introspection, and the login of the console."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx

from fhircast_hub.auth.discovery import LOGIN_ENDPOINTS, WELL_KNOWN, FetchError, discover, get_object, is_secure
from fhircast_hub.auth.introspection import ADVICE, CHECK_PATH, Introspector
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwks import read_keys
from fhircast_hub.online.finding import Failed, Finding, Unreached, found, quoted, unreached
from fhircast_hub.settings.settings import Settings
from fhircast_hub.settings.types import mask


class IssuerCheck:
    """The checks of one issuer, which is number `index` in FHIRCAST_ISSUERS."""

    def __init__(self, settings: Settings, index: int, client: httpx.AsyncClient) -> None:
        self._issuer = Issuer(**settings.issuers[index].plain())
        self._client = client
        self._allow_insecure = settings.allow_insecure
        self._name = f"FHIRCAST_ISSUERS[{index}] {self._issuer.issuer}"

    async def findings(self) -> list[Finding]:
        """One for discovery unless jwks_uri is set, one for the keys, and one for introspection where the issuer has it."""
        made = []
        uri = self._issuer.jwks_uri
        if uri is None:
            discovered: list[str] = []
            made.append(await found(f"{self._name} discovery", self._discover(discovered)))
            uri = discovered[0] if discovered else None
        if uri is not None:
            made.append(await found(f"{self._name} keys at {mask(uri)}", self._keys(uri)))
        return made

    async def introspection(self) -> list[Finding]:
        """One where the issuer has introspection."""
        if self._issuer.introspection_endpoint is None:
            return []
        what = f"{self._name} introspection at {self._issuer.introspection_endpoint}"
        return [await found(what, self._introspect())]

    async def _discover(self, discovered: list[str]) -> str:
        """Which document has the jwks_uri, which is put into `discovered`. Raises Failed."""
        faults = []
        for path in WELL_KNOWN:
            try:
                document = await self._get(self._issuer.issuer.rstrip("/") + path)
            except Unreached:
                raise  # the other document is at the same server
            except Failed as error:
                faults.append(f"{path} {error.said}")
                continue
            if fault := _fault(document, self._issuer.issuer):
                faults.append(f"{path} {fault}")
                continue
            discovered.append(document["jwks_uri"])
            return f"{path} names {mask(document['jwks_uri'])}"
        raise Failed(", ".join(faults), "check issuer letter by letter, or set jwks_uri")

    async def _keys(self, uri: str) -> str:
        document = await self._get(uri)
        try:
            keys = read_keys(document)
        except FetchError:
            raise Failed("answered no JWK Set", "check jwks_uri") from None
        total = len(document["keys"])
        if not keys:
            needed = "the hub needs public keys for signatures: RSA from 2048 bits, EC P-256 to P-521, Ed25519 or Ed448"
            raise Failed(f"{total} keys, and none is usable", needed)
        algorithms = sorted(frozenset().union(*(key.algorithms for key in keys)))
        return f"{len(keys)} of {total} keys are usable, for {', '.join(algorithms)}"

    async def _introspect(self) -> str:
        """Ask about a made-up token, which must be inactive."""
        issuer = self._issuer
        try:
            answer = await Introspector(issuer, self._client, lambda: 0.0).introspect(secrets.token_urlsafe(24))
        except FetchError as error:
            said = str(error)
            advice = "set the address that it leads to" if said.startswith("answered 3") else "see the server's log"
            raise Failed(said, ADVICE.get(said, advice)) from None
        match answer.get("active"):
            case False:
                return "a made-up token is inactive"
            case True:
                raise Failed("a made-up token is active", "the endpoint must not take every token")
        raise Failed("the answer has no active, as RFC 7662 wants it", CHECK_PATH)

    async def _get(self, url: str) -> dict[str, Any]:
        try:
            return await get_object(url, self._client, self._allow_insecure)
        except FetchError as error:
            raise unreached(error.__cause__) if error.__cause__ else Failed(str(error)) from None


def _fault(document: dict[str, Any], issuer: str) -> str:
    """Why a document of discovery does not count. "": it does."""
    named = document.get("issuer")
    if not isinstance(document.get("jwks_uri"), str):
        return "has no jwks_uri"
    if named == issuer:
        return ""
    return f"is of the issuer {quoted(named)}" if isinstance(named, str) else "names no issuer"


def issuer_checks(settings: Settings, client: httpx.AsyncClient) -> Iterator[IssuerCheck]:
    """The checks of all issuers."""
    return (IssuerCheck(settings, index, client) for index in range(len(settings.issuers)))


async def check_login(settings: Settings, client: httpx.AsyncClient) -> list[Finding]:
    """One where operators log in by an authorization server (CSL-10)."""
    if not (settings.console and settings.console_client_id and settings.issuers):
        return []
    issuer = settings.console_issuer or settings.issuers[0].issuer
    return [await found(f"FHIRCAST_CONSOLE login at {issuer}", _login(issuer, client, settings.allow_insecure))]


async def _login(issuer: str, client: httpx.AsyncClient, allow_insecure: bool) -> str:
    """The endpoints. Raises Failed."""
    advice = "the console's page finds no login; check the server's discovery, or set FHIRCAST_CONSOLE_ISSUER"
    until = "until then the console's page finds no login"
    try:
        document = await discover(issuer, client, LOGIN_ENDPOINTS, allow_insecure=allow_insecure)
    except FetchError as error:
        if error.__cause__ is None:
            raise Failed(str(error), advice) from None
        away = unreached(error.__cause__)
        raise Failed(away.said, "; ".join(filter(None, (away.advice, until)))) from None
    for name in LOGIN_ENDPOINTS:
        if not is_secure(document[name], allow_insecure=allow_insecure):
            raise Failed(f"{name} is no https address", advice)
    methods = document.get("code_challenge_methods_supported")
    if methods is not None and not (isinstance(methods, list) and "S256" in methods):
        raise Failed("code_challenge_methods_supported has no S256", "allow PKCE with S256 at the server")
    return ", ".join(f"{name} {mask(document[name])}" for name in LOGIN_ENDPOINTS)
