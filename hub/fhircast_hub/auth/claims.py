"""What a token's claims mean to the hub. Whoever calls this has verified them, by signature or by introspection."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeGuard

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.errors import Unauthenticated

#: Seconds that the issuer's clock and ours may be apart. RFC 7519 section 4.1.4: "some small leeway".
SKEW_SECONDS = 30.0

#: The last second of the year 9999. A greater date is in milliseconds, or infinite: refused, for it would never expire.
MAX_DATE = 253_402_300_799

#: Who the client is, by RFC 9068 section 2.2, OpenID Connect Core section 2, Entra ID and Okta, in this order.
CLIENT_CLAIMS = ("client_id", "azp", "appid", "cid")

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
}

Claims = Mapping[str, Any]


def read_object(text: bytes) -> dict[str, Any]:
    """The JSON object that somebody signed, or said of a token. Raises ValueError or RecursionError for anything else.

    "Use UTF-8" (RFC 8725 section 3.7), and no other encoding, nor a byte order mark. A name that stands twice is refused,
    wherever it stands: "The Claim Names within a JWT Claims Set MUST be unique" (RFC 7519 section 4). So is NaN.
    """
    found: object = _READER.decode(text.decode())
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def check_times(claims: Claims, now: float) -> None:
    """Raise Unauthenticated unless the token is valid at `now`, in seconds since the epoch (RFC 7519 section 4.1).

    `exp` is required; `nbf` and `iat` are optional. Each side's clock may be off by SKEW_SECONDS.
    """
    if "exp" not in claims:
        raise Unauthenticated("exp: expected a date, got nothing")
    if now >= _date(claims, "exp") + SKEW_SECONDS:
        raise Unauthenticated("exp: the token has expired")
    for name in ("nbf", "iat"):
        if name in claims and _date(claims, name) > now + SKEW_SECONDS:
            raise Unauthenticated(f"{name}: the token is not yet valid")


def read_principal(claims: Claims, issuer: Issuer) -> Principal:
    """The bearer as the rules see him (AUT-7 to AUT-11). Raises Unauthenticated for a claim that cannot be read."""
    if "cnf" in claims:
        # RFC 7800 section 3.1; RFC 9449 section 6 and RFC 8705 section 3.1 bind access tokens by it.
        raise Unauthenticated("cnf: expected a bearer token, got one that is bound to a key (DPoP or mutual TLS)")
    client = next((claims[name] for name in CLIENT_CLAIMS if _is_text(claims.get(name))), "")
    topics = _topics(claims)
    # RFC 9068 section 2.2: without a resource owner, sub "SHOULD correspond to ... the client application".
    alone = client != "" and claims.get("sub") == client
    if issuer.user_claim == "sub":
        userless = alone or ("sub" not in claims and topics is not None)
        system = alone and client in issuer.system_clients
    else:
        named = issuer.user_claim in claims
        system = alone and client in issuer.system_clients and not named
        userless = not named and (system or topics is not None)
    if userless and not client:
        raise Unauthenticated("client_id: expected one in a token that names no user, got none")
    return Principal(
        realm=issuer.realm or issuer.issuer,
        user=None if userless else _user(claims, issuer),
        client=client,
        scopes=_scopes(claims),
        expires=float(_date(claims, "exp")),
        topics=topics,
        system=system,
        issuer=issuer.issuer,
    )


def normal_user(value: str, issuer: Issuer) -> str:
    """The form in which users of this issuer are compared (AUT-9): a fhirUser as absolute URL, anything else as it is.

    Raises ValueError for a fhirUser that is empty, or relative where the issuer has no `fhir_base`.
    """
    if issuer.user_claim != "fhirUser":
        return value
    # SMART App Launch 2.2, "Scopes for requesting identity data": a URL; some servers leave their FHIR base out of it.
    reference = value.partition("/_history/")[0].strip("/")
    if _ABSOLUTE.match(reference):
        return reference
    if not reference or not issuer.fhir_base:
        raise ValueError("expected an absolute URL, or with the issuer's fhir_base a relative one; got neither")
    return f"{issuer.fhir_base.rstrip('/')}/{reference}"


def _user(claims: Claims, issuer: Issuer) -> str:
    """The user, with no fallback to any other claim: two claims may name different people alike."""
    name = issuer.user_claim
    value = claims.get(name)
    if not _is_text(value):
        raise Unauthenticated(f"{name}: expected the user's id, got {kind(claims, name)}")
    try:
        return normal_user(value, issuer)
    except ValueError as error:
        raise Unauthenticated(f"{name}: {error}") from None


def _scopes(claims: Claims) -> Scopes:
    name = "scope" if "scope" in claims else "scp"
    granted = claims.get(name, "")
    if isinstance(granted, str):
        # RFC 6749 section 3.3: scope = scope-token *( SP scope-token ). No other white space parts two of them.
        return Scopes.parse(granted.split(" "))
    if _is_strings(granted):
        return Scopes.parse(granted)
    raise Unauthenticated(f"{name}: expected a string or an array of strings, got {kind(claims, name)}")


def _topics(claims: Claims) -> frozenset[str] | None:
    """The topics that the token is limited to. A limit that cannot be read must not become no limit: it raises."""
    if "hub.topic" not in claims:
        return None
    topics = claims["hub.topic"]
    if isinstance(topics, str):
        return frozenset({topics})
    if _is_strings(topics):
        return frozenset(topics)
    raise Unauthenticated(f"hub.topic: expected a string or an array of strings, got {kind(claims, 'hub.topic')}")


def _date(claims: Claims, name: str) -> int | float:
    """A NumericDate, seconds since the epoch (RFC 7519 section 2)."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unauthenticated(f"{name}: expected a number of seconds, got {kind(claims, name)}")
    if not -MAX_DATE <= value <= MAX_DATE:  # so that NaN is refused too
        raise Unauthenticated(f"{name}: expected seconds since 1970, got a number beyond the year 9999")
    return value


def _is_text(value: object) -> TypeGuard[str]:
    """Whether this can identify someone: not blank, and nothing in it that logs, headers or databases stumble over."""
    return isinstance(value, str) and value.isprintable() and not value.isspace() and value != ""


def _is_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def kind(claims: Claims, name: str) -> str:
    """How a claim is named in a refusal: by type and length, never by value."""
    if name not in claims:
        return "nothing"
    value = claims[name]
    size = f" of length {len(value)}" if isinstance(value, str | list) else ""
    return _KINDS.get(type(value), "an object") + size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_READER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
