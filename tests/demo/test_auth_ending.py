"""Refresh, revocation and logout end tokens of the demo's authorization server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from joserfc.util import urlsafe_b64encode

from demo.auth import AuthServer, InvalidToken
from tests.demo.auth_world import read
from tests.running import Clock
from tests.smart_client import AUDIENCE, User, auth_server, listen, serving

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


async def test_refresh_tokens_are_rotated_and_an_old_one_ends_the_family(user: User, clock: Clock) -> None:
    first = await user.tokens(scope=EVERYTHING, nonce="a nonce")
    narrow = (await user.refresh(first["refresh_token"], scope="openid fhircast/*.*")).json()
    assert narrow["scope"] == "openid fhircast/*.*"
    assert "nonce" not in (await read(user, narrow["id_token"]))[1]
    clock.now += 1000
    second = (await user.refresh(narrow["refresh_token"])).json()
    assert second["scope"] == EVERYTHING
    more = await user.refresh(second["refresh_token"], scope=f"{EVERYTHING} launch")
    assert more.json()["error"] == "invalid_scope"
    other = await user.refresh(second["refresh_token"], client_id="ehr")
    assert other.json()["error"] == "invalid_grant"
    assert (await user.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await user.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    assert await user.introspect(second["access_token"]) == {"active": False}


async def test_a_refresh_token_whose_answer_was_lost_may_be_used_once_more(user: User, clock: Clock) -> None:
    """As by a page that is loaded again before the answer is there. Later such a use is a theft."""
    first = await user.tokens(scope=EVERYTHING)
    lost = (await user.refresh(first["refresh_token"])).json()
    clock.now += 10
    second = (await user.refresh(first["refresh_token"])).json()
    assert (await user.refresh(second["refresh_token"])).status_code == 200
    assert (await user.refresh(lost["refresh_token"])).json()["error"] == "invalid_grant"
    first = await user.tokens(scope=EVERYTHING)
    await user.refresh(first["refresh_token"])
    clock.now += 11
    assert (await user.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"


async def test_who_left_is_said_to_have_left_also_of_a_revoked_login(user: User) -> None:
    """Its windows must be blank, and not merely out of order."""
    tokens = await user.tokens(scope="openid online_access")
    await user.http.post("/revoke", data={"token": tokens["refresh_token"], "client_id": "viewer"})
    assert (await user.refresh(tokens["refresh_token"])).json()["error_description"] == "refresh_token: revoked"
    assert (await end(user, tokens["id_token"])).status_code == 200
    refused = await user.refresh(tokens["refresh_token"])
    assert refused.json()["error_description"] == "the user has logged out"


async def test_online_access_lasts_as_long_as_the_user_is_signed_in(user: User, clock: Clock) -> None:
    assert "refresh_token" not in await user.tokens()
    tokens = await user.tokens(scope="openid online_access")
    clock.now += 8 * 3600 - 1
    tokens = (await user.refresh(tokens["refresh_token"])).json()
    clock.now += 1
    assert (await user.refresh(tokens["refresh_token"])).status_code == 400


async def test_introspection_is_for_clients_with_a_secret(server: AuthServer, user: User, clock: Clock) -> None:
    tokens = await user.tokens(scope=EVERYTHING)
    told = await user.introspect(tokens["access_token"])
    assert (told["active"], told["hpr_number"], told["client_id"]) == (True, "9144889", "viewer")
    assert told["aud"] == [AUDIENCE, server.fhir_base]
    odd = urlsafe_b64encode(b'{"alg":"ES256","crit":1}').decode() + ".e30.AAAA"
    for other in (tokens["refresh_token"], tokens["id_token"], "nonsense", "a.b.c", odd):
        assert await user.introspect(other) == {"active": False}
    for data in ({"token": "x"}, {"token": "x", "client_id": "viewer"}, {"token": "x", "client_id": "archive"}):
        assert (await user.http.post("/introspect", data=data)).status_code == 401
    clock.now += 300
    assert await user.introspect(tokens["access_token"]) == {"active": False}


async def test_revoked_tokens_are_over(server: AuthServer, user: User) -> None:
    tokens = await user.tokens(scope=EVERYTHING)

    async def revoke(token: str, client_id: str = "viewer") -> int:
        return (await user.http.post("/revoke", data={"token": token, "client_id": client_id})).status_code

    assert await revoke(tokens["access_token"], "ehr") == 400
    assert server.read_token(tokens["access_token"])["sub"] == "nygaard"
    assert await revoke(tokens["access_token"]) == 200
    with pytest.raises(InvalidToken):
        server.read_token(tokens["access_token"])
    next_ = (await user.refresh(tokens["refresh_token"])).json()
    assert await revoke(next_["refresh_token"]) == 200
    assert await user.introspect(next_["access_token"]) == {"active": False}
    assert (await user.refresh(next_["refresh_token"])).status_code == 400
    assert await revoke("unknown") == 200


async def test_who_logs_out_is_logged_out_of_all_applications_of_the_browser(
    server: AuthServer, user: User, clock: Clock
) -> None:
    """By any id token of that login, be it old. The cookie is worth nothing then, and the user is asked again."""
    first = await user.tokens(scope="openid online_access fhircast/*.*")
    again = await user.tokens(scope="openid online_access", prompt="login")
    offline = await user.tokens(scope=EVERYTHING)
    clock.now += 1000
    assert (await end(user, first["id_token"])).status_code == 200
    for tokens in (first, again):
        refused = await user.refresh(tokens["refresh_token"])
        assert refused.json() == {"error": "invalid_grant", "error_description": "the user has logged out"}
    assert (await user.refresh(offline["refresh_token"])).status_code == 200
    assert (await user.ask(prompt="none")).headers["location"].count("error=login_required") == 1
    assert (await end(user, first["id_token"])).status_code == 200


async def test_a_logout_ends_access_tokens_and_codes_and_nobody_elses_login(server: AuthServer, user: User) -> None:
    async with User(server) as other:
        theirs = await other.tokens(scope="openid online_access")
        tokens = await user.tokens()
        code = (await user.agree())["code"]
        assert (await end(user, tokens["id_token"])).status_code == 200
        with pytest.raises(InvalidToken):
            server.read_token(tokens["access_token"])
        assert (await user.redeem(code)).json()["error"] == "invalid_grant"
        assert (await other.refresh(theirs["refresh_token"])).status_code == 200


async def test_a_logout_needs_an_id_token_of_this_server(user: User) -> None:
    tokens = await user.tokens(scope="openid online_access")
    for hint in (tokens["access_token"], "nonsense", "a.b.c"):
        assert (await end(user, hint)).json()["error"] == "invalid_request"
    assert (await user.http.post("/end-session", data={"x": "y"})).status_code == 400
    foreign = await end(user, tokens["id_token"], client_id="ehr")
    assert foreign.json()["error_description"] == "client_id: not the client of the id token"
    assert (await user.refresh(tokens["refresh_token"])).status_code == 200
    await user.switch("unknown_key")
    assert (await end(user, (await user.tokens())["id_token"])).status_code == 200


async def test_a_logout_may_also_come_by_a_link(user: User) -> None:
    """OpenID Connect RP-Initiated Logout 1.0, section 2: "OpenID Providers MUST support the use of the HTTP GET and POST methods"."""
    tokens = await user.tokens(scope="openid online_access")
    asked = {"id_token_hint": tokens["id_token"], "client_id": "viewer"}
    assert (await user.http.get("/end-session", params=asked)).status_code == 200
    assert (await user.refresh(tokens["refresh_token"])).status_code == 400
    assert (await user.http.get("/end-session?client_id=a&client_id=b")).status_code == 400


async def end(user: User, hint: str, **members: str) -> httpx.Response:
    """POST /end-session, from a page of another origin."""
    headers = {"Origin": "http://localhost:9"}
    answer = await user.http.post("/end-session", data={"id_token_hint": hint, **members}, headers=headers)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    return answer
