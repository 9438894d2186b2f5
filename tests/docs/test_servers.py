"""The pages about authorization servers: the hub takes the tokens they show, and says the sentences they quote."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.verifier import Verifier
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import check_scoped
from fhircast_hub.core.errors import HubError
from fhircast_hub.settings.reading import load
from tests.auth.jwt_world import segment
from tests.docs.blocks import titled
from tests.docs.checks import settings_file
from tests.tokens import Idp
from tools.site import ROOT

KEYCLOAK, ENTRA, PING, HELSEID, LAUNCH = (
    f"docs/how-to/{name}.md" for name in ("keycloak", "entra-id", "pingfederate", "helseid", "smart-launch")
)
PAGES = (KEYCLOAK, ENTRA, PING, HELSEID, LAUNCH)
HUB = "https://hub.hospital.example/api/hub"
EHR = "https://ehr.hospital.example/oauth2"
#: The person of all pages.
USER = "9144889"
OPAQUE = "an-opaque-token"

NO_SCOPE = "this token has no FHIRcast scope, such as fhircast/Patient-open.read"
NO_AUDIENCE = "aud is required: this hub's audience"
OTHER_AUDIENCE = "aud must have this hub's audience, not another"
UNKNOWN = "iss must be an issuer that this hub knows"
SLASH = f"{UNKNOWN}, and this one differs from such an issuer by the slash at its end"
BOUND = "cnf: the token must be a bearer token, not one that is bound to a key (DPoP or mutual TLS)"
NO_NUMBER = "hpr_number is required: the user's id"


class Token(NamedTuple):
    """How a token differs from the page's: claims (None leaves one out), its header, and who signed it how."""

    claims: dict[str, Any] = {}  # noqa: RUF012
    header: dict[str, Any] = {}  # noqa: RUF012
    signer: str = "right"


#: By page: each sentence, and a token of which the hub says the sentence.
REFUSALS: Mapping[str, Mapping[str, Token]] = {
    KEYCLOAK: {
        OTHER_AUDIENCE: Token({"aud": "account"}),
        NO_AUDIENCE: Token({"aud": None}),
        NO_NUMBER: Token({"hpr_number": None}),
        "hpr_number must be the user's id, not a number": Token({"hpr_number": 9144889}),
        "hpr_number must be the user's id, not an array of length 1": Token({"hpr_number": [USER]}),
        UNKNOWN: Token({"iss": "https://keycloak.internal.example/realms/clinical"}),
        SLASH: Token({"iss": "https://login.hospital.example/realms/clinical/"}),
        BOUND: Token({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
        "typ must be JWT, at+jwt or application/at+jwt, not a string of length 10": Token({}, {"typ": "logout+jwt"}),
        NO_SCOPE: Token({"scope": "openid profile"}),
    },
    ENTRA: {
        UNKNOWN: Token({"iss": "https://sts.windows.net/11111111-2222-3333-4444-555555555555/"}),
        SLASH: Token({"iss": "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0/"}),
        OTHER_AUDIENCE: Token({"aud": "00000003-0000-0000-c000-000000000000"}),
        "extn.hprNumber is required: the user's id": Token({"extn.hprNumber": None}),
        "extn.hprNumber must be the user's id, not an array of length 1": Token({"extn.hprNumber": [USER]}),
        "signature: not made with the issuer's key": Token(signer="forged"),
        "kid: the issuer has no such key": Token({}, {"kid": "own"}),
        NO_SCOPE: Token({"scp": "User.Read"}),
    },
    PING: {
        NO_AUDIENCE: Token({"aud": None}),
        OTHER_AUDIENCE: Token({"aud": "https://files.hospital.example"}),
        NO_NUMBER: Token({"hpr_number": None}),
        "hpr_number must be the user's id, not a string of length 0": Token({"hpr_number": ""}),
        "hpr_number must be the user's id, not an array of length 1": Token({"hpr_number": [USER]}),
        "the token is not active, as its issuer says": Token({"active": False}),
        "alg must be an asymmetric algorithm, not HS256": Token({}, {"alg": "HS256"}),
        "kid: the issuer has no such key": Token({}, {"kid": "other"}),
        NO_SCOPE: Token({"scope": "openid"}),
    },
    HELSEID: {
        UNKNOWN: Token({"iss": "https://helseid-sts.nhn.no"}),
        BOUND: Token({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
        NO_NUMBER: Token({"hpr_number": None}),
        NO_SCOPE: Token({"scope": "hospital:fhircast/patient-open"}),
    },
    LAUNCH: {
        OTHER_AUDIENCE: Token({"aud": "https://pacs.hospital.example/fhir"}),
        NO_AUDIENCE: Token({"aud": None}),
        NO_SCOPE: Token({"scope": "launch patient/*.rs"}),
    },
}
CASES = [(page, sentence) for page, sentences in REFUSALS.items() for sentence in sentences]


def object_of(page: str, title: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(titled(page, title).text)
    return found


def issuers_of(page: str, folder: Path, title: str = "hub.toml") -> list[Issuer]:
    """The issuers of the page's settings, as the hub reads them."""
    path = settings_file(titled(page, title).text, folder)
    return [Issuer(**each.plain()) for each in load(path, {}).issuers]


class World:
    """All servers of the pages: each has one key, `idp`'s, and answers about opaque tokens with `answer`."""

    def __init__(self) -> None:
        self.idp, self.forger = Idp(), Idp()
        self.answer: dict[str, Any] = {}
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self._respond))

    def _respond(self, request: httpx.Request) -> httpx.Response:
        base, _, document = str(request.url).partition("/.well-known/")
        if document == "openid-configuration":
            return httpx.Response(200, json={"issuer": base, "jwks_uri": f"{base}/keys"})
        if request.url.path.endswith("/introspect.oauth2"):
            return httpx.Response(200, json=self.answer)
        return httpx.Response(404 if document else 200, json=self.idp.jwks())

    def signed(self, claims: Mapping[str, Any], change: Token) -> str:
        """A token of these claims that is good for an hour, with the change."""
        given = {"client_id": None, "sub": None, "scope": None, **claims, "exp": time.time() + 3600, **change.claims}
        if change.header.get("alg") == "HS256":
            return symmetric(given)
        return (self.idp if change.signer == "right" else self.forger).token(**given, headers=change.header)


def symmetric(claims: Mapping[str, Any]) -> str:
    """A token that says HS256 in its header. The hub looks at no signature of such a token."""
    return ".".join([segment({"alg": "HS256"}), segment(dict(claims)), segment(b"no signature")])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with world.client:
        yield world


async def entered(world: World, issuers: list[Issuer], token: str) -> Principal:
    """The bearer of the token, who has a scope. Raises HubError otherwise."""
    verifier = Verifier(issuers, world.client, time.time)
    try:
        principal = await verifier.verify(token)
        check_scoped(principal.scopes)
        return principal
    finally:
        await verifier.aclose()


@pytest.mark.req("AUT-26", "AUT-10")
@pytest.mark.parametrize("page", PAGES)
async def test_the_token_of_the_page_is_the_users(page: str, world: World, tmp_path: Path) -> None:
    """The same user as in the EHR's token, so both share sessions."""
    issuers = issuers_of(page, tmp_path)
    token = world.signed(object_of(page, "access token"), Token())
    ehr = world.signed({"iss": EHR, "aud": HUB, "hpr_number": USER, "scope": "fhircast/*.read"}, Token())
    first, second = [await entered(world, issuers, each) for each in (token, ehr)]
    assert (first.realm, first.user) == (second.realm, second.user) == ("hospital", USER)
    assert first.client
    assert {"patient-open"} == first.scopes.read == first.scopes.write


@pytest.mark.req("AUT-1", "AUT-6", "AUT-26")
async def test_the_token_of_all_servers_has_what_is_needed_and_no_more(world: World) -> None:
    """The hub takes the token of docs/issuers.md. Without any claim that the table demands, the hub refuses the token."""
    claims = object_of("docs/issuers.md", "access token")
    issuers = [Issuer(EHR, HUB, realm="hospital", user_claim="hpr_number")]
    principal = await entered(world, issuers, world.signed(claims, Token()))
    assert (principal.user, principal.client) == (USER, "viewer")
    for name in ("iss", "aud", "exp", "scope", "hpr_number"):
        with pytest.raises(HubError):
            await entered(world, issuers, world.signed(claims, Token({name: None})))


@pytest.mark.req("OPS-17")
@pytest.mark.parametrize(("page", "sentence"), CASES)
async def test_the_hub_says_what_the_page_quotes(page: str, sentence: str, world: World, tmp_path: Path) -> None:
    change = REFUSALS[page][sentence]
    issuers = issuers_of(page, tmp_path)
    token = world.signed(object_of(page, "access token"), change)
    if "active" in change.claims:
        issuers = issuers_of(page, tmp_path, "hub.toml, for reference tokens")
        world.answer, token = change.claims, OPAQUE
    with pytest.raises(HubError) as error:
        await entered(world, issuers, token)
    assert str(error.value) == sentence


@pytest.mark.parametrize("page", PAGES)
def test_a_page_quotes_no_other_sentences(page: str) -> None:
    table = (ROOT / page).read_text(encoding="utf-8").partition("## Refusals\n")[2]
    assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) == list(REFUSALS[page])


@pytest.mark.req("AUT-14")
async def test_the_answer_of_introspection_is_the_users(world: World, tmp_path: Path) -> None:
    issuers = issuers_of(PING, tmp_path, "hub.toml, for reference tokens")
    world.answer = object_of(PING, "answer of introspection") | {"exp": time.time() + 3600}
    principal = await entered(world, issuers, OPAQUE)
    assert (principal.realm, principal.user, principal.client) == ("hospital", USER, "viewer")


@pytest.mark.req("AUT-24")
async def test_a_token_of_helseid_is_refused_for_both_reasons(world: World, tmp_path: Path) -> None:
    """By an issuer of the hub: the key first, and without the key the scopes."""
    claims = object_of(HELSEID, "access token of HelseID")
    (issuer,) = [each for each in issuers_of(HELSEID, tmp_path) if each.issuer != EHR]
    name = "helseid://claims/hpr/hpr_number"
    helseid = Issuer(claims["iss"], claims["aud"], realm=issuer.realm, user_claim=name)
    for change, sentence in ((Token(), BOUND), (Token({"cnf": None}), NO_SCOPE)):
        with pytest.raises(HubError) as error:
            await entered(world, [helseid], world.signed(claims, change))
        assert str(error.value) == sentence


def test_the_launch_token_passes_by_the_second_audience_alone(tmp_path: Path) -> None:
    (issuer,) = issuers_of(LAUNCH, tmp_path)
    assert issuer.audience == (HUB, object_of(LAUNCH, "access token")["aud"])
    assert set(object_of(LAUNCH, "claim")["aud"]) == set(issuer.audience)


def test_keycloaks_scopes_are_what_the_settings_ask_for(tmp_path: Path) -> None:
    """The mappers' audience and claim are those of the page's issuer. Other scopes have FHIRcast's names."""
    (issuer,) = [each for each in issuers_of(KEYCLOAK, tmp_path) if each.issuer != EHR]
    first, *others = object_of(KEYCLOAK, "fhircast-scopes.json")["clientScopes"]
    audience, number = first["protocolMappers"]
    assert {each["protocol"] for each in (first, audience, number, *others)} == {"openid-connect"}
    assert (audience["protocolMapper"], number["protocolMapper"]) == (
        "oidc-audience-mapper",
        "oidc-usermodel-attribute-mapper",
    )
    assert audience["config"]["included.custom.audience"] == issuer.audience
    assert number["config"]["claim.name"] == issuer.user_claim
    assert number["config"]["user.attribute"] == object_of(KEYCLOAK, "attribute")["name"]
    assert number["config"]["jsonType.label"] == "String"
    assert all(each["config"]["access.token.claim"] == "true" for each in (audience, number))
    assert all(re.fullmatch(r"fhircast/[A-Za-z]+-(open|close)\.(read|write)", each["name"]) for each in others)
    assert all(each["attributes"]["include.in.token.scope"] == "true" for each in others)


def test_no_user_may_change_the_number_at_keycloak() -> None:
    assert object_of(KEYCLOAK, "attribute")["permissions"]["edit"] == ["admin"]
    assert re.fullmatch(object_of(KEYCLOAK, "attribute")["validations"]["pattern"]["pattern"], USER)


def test_entra_ids_manifest_and_the_settings_are_of_one_application(tmp_path: Path) -> None:
    (issuer,) = [each for each in issuers_of(ENTRA, tmp_path) if each.issuer != EHR]
    (claim,) = object_of(ENTRA, "manifest")["optionalClaims"]["accessToken"]
    assert isinstance(issuer.audience, str)
    _, application, name = claim["name"].split("_")
    assert application == issuer.audience.replace("-", "")
    assert issuer.user_claim == f"extn.{name}"
