"""What the claims of a good token mean."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.auth.claims import MAX_DATE, check_times, normal_user, read_principal
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.errors import Unauthenticated

NOW = 1_800_000_000.0
PLAIN = Issuer("https://idp.example", "hub", system_clients=frozenset({"ehr"}))
BY_FHIR_USER = Issuer(
    "https://idp.example",
    "hub",
    user_claim="fhirUser",
    fhir_base="https://ehr.example/fhir/",
    system_clients=frozenset({"ehr"}),
)


def claims(**changes: Any) -> dict[str, Any]:
    """A user's claims, with these changes; None leaves a claim out."""
    base = {"sub": "user-1", "client_id": "app", "scope": "fhircast/*.read", "exp": NOW + 60}
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


@pytest.mark.req("AUT-1")
@pytest.mark.parametrize(
    ("dates", "check"),
    [
        ({}, "exp: expected a date, got nothing"),
        ({"exp": NOW - 30}, "exp: the token has expired"),
        ({"exp": NOW + 60, "nbf": NOW + 31}, "nbf: the token is not yet valid"),
        ({"exp": NOW + 60, "iat": NOW + 31}, "iat: the token is not yet valid"),
        ({"exp": "1900000000"}, "exp: expected a number of seconds, got a string of length 10"),
        ({"exp": True}, "exp: expected a number of seconds, got a boolean"),
        ({"exp": None}, "exp: expected a number of seconds, got null"),
        ({"exp": float("inf")}, "exp: expected seconds since 1970"),
        ({"exp": float("nan")}, "exp: expected seconds since 1970"),
        ({"exp": 10**400}, "exp: expected seconds since 1970"),
        ({"exp": NOW * 1000}, "exp: expected seconds since 1970"),
        ({"exp": NOW + 60, "nbf": [NOW]}, "nbf: expected a number of seconds, got an array of length 1"),
    ],
)
def test_dates_refused(dates: dict[str, Any], check: str) -> None:
    """A token without a date it needs, past or before its time, or with a date that is none, is refused."""
    with pytest.raises(Unauthenticated, match=check):
        check_times(dates, NOW)


@pytest.mark.req("AUT-1", "AUT-25")
@pytest.mark.parametrize(
    "dates",
    [{"exp": NOW - 29.9}, {"exp": MAX_DATE}, {"exp": NOW + 60, "nbf": NOW + 30, "iat": NOW + 30}],
)
def test_dates_accepted(dates: dict[str, Any]) -> None:
    """The clocks may be thirty seconds apart."""
    check_times(dates, NOW)


@pytest.mark.req("AUT-7")
@pytest.mark.parametrize(
    "granted",
    [
        {"scope": "openid fhircast/Patient-open.read  fhircast/*.write"},
        {"scope": ["fhircast/patient-open.read", "fhircast/*.write"]},
        {"scope": None, "scp": "fhircast/Patient-open.read fhircast/*.write"},
        {"scope": None, "scp": ["fhircast/PATIENT-open.read", "fhircast/*.write", "launch"]},
    ],
)
def test_scope_forms(granted: dict[str, Any]) -> None:
    """Scopes come as scope or scp, as a string or a list."""
    assert read_principal(claims(**granted), PLAIN).scopes == Scopes(frozenset({"patient-open"}), frozenset({"*"}))


@pytest.mark.req("AUT-6")
def test_no_scope() -> None:
    """A token without scopes, or with none of ours, may read and write nothing."""
    assert read_principal(claims(scope=None), PLAIN).scopes == Scopes()
    assert read_principal(claims(scope="fhircast/* xfhircast/*.* fhircast/*.*x"), PLAIN).scopes == Scopes()


@pytest.mark.req("AUT-6")
@pytest.mark.parametrize(
    "space", ["\xa0", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2003", "\u2028", "\u3000", ","]
)
def test_scopes_are_parted_by_spaces_only(space: str) -> None:
    """RFC 6749 section 3.3 knows U+0020: what another character parts is one scope, and none of ours."""
    for granted in (f"a{space}fhircast/*.*", f"fhircast/*.*{space}", f"fhircast-hub/sessions.write{space}a"):
        assert read_principal(claims(scope=granted), PLAIN).scopes == Scopes()
        assert read_principal(claims(scope=[granted, granted.replace(space, " ")]), PLAIN).scopes == Scopes()


@pytest.mark.req("AUT-24")
@pytest.mark.parametrize(
    "cnf", [{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, {"x5t#S256": "bw"}, {}, None, "", 0]
)
def test_a_token_that_is_bound_to_a_key(cnf: object) -> None:
    """It is not its bearer's, whatever it is bound by: the hub asks for no proof, so it cannot take such a token."""
    with pytest.raises(Unauthenticated, match=r"^cnf: expected a bearer token, got one that is bound to a key"):
        read_principal({**claims(), "cnf": cnf}, PLAIN)


@pytest.mark.req("AUT-7")
@pytest.mark.parametrize("granted", [{"scope": 7}, {"scope": ["a", 1]}, {"scope": None, "scp": {"a": "b"}}])
def test_scope_of_another_type(granted: dict[str, Any]) -> None:
    """Scopes that cannot be read make the token worthless."""
    with pytest.raises(Unauthenticated, match=r"sc(ope|p): expected a string or an array of strings, got an?"):
        read_principal(claims(**granted), PLAIN)


@pytest.mark.req("AUT-8")
@pytest.mark.parametrize(("claim", "topics"), [("t1", {"t1"}), (["t1", "t 2"], {"t1", "t 2"}), ([], set())])
def test_topics(claim: object, topics: set[str]) -> None:
    """hub.topic, a string or a list, limits the token; an empty list limits it to nothing."""
    assert read_principal(claims(**{"hub.topic": claim}), PLAIN).topics == frozenset(topics)


@pytest.mark.req("AUT-8")
def test_no_topics() -> None:
    """Without hub.topic a token is not limited by it."""
    assert read_principal(claims(), PLAIN).topics is None


@pytest.mark.req("AUT-8")
@pytest.mark.parametrize("claim", [7, ["t1", 7], {"t1": True}, None])
def test_topics_of_another_type(claim: object) -> None:
    """A limit that cannot be read never becomes no limit."""
    with pytest.raises(Unauthenticated, match=r"hub\.topic: expected a string or an array of strings, got"):
        read_principal({**claims(), "hub.topic": claim}, PLAIN)


@pytest.mark.req("AUT-9", "AUT-26")
def test_principal() -> None:
    """A user's token gives the user, the client, the issuer's realm and the date."""
    principal = read_principal(claims(), PLAIN)
    assert (principal.user, principal.client, principal.realm) == ("user-1", "app", "https://idp.example")
    assert (principal.expires, principal.system) == (NOW + 60, False)


@pytest.mark.req("AUT-9", "AUT-26")
def test_user_claim_without_fallback() -> None:
    """Where users are told apart by another claim, sub is no substitute for it."""
    by_name = Issuer("https://idp.example", "hub", user_claim="preferred_username")
    assert read_principal(claims(preferred_username="drx"), by_name).user == "drx"
    with pytest.raises(Unauthenticated, match="preferred_username: expected the user's id, got nothing"):
        read_principal(claims(), by_name)


@pytest.mark.req("AUT-9")
@pytest.mark.parametrize("value", ["", "  ", 7, ["user-1"], True, {}, "a\nb", "\ud800"])
def test_user_of_another_type(value: object) -> None:
    """Only text names a user."""
    with pytest.raises(Unauthenticated, match="sub: expected the user's id, got a"):
        read_principal(claims(sub=value), PLAIN)


@pytest.mark.req("AUT-9", "AUT-26")
@pytest.mark.parametrize("value", [{}, {"sub": None}])
def test_user_missing(value: dict[str, Any]) -> None:
    """A token without the user claim, or with null in its place, is nobody's."""
    with pytest.raises(Unauthenticated, match="sub: expected the user's id, got n"):
        read_principal({**claims(sub=None), **value}, PLAIN)


@pytest.mark.req("AUT-9", "AUT-28")
@pytest.mark.parametrize(
    ("value", "user"),
    [
        ("https://ehr.example/fhir/Practitioner/1", "https://ehr.example/fhir/Practitioner/1"),
        ("https://ehr.example/fhir/Practitioner/1/", "https://ehr.example/fhir/Practitioner/1"),
        ("https://ehr.example/fhir/Practitioner/1/_history/2", "https://ehr.example/fhir/Practitioner/1"),
        ("Practitioner/1", "https://ehr.example/fhir/Practitioner/1"),
        ("/Practitioner/1", "https://ehr.example/fhir/Practitioner/1"),
        ("urn:uuid:1", "urn:uuid:1"),
    ],
)
def test_fhir_user(value: str, user: str) -> None:
    """A fhirUser is one and the same user however its issuer writes it."""
    assert read_principal(claims(fhirUser=value), BY_FHIR_USER).user == user
    assert normal_user(value, BY_FHIR_USER) == user


@pytest.mark.req("AUT-9", "AUT-28")
def test_fhir_user_without_base() -> None:
    """A relative fhirUser of an issuer without fhir_base names nobody, nor does one that is nothing but slashes."""
    baseless = Issuer("https://idp.example", "hub", user_claim="fhirUser")
    with pytest.raises(Unauthenticated, match="fhirUser: expected an absolute URL"):
        read_principal(claims(fhirUser="Practitioner/1"), baseless)
    with pytest.raises(Unauthenticated, match="fhirUser: expected an absolute URL"):
        read_principal(claims(fhirUser="//"), BY_FHIR_USER)
    assert normal_user("user-1", PLAIN) == "user-1"


@pytest.mark.req("AUT-10")
def test_two_issuers_in_a_realm() -> None:
    """In a shared realm, tokens of two issuers name the same user, each by its own claim."""
    first = Issuer("https://a.example", "hub", realm="hospital", user_claim="sub")
    second = Issuer("https://b.example", "hub", realm="hospital", user_claim="upn")
    one = read_principal(claims(sub="drx"), first)
    two = read_principal(claims(sub="4711", upn="drx"), second)
    assert (one.realm, one.user) == (two.realm, two.user) == ("hospital", "drx")


@pytest.mark.req("AUT-11")
@pytest.mark.parametrize(
    ("issuer", "changes", "expected"),
    [
        (PLAIN, {"sub": "ehr", "client_id": "ehr"}, (None, True)),
        (PLAIN, {"sub": "app"}, (None, False)),
        (PLAIN, {"sub": "user-1", "client_id": "ehr"}, ("user-1", False)),
        (PLAIN, {"sub": "ehr", "client_id": None}, ("ehr", False)),
        (PLAIN, {"sub": None, "hub.topic": "t"}, (None, False)),
        (BY_FHIR_USER, {"sub": "ehr", "client_id": "ehr"}, (None, True)),
        (BY_FHIR_USER, {"sub": "ehr", "client_id": "ehr", "fhirUser": "urn:x"}, ("urn:x", False)),
        (BY_FHIR_USER, {"hub.topic": "t"}, (None, False)),
        (BY_FHIR_USER, {"sub": "app", "hub.topic": ["t"]}, (None, False)),
        (BY_FHIR_USER, {"fhirUser": "urn:x", "hub.topic": "t"}, ("urn:x", False)),
    ],
)
def test_who_is_a_system(issuer: Issuer, changes: dict[str, Any], expected: tuple[str | None, bool]) -> None:
    """A system client is listed, is its own subject and names no user; others without a user are merely userless."""
    principal = read_principal(claims(**changes), issuer)
    assert (principal.user, principal.system) == expected


@pytest.mark.req("AUT-11")
@pytest.mark.parametrize(
    ("issuer", "changes"),
    [
        (BY_FHIR_USER, {"sub": "app"}),
        (BY_FHIR_USER, {"sub": "user-1", "client_id": "ehr"}),
        (BY_FHIR_USER, {"sub": "", "client_id": ""}),
        (BY_FHIR_USER, {"sub": "ehr", "client_id": "ehr", "fhirUser": ""}),
        (PLAIN, {"sub": "", "client_id": ""}),
        (PLAIN, {"sub": "", "hub.topic": "t"}),
    ],
)
def test_who_is_nobody(issuer: Issuer, changes: dict[str, Any]) -> None:
    """Who lacks the user claim without being a listed system or limited to topics is refused, and so is an empty one."""
    with pytest.raises(Unauthenticated, match="expected the user's id"):
        read_principal(claims(**changes), issuer)


@pytest.mark.req("AUT-11")
@pytest.mark.parametrize(
    ("names", "client"),
    [
        ({"client_id": "a", "azp": "b"}, "a"),
        ({"azp": "b", "appid": "c", "cid": "d"}, "b"),
        ({"client_id": 7, "appid": "c"}, "c"),
        ({"cid": "d"}, "d"),
        ({}, ""),
    ],
)
def test_client(names: dict[str, Any], client: str) -> None:
    """The client is the first string among the claims that issuers name it by."""
    assert read_principal(claims(client_id=None) | names, PLAIN).client == client


@pytest.mark.req("AUT-15")
@pytest.mark.parametrize(
    ("issuer", "audience", "user_claim"),
    [
        ("", "hub", "sub"),
        ("https://i", "", "sub"),
        ("https://i", (), "sub"),
        ("https://i", ("",), "sub"),
        ("x", "hub", ""),
    ],
)
def test_issuer_that_checks_nothing(issuer: str, audience: str | tuple[str, ...], user_claim: str) -> None:
    """An issuer cannot be configured without that by which its tokens are checked."""
    with pytest.raises(ValueError, match="an issuer needs"):
        Issuer(issuer, audience, user_claim=user_claim)
