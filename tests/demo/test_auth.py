"""The demo's authorization server grants tokens by SMART App Launch 2.2."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from demo.auth import AuthServer, Client, Text
from demo.auth.scopes import allowed
from tests.demo.auth_world import read
from tests.running import Clock
from tests.smart_client import AUDIENCE, BACK, CLIENTS, SECRET, User, answer, auth_server, listen, serving

EVERYTHING = "openid profile fhirUser offline_access fhircast/*.*"


@pytest.fixture
def clock() -> Clock:
    """The server's."""
    return Clock()


@pytest.fixture
async def server(clock: Clock) -> AsyncIterator[AuthServer]:
    """One that runs, without a hub."""
    listener = listen()
    async with serving(
        auth_server(listener, clock=clock, frame_origins=("http://localhost:8081",)), listener
    ) as server:
        yield server


@pytest.fixture
async def user(server: AuthServer) -> AsyncIterator[User]:
    """A browser that nobody is signed in to, with the viewer."""
    async with User(server) as user:
        yield user


async def launched(server: AuthServer, clinician: str = "nygaard", **members: Any) -> tuple[int, dict[str, Any]]:
    """POST /launch by the EHR of this clinician; status and answer."""
    async with User(server, "ehr") as ehr:
        token = (await ehr.tokens(clinician))["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        response = await ehr.http.post("/launch", json={"patient": "p1", **members}, headers=headers)
        return response.status_code, response.json()


async def test_discovery_names_what_there_is(server: AuthServer, user: User) -> None:
    found: dict[str, Any] = {}
    for name in ("smart-configuration", "openid-configuration"):
        found = (await user.http.get(f"/.well-known/{name}", headers={"Origin": "https://app.example"})).json()
        assert found["issuer"] == server.issuer
        assert found["code_challenge_methods_supported"] == ["S256"]
        assert found["authorization_response_iss_parameter_supported"] is True
        assert {"launch-ehr", "launch-standalone", "client-public", "sso-openid-connect"} <= {*found["capabilities"]}
    jwks = await user.http.get(found["jwks_uri"], headers={"Origin": "https://app.example"})
    (key,) = jwks.json()["keys"]
    assert (key["kty"], key["crv"], key["use"], "d" in key) == ("EC", "P-256", "sig", False)
    assert jwks.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in jwks.headers


async def test_a_standalone_app_gets_tokens_that_say_who_it_is_and_for_whom(server: AuthServer, user: User) -> None:
    back = await user.agree(scope=f"{EVERYTHING} launch system/*.rs", nonce="a nonce")
    assert (back["state"], back["iss"]) == ("a state", server.issuer)
    response = await user.redeem(back["code"])
    tokens = response.json()
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert tokens["scope"] == EVERYTHING  # neither a launch that was none, nor what the client may not have
    assert (tokens["token_type"], tokens["expires_in"], tokens["need_patient_banner"]) == ("Bearer", 300, True)
    assert not {"patient", "encounter", "hub.url", "hub.topic"} & set(tokens)
    header, claims = await read(user, tokens["access_token"])
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    now = int(server.clock())
    assert len(claims.pop("jti")) >= 43
    assert claims == {
        "iss": server.issuer,
        "sub": "nygaard",
        "aud": [AUDIENCE, server.fhir_base],
        "client_id": "viewer",
        "scope": EVERYTHING,
        "iat": now,
        "exp": now + 300,
        "name": "Ingrid Nygård",
        "hpr_number": "9144889",
        "fhirUser": f"{server.fhir_base}/Practitioner/practitioner-1",
    }
    header, claims = await read(user, tokens["id_token"])
    assert (header["typ"], claims["aud"], claims["nonce"], claims["name"]) == (
        "JWT",
        "viewer",
        "a nonce",
        "Ingrid Nygård",
    )
    assert claims["fhirUser"].endswith("/Practitioner/practitioner-1")


async def test_an_ehr_launch_brings_what_is_open(server: AuthServer, user: User) -> None:
    status, body = await launched(
        server, encounter="e1", imagingStudy="s1", intent="reporting", need_patient_banner=False
    )
    assert status == 201
    tokens = await user.tokens(scope="openid launch", launch=body["launch"])
    assert (tokens["patient"], tokens["encounter"], tokens["intent"]) == ("p1", "e1", "reporting")
    assert tokens["fhirContext"] == [{"reference": "ImagingStudy/s1"}]
    assert tokens["need_patient_banner"] is False
    assert (await user.agree(scope="launch", launch=body["launch"]))["error"] == "invalid_request"  # it is used up


async def test_a_launch_is_of_one_user_and_of_five_minutes(server: AuthServer, user: User, clock: Clock) -> None:
    _, body = await launched(server)
    refused = await user.agree("okafor", scope="launch", launch=body["launch"])
    assert refused["error"] == "access_denied"
    await user.agree("okafor")
    silent = await user.agree(scope="launch", launch=body["launch"], prompt="none")
    assert silent["error"] == "login_required"  # for who is signed in is somebody else
    clock.now += 300
    assert (await user.agree(scope="launch", launch=body["launch"]))["error"] == "invalid_request"


async def test_only_an_ehr_may_launch_and_only_with_what_is_known(server: AuthServer, user: User) -> None:
    token = (await user.tokens())["access_token"]

    async def post(body: Any, token: str = token) -> int:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return (await user.http.post("/launch", content=json.dumps(body), headers=headers)).status_code

    assert await post({"patient": "p1"}) == 403
    assert await post({"patient": "p1"}, "nonsense") == 401
    for wrong in ({"patient": "../p1"}, {"patient": 1}, {"patient": "p1", "more": 1}):
        async with User(server, "ehr") as ehr:
            ehr_token = (await ehr.tokens())["access_token"]
        assert await post(wrong, ehr_token) == 400
    assert (await user.agree(scope="openid", launch="unknown"))["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"request": "x"}, "request_not_supported"),
        ({"state": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"aud": None}, "invalid_request"),
        ({"aud": "https://elsewhere.example/fhir"}, "invalid_request"),
        ({"scope": "system/*.rs"}, "invalid_scope"),
        ({"scope": 'openid "'}, "invalid_scope"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"max_age": "soon"}, "invalid_request"),
    ],
)
async def test_what_is_wrong_with_a_request_the_app_is_told(
    server: AuthServer, user: User, changed: dict[str, str | None], error: str
) -> None:
    told = answer(await user.ask(**changed))
    assert (told["error"], told["iss"]) == (error, server.issuer)
    assert told.get("state") == (None if "state" in changed else "a state")


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "nobody"},
        {"redirect_uri": None},
        {"redirect_uri": f"{BACK}/more"},
        {"redirect_uri": BACK.partition("?")[0]},
        {"redirect_uri": "https://attacker.example/"},
    ],
)
async def test_nobody_is_sent_to_an_address_that_is_not_registered(user: User, changed: dict[str, str | None]) -> None:
    page = await user.ask(**changed)
    assert (page.status_code, "location" in page.headers) == (400, False)
    assert "<h1>This did not work</h1>" in page.text
    twice = await user.http.get("/authorize", params=[*user.request().items(), ("redirect_uri", "https://a.example")])
    assert (twice.status_code, "location" in twice.headers) == (400, False)


async def test_a_code_is_for_one_use_and_its_second_use_ends_all_that_came_of_the_first(user: User) -> None:
    code = (await user.agree(scope=EVERYTHING))["code"]
    tokens = (await user.redeem(code)).json()
    assert (await user.introspect(tokens["access_token"]))["active"]
    again = await user.redeem(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert await user.introspect(tokens["access_token"]) == {"active": False}
    assert (await user.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_code_needs_its_proof_its_address_its_client_and_its_minute(user: User, clock: Clock) -> None:
    async def refused(**parameters: Any) -> str:
        response = await user.redeem((await user.agree())["code"], **parameters)
        assert response.status_code in {400, 401}
        return str(response.json()["error"])

    assert await refused(code_verifier="v" * 43) == "invalid_grant"
    assert await refused(code_verifier=None) == "invalid_request"
    assert await refused(redirect_uri="http://localhost:9/back") == "invalid_grant"
    assert await refused(client_id="ehr") == "invalid_grant"
    assert await refused(client_id="archive") == "invalid_client"
    assert await refused(grant_type="password") == "unsupported_grant_type"
    code = (await user.agree())["code"]
    clock.now += 59.9
    assert (await user.redeem(code)).status_code == 200
    code = (await user.agree())["code"]
    clock.now += 60
    assert (await user.redeem(code)).json()["error"] == "invalid_grant"
    wrong = await user.redeem((late := await user.agree())["code"], code_verifier="v" * 43)
    assert wrong.status_code == 400
    assert (await user.redeem(late["code"])).json()["error"] == "invalid_grant"  # one attempt, right or wrong


async def test_a_confidential_client_shows_its_secret(server: AuthServer) -> None:
    async with User(server, "archive") as user:

        async def ask(data: dict[str, str], **options: Any) -> httpx.Response:
            code = (await user.agree())["code"]
            given = {"grant_type": "authorization_code", "redirect_uri": BACK, "code_verifier": user.verifier}
            return await user.http.post("/token", data=given | {"code": code} | data, **options)

        assert (await ask({}, auth=("archive", SECRET))).status_code == 200
        assert (await ask({"client_id": "archive", "client_secret": SECRET})).status_code == 200
        wrong = await ask({}, auth=("archive", "wrong"))
        assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
        assert wrong.headers["WWW-Authenticate"].startswith("Basic")
        assert (await ask({"client_id": "archive"})).status_code == 401
        both = await ask({"client_secret": SECRET}, auth=("archive", SECRET))
        assert both.json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("rule", "covered", "not_covered"),
    [
        (
            "fhircast/*.read",
            "fhircast/Patient-open.read fhircast/*.read",
            "fhircast/Patient-open.write fhircast/*.* fhircast-hub/sessions.write",
        ),
        ("fhircast/Patient-open.*", "fhircast/patient-open.WRITE", "fhircast/*.read fhircast/Patient-close.read"),
        ("fhircast/*.*", "fhircast/*.* fhircast/com.example.thing.write", "fhircast-hub/sessions.write"),
        (
            "patient/*.rs",
            "patient/Observation.r patient/*.read patient/Observation.rs?category=x",
            "patient/*.cruds patient/Patient. user/Patient.rs system/*.rs",
        ),
        ("user/Patient.read", "user/Patient.rs", "user/*.rs user/Patient.u"),
        ("patient/Observation.rs?category=x", "patient/Observation.r?category=x", "patient/Observation.rs"),
    ],
)
def test_a_client_is_granted_what_its_registration_covers(rule: str, covered: str, not_covered: str) -> None:
    asked = covered.split()
    assert allowed([*asked, *not_covered.split()], [rule]) == tuple(asked)


async def test_a_server_is_set_up_safely_or_not_at_all() -> None:
    for uri in ("/back", "http://localhost/#here", "javascript:alert(1)"):
        with pytest.raises(ValueError, match="redirect URI"):
            Client("app", Text("App", "App"), (uri,), ())
    settings: dict[str, Any] = {"title": Text("A", "A"), "audience": "hub", "fhir_base": "http://localhost:9/fhir"}
    with pytest.raises(ValueError, match="origin"):
        AuthServer(issuer="http://localhost:9/auth", clients=(), **settings)
    with pytest.raises(ValueError, match="twice"):
        AuthServer(issuer="http://localhost:9", clients=(*CLIENTS, CLIENTS[0]), **settings)
    assert SECRET not in repr(CLIENTS)
