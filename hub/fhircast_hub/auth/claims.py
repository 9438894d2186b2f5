"""The claims of a token, read into a Principal. The caller has verified them, by signature or by introspection."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeGuard

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.errors import HubError, Unauthenticated

#: Seconds that the issuer's clock and the hub's may differ. RFC 7519 section 4.1.4: "some small leeway".
SKEW_SECONDS = 30.0

#: The last second of the year 9999. A greater date is in milliseconds, or infinite. Such a token would never expire, so it is refused.
MAX_DATE = 253_402_300_799

#: The claims with the client's id. The first that is there counts: RFC 9068 section 2.2, OpenID Connect Core section 2, Entra ID, Okta.
CLIENT_CLAIMS = ("client_id", "azp", "appid", "cid")

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

#: The error for an issuer that is not trusted.
UNKNOWN_ISSUER = "iss must be an issuer that this hub knows"
#: The errors for the claim `aud`.
NO_AUDIENCE = "aud is required: this hub's audience"
WRONG_AUDIENCE = "aud must have this hub's audience, not another"

#: Types of values, for errors.
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
    """Read a part of a JWT, or the answer to an introspection. Raises ValueError or RecursionError for anything but a JSON object.

    "Use UTF-8" (RFC 8725 section 3.7): other encodings and byte order marks are refused. "The Claim Names within a JWT Claims Set
    MUST be unique" (RFC 7519 section 4): duplicate names are refused at every depth. NaN is refused.
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
        raise Unauthenticated("exp is required")
    if now >= _date(claims, "exp") + SKEW_SECONDS:
        raise Unauthenticated("exp: the token has expired")
    for name in ("nbf", "iat"):
        if name in claims and _date(claims, name) > now + SKEW_SECONDS:
            raise Unauthenticated(f"{name}: the token is not yet valid")


def read_principal(claims: Claims, issuer: Issuer) -> Principal:
    """The bearer of the token as the core knows it (AUT-7 to AUT-11). Raises Unauthenticated that names the unreadable claim."""
    if "cnf" in claims:
        # RFC 7800 section 3.1; RFC 9449 section 6 and RFC 8705 section 3.1 bind access tokens by it.
        raise Unauthenticated(
            "cnf: the token must be a bearer token, not one that is bound to a key (DPoP or mutual TLS)"
        )
    client = client_of(claims)
    topics = _topics(claims)
    user, system = _user_or_system(claims, issuer, client, topics)
    return Principal(
        realm=issuer.realm or issuer.issuer,
        user=user,
        client=client,
        scopes=_scopes(claims),
        expires=float(_date(claims, "exp")),
        topics=topics,
        system=system,
        issuer=issuer.issuer,
    )


def client_of(claims: Claims) -> str:
    """The client's id. "": the claims have none."""
    return next((claims[name] for name in CLIENT_CLAIMS if _is_text(claims.get(name))), "")


@contextmanager
def about(issuer: Issuer, client: str = "") -> Iterator[None]:
    """Errors that are raised inside get the issuer's name, and that of the client if the issuer has proved the client."""
    try:
        yield
    except HubError as error:
        error.issuer, error.client = issuer.issuer, client or error.client
        raise


def _user_or_system(
    claims: Claims, issuer: Issuer, client: str, topics: frozenset[str] | None
) -> tuple[str | None, bool]:
    """The user, and whether the bearer is a system client. None: the token names no user."""
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
        raise Unauthenticated("client_id is required in a token that names no user")
    return None if userless else _user(claims, issuer), system


def normal_user(value: str, issuer: Issuer) -> str:
    """The form in which users of this issuer are compared (AUT-9): a fhirUser as an absolute URL, any other claim as it is.

    Raises ValueError for an empty fhirUser, and for a relative one of an issuer without `fhir_base`. The error's text follows the
    name of the claim.
    """
    if issuer.user_claim != "fhirUser":
        return value
    # SMART App Launch 2.2, "Scopes for requesting identity data": a URL. Some servers leave their FHIR base out.
    reference = value.partition("/_history/")[0].strip("/")
    if _ABSOLUTE.match(reference):
        return reference
    if not reference or not issuer.fhir_base:
        raise ValueError("must be an absolute URL, or with the issuer's fhir_base a relative one")
    return f"{issuer.fhir_base.rstrip('/')}/{reference}"


def _user(claims: Claims, issuer: Issuer) -> str:
    """The user. No other claim is a fallback: in two claims, the same text may name different people."""
    name = issuer.user_claim
    value = claims.get(name)
    if not _is_text(value):
        raise _wrong(claims, name, "the user's id")
    try:
        return normal_user(value, issuer)
    except ValueError as error:
        raise Unauthenticated(f"{name} {error}") from None


def _scopes(claims: Claims) -> Scopes:
    name = "scope" if "scope" in claims else "scp"
    granted = claims.get(name, "")
    if isinstance(granted, str):
        # RFC 6749 section 3.3: scope = scope-token *( SP scope-token ). No other white space separates two of them.
        return Scopes.parse(granted.split(" "))
    if _is_strings(granted):
        return Scopes.parse(granted)
    raise _wrong(claims, name, "a string or an array of strings")


def _topics(claims: Claims) -> frozenset[str] | None:
    """The topics that the token is limited to. None: no limit. Raises Unauthenticated for an unreadable limit, which is no absent one."""
    if "hub.topic" not in claims:
        return None
    topics = claims["hub.topic"]
    if isinstance(topics, str):
        return frozenset({topics})
    if _is_strings(topics):
        return frozenset(topics)
    raise _wrong(claims, "hub.topic", "a string or an array of strings")


def _date(claims: Claims, name: str) -> int | float:
    """A NumericDate, seconds since the epoch (RFC 7519 section 2)."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(claims, name, "a number of seconds")
    if not -MAX_DATE <= value <= MAX_DATE:  # written so that NaN is refused, too
        raise Unauthenticated(f"{name} must be seconds since 1970, not a number beyond the year 9999")
    return value


def _is_text(value: object) -> TypeGuard[str]:
    """Whether a claim can identify a user or client: not blank, and printable, for logs, headers and databases."""
    return isinstance(value, str) and value.isprintable() and not value.isspace() and value != ""


def _is_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _wrong(claims: Claims, name: str, expected: str) -> Unauthenticated:
    if name not in claims:
        return Unauthenticated(f"{name} is required: {expected}")
    return Unauthenticated(f"{name} must be {expected}, not {kind(claims[name])}")


def kind(value: object) -> str:
    """Type and length of a value, for an error. Errors never quote the value of a claim."""
    size = f" of length {len(value)}" if isinstance(value, str | list) else ""
    return _KINDS.get(type(value), "an object") + size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is there twice")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_READER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
