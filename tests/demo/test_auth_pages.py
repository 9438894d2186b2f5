"""The pages of the demo's authorization server: who is asked what, in which language, and what no other site can do with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo.auth import AuthServer
from tests.running import Clock
from tests.smart_client import BACK, User, answer, auth_server, listen, serving

FRAME = "http://localhost:8081"


@pytest.fixture
def clock() -> Clock:
    """The server's."""
    return Clock()


@pytest.fixture
async def server(clock: Clock, tmp_path: Path) -> AsyncIterator[AuthServer]:
    """One that runs, without a hub."""
    (style := tmp_path / "style.css").write_text(":focus-visible { outline: 3px solid }")
    listener = listen()
    made = auth_server(listener, clock=clock, frame_origins=(FRAME,), stylesheet=style)
    async with serving(made, listener) as server:
        yield server


@pytest.fixture
async def user(server: AuthServer) -> AsyncIterator[User]:
    """A browser that nobody is signed in to, with the viewer."""
    async with User(server) as user:
        yield user


async def test_who_is_signed_in_is_not_asked_again_and_what_was_allowed_is_remembered(user: User) -> None:
    page = await user.ask()
    for name in ("Ingrid Nygård", "Samuel Okafor", "Mei-Lin Chen"):
        assert name in page.text
    page = await user.submit(page, clinician="okafor")
    assert "You are signed in as Samuel Okafor." in page.text
    assert "<li>be told when a patient is opened</li>" in page.text
    assert "<li>tell your other applications when a patient is opened</li>" in page.text
    assert "code" in answer(await user.submit(page, answer="allow"))
    assert "code" in answer(await user.ask())
    assert "code" in answer(await user.ask(prompt="none"))
    more = await user.ask(scope="openid fhircast/*.read")
    assert "<li>be told when something happens in the session</li>" in more.text
    silent = await user.ask(scope="openid fhircast/*.read", prompt="none")
    assert answer(silent)["error"] == "consent_required"
    assert 'action="/consent' in (await user.ask(prompt="consent")).text
    assert 'action="/login' in (await user.ask(prompt="login")).text


async def test_the_user_may_say_no_or_be_somebody_else(user: User) -> None:
    page = await user.submit(await user.ask(), clinician="okafor")
    page = await user.submit(page, answer="somebody-else")
    page = await user.submit(page, clinician="chen")
    assert "Mei-Lin Chen" in page.text
    assert answer(await user.submit(page, answer="deny"))["error"] == "access_denied"
    assert answer(await user.ask(prompt="none"))["error"] == "consent_required"


async def test_a_hint_is_followed_with_the_cookie_or_by_single_sign_on(user: User) -> None:
    for clinician in ("okafor", "nygaard"):
        await user.agree(clinician, prompt="login")
    for hint in ("9144889", "nygaard"):
        assert "code" in answer(await user.ask(login_hint=hint))
    for hint in ("okafor", "9999902", "nobody"):
        assert 'action="/login' in (await user.ask(login_hint=hint)).text
        assert answer(await user.ask(login_hint=hint, prompt="none"))["error"] == "login_required"
    await user.switch("single_sign_on")
    assert 'action="/login' in (await user.ask(login_hint="nobody")).text
    code = answer(await user.ask(login_hint="9999902", prompt="none"))["code"]
    tokens = (await user.redeem(code)).json()
    assert (await user.introspect(tokens["access_token"]))["sub"] == "okafor"


async def test_a_silent_request_that_fails_signs_nobody_out(user: User) -> None:
    await user.agree("nygaard")
    await user.switch("single_sign_on")
    assert answer(await user.ask(login_hint="chen", prompt="none"))["error"] == "consent_required"
    assert "code" in answer(await user.ask(prompt="none"))


async def test_a_login_that_is_too_old_for_the_app_or_for_the_server_does_not_count(user: User, clock: Clock) -> None:
    await user.agree()
    clock.now += 100
    assert "code" in answer(await user.ask(max_age="100"))
    clock.now += 1
    assert 'action="/login' in (await user.ask(max_age="100")).text
    clock.now += 8 * 3600
    assert 'action="/login' in (await user.ask()).text


async def test_cookies_of_two_servers_of_one_host_do_not_meet(server: AuthServer, user: User) -> None:
    listener = listen()
    async with serving(auth_server(listener), listener) as second, User(second) as there:
        await user.agree("nygaard")
        await there.agree("chen")
        user.http.cookies.update(there.http.cookies)
        there.http.cookies.update(user.http.cookies)
        assert len(user.http.cookies.jar) == 2
        for who, name in ((user, "nygaard"), (there, "chen")):
            tokens = (await who.redeem(answer(await who.ask(prompt="none"))["code"])).json()
            assert (await who.introspect(tokens["access_token"]))["sub"] == name


async def test_the_cookie_is_for_this_server_alone_and_new_with_each_login(server: AuthServer, user: User) -> None:
    before = (await user.ask()).headers["set-cookie"]
    assert "httponly" in before.lower()
    assert "samesite=lax" in before.lower()
    old = user.http.cookies.get(server.cookie)
    await user.agree()
    assert old
    assert user.http.cookies.get(server.cookie) != old
    user.http.cookies.clear()
    user.http.cookies.set(server.cookie, old)
    assert 'action="/login' in (await user.ask()).text


async def test_no_other_browser_can_send_a_form(server: AuthServer, user: User) -> None:
    page = await user.ask()
    async with User(server) as attacker:
        response = await attacker.submit(page, clinician="okafor")
        assert response.headers["location"].startswith("/authorize?")  # to be asked himself
        assert "set-cookie" not in response.headers
    forged = await user.submit(page, clinician="okafor", csrf="x")
    assert forged.headers["location"].startswith("/authorize?")
    assert 'action="/consent' in (await user.submit(page, clinician="okafor")).text
    assert (await user.submit(page, clinician="okafor")).status_code == 400  # each page is for one use
    for path in ("/login", "/consent", "/switches"):
        assert (await user.http.post(path, data={"down": "on", "ticket": "x", "csrf": "x"})).status_code == 400
    assert not server.switches.down


async def test_the_pages_keep_to_themselves(user: User) -> None:
    page = await user.ask()
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert f"frame-ancestors {FRAME};" in policy
    assert f"form-action 'self' {BACK.partition('/back')[0]};" in policy  # or the redirect would not be followed
    for name, value in (("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer")):
        assert page.headers[name] == value
    assert "script" not in page.text
    assert "outline" in (await user.http.get("/style.css")).text


@pytest.mark.parametrize(
    ("ui_locales", "header", "lang"),
    [
        (None, "", "en"),
        (None, "de-DE, nn;q=0.8, en;q=0.7", "nb"),
        (None, "en;q=0.5, nb;q=0.6", "nb"),
        (None, "nb;q=0, en", "en"),
        ("no", "en", "nb"),
        ("fr nb-NO", "en", "nb"),
        ("en-GB", "nb", "en"),
        ("fr", "nb", "nb"),
    ],
)
async def test_pages_speak_the_users_language(user: User, ui_locales: str | None, header: str, lang: str) -> None:
    user.http.headers["Accept-Language"] = header
    page = await user.ask(ui_locales=ui_locales)
    assert f'<html lang="{lang}">' in page.text
    assert ("Hvem er du?" in page.text) == (lang == "nb")
    page = await user.submit(page, clinician="chen")
    assert f'<html lang="{lang}">' in page.text
    assert ("få vite når en pasient åpnes" in page.text) == (lang == "nb")


async def test_the_switches_say_how_they_stand_and_are_reset(server: AuthServer, user: User) -> None:
    assert "Now: everything works." in (await user.http.get("/switches")).text
    page = await user.switch("down", "slow")
    assert "Now on: Slow, Down" in page.text
    assert server.switches.down
    assert "Now: everything works." in (await user.switch(action="reset")).text
    assert not server.switches.down


async def test_down_is_down_until_it_is_up(user: User) -> None:
    code = (await user.agree())["code"]
    await user.switch("down")
    for response in (await user.ask(), await user.redeem(code), await user.http.get("/jwks")):
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert response.headers["Access-Control-Allow-Origin"] == "*"
    await user.switch()
    assert (await user.redeem(code)).status_code == 200


async def test_slow_takes_its_time_for_tokens_and_keys(server: AuthServer, user: User) -> None:
    slept: list[float] = []

    async def pause(seconds: float) -> None:
        slept.append(seconds)

    server.pause = pause
    await user.switch("slow")
    assert (await user.tokens())["access_token"]
    assert (await user.http.get("/jwks")).status_code == 200
    assert slept == [5, 5]


async def test_a_scope_withheld_leaves_reading(user: User) -> None:
    await user.switch("scope_withheld")
    tokens = await user.tokens(scope="openid offline_access fhircast/*.* fhircast/Patient-open.write")
    assert tokens["scope"] == "openid offline_access fhircast/*.read"
    assert (await user.introspect(tokens["access_token"]))["scope"] == tokens["scope"]
    await user.switch()
    again = (await user.refresh(tokens["refresh_token"])).json()
    assert again["scope"] == "openid offline_access fhircast/*.* fhircast/Patient-open.write"
