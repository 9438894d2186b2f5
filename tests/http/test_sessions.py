"""A system client begins a session for a user, and receives a live session again."""

from __future__ import annotations

import asyncio
import re

import pytest

from fhircast_hub.core.limits import MAX_FORM
from tests.http.sessions_world import INSUFFICIENT, INVALID, SCOPE, administered, refusal
from tests.http.wire import ask
from tests.running import event

FHIR = "https://fhir.example/r4"


@pytest.mark.req("SES-1")
async def test_a_session_is_begun_for_a_user() -> None:
    """201 with what an app needs to join; it is that user's, and nobody else's, before anybody came."""
    async with administered() as api:
        answer = await api.post({"user": "user-1"})
        assert answer.status_code == 201
        assert set(answer.json()) == {"hub.url", "hub.topic"}
        assert answer.json()["hub.url"] == api.hub.url
        assert answer.headers["Cache-Control"] == "no-store"
        topic = answer.json()["hub.topic"]
        assert await api.may(topic, api.hub.token("user-2")) == [403, 403, 403]
        assert await api.may(topic, api.pacs) == [202, 202, 200]
        assert await api.may(topic) == [202, 202, 200]


@pytest.mark.req("SES-1")
async def test_topics_cannot_be_guessed() -> None:
    """At least 122 random bits, no two alike, nothing of the user in them."""
    async with administered() as api:
        topics = [await api.begin(new=True) for _ in range(20)]
        assert len(set(topics)) == 20
        for topic in topics:
            assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", topic)
        for place in range(8):  # not the same time or node in all of them
            assert len({topic[place] for topic in topics}) > 1


@pytest.mark.req("SES-2")
async def test_the_live_session_is_given_again() -> None:
    """To whichever issuer's client, until it is ended or a new one is asked for, and then that one."""
    async with administered() as api:
        first = await api.begin()
        assert await api.begin() == first == await api.begin(new=False)
        assert await api.begin("user-2") != first
        api.hub.clock.now += 1
        second = await api.begin(new=True)
        assert second != first
        assert await api.begin() == second
        await api.end(second)
        assert await api.begin() == first
        await api.end(first)
        assert await api.begin() not in (first, second)


@pytest.mark.req("SES-2")
async def test_a_session_that_the_user_made_is_not_given_away() -> None:
    """Its topic is an app's own, perhaps one that others know."""
    async with administered() as api:
        await api.hub.subscribe(hub__topic="my-topic")
        assert await api.begin() != "my-topic"


@pytest.mark.req("SES-1", "AUT-9")
async def test_a_user_is_named_as_in_tokens() -> None:
    """A relative fhirUser and an absolute one are one user; one that names nobody is 400."""
    async with administered(own={"user_claim": "fhirUser", "fhir_base": FHIR}) as api:
        topic = await api.begin("Practitioner/7")
        assert await api.begin(f"{FHIR}/Practitioner/7") == topic
        assert await api.begin("https://other.example/Practitioner/7") != topic
        assert await api.may(topic, api.hub.token("x", fhirUser="Practitioner/7")) == [202, 202, 200]
        assert await api.may(topic, api.hub.token("x", fhirUser="Practitioner/8")) == [403, 403, 403]
        for nobody in ("/", "///", "/_history/1"):
            assert refusal(await api.post({"user": nobody})) == (400, "")
    async with administered(own={"user_claim": "fhirUser"}) as api:
        answer = await api.post({"user": "Practitioner/7"})
        assert refusal(answer) == (400, "")
        assert answer.json()["message"].startswith("user must be ")
        assert "Practitioner" not in answer.text


@pytest.mark.req("SES-1", "AUT-1", "AUT-11")
async def test_who_may_not_begin_or_end_sessions() -> None:
    """No token, a bad one, a user's with the scope, a system client's without, or with one that looks alike."""
    async with administered() as api:
        hub = api.hub
        topic = await api.begin()

        async def tried(token: str) -> set[tuple[int, str]]:
            return {refusal(await api.post({"user": "user-1"}, token)), refusal(await api.end(topic, token))}

        assert await tried("x") == {(401, INVALID)}
        assert await tried(hub.token("ehr", SCOPE, client_id="ehr", exp=int(hub.clock.now) - 31)) == {(401, INVALID)}
        assert await tried(hub.token("user-1", SCOPE)) == {(403, "")}
        assert await tried(hub.token("user-1", SCOPE, client_id="ehr")) == {(403, "")}
        unlisted = hub.token("other", SCOPE, client_id="other", **{"hub.topic": topic})
        assert await tried(unlisted) == {(403, "")}
        limited = hub.token("ehr", SCOPE, client_id="ehr", **{"hub.topic": "another"})
        assert await tried(limited) == {(403, "")}
        for scope in ("fhircast/*.*", "fhircast-hub/*.write", "fhircast-hub/sessions.*", SCOPE.upper(), SCOPE + "s"):
            assert await tried(hub.token("ehr", scope, client_id="ehr")) == {(403, INSUFFICIENT)}
        for method, path in (("POST", "/sessions"), ("DELETE", f"/sessions/{topic}")):
            answer = await ask(hub, method, path, {"Content-Type": "application/json"}, b'{"user": "user-1"}')
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        elsewhere = await hub.client.post(f"{api.url}?access_token={api.ehr}", json={"user": "user-1"})
        assert elsewhere.status_code == 401
        assert await api.begin() == topic
        assert api.topics == 1


@pytest.mark.req("SES-1")
@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "the body"),
        (b"sesame", "the body"),
        (b'{"user": "sesame"', "the body"),
        (b'{"user": "sesame"} x', "the body"),
        (b"[" * 50_000, "the body"),
        (b'{"user": "\xff"}', "the body"),
        (b"null", "the body"),
        (b'"sesame"', "the body"),
        (b'[{"user": "sesame"}]', "the body"),
        (b"{}", "user"),
        (b'{"user": null}', "user"),
        (b'{"user": 7777}', "user"),
        (b'{"user": ["sesame"]}', "user"),
        (b'{"user": {"sesame": 1}}', "user"),
        (b'{"user": ""}', "user"),
        (b'{"user": "%s"}' % (b"sesame" * 500), "user"),
        (b'{"user": " "}', "user"),
        (b'{"user": "sesame\\n"}', "user"),
        (b'{"user": "sesame\\u0000"}', "user"),
        (b'{"user": "\\ud800"}', ""),
        (b'{"user": "sesame", "new": "true"}', "new"),
        (b'{"user": "sesame", "new": 1}', "new"),
        (b'{"user": "sesame", "new": null}', "new"),
        (b'{"user": "ann", "sesame\\nX: y": 1}', "the body"),
        (b'{"user": "ann", "realm": "sesame"}', "the body"),
    ],
)
async def test_a_bad_body_is_refused_with_a_reason(body: bytes, named: str) -> None:
    """400 with one line that names the place and shows nothing of what came; nothing is begun."""
    async with administered() as api:
        answer = await api.post(body)
        assert refusal(answer) == (400, "")
        assert answer.json()["message"].startswith(named)
        assert "sesame" not in answer.text
        assert "7777" not in answer.text
        assert len(answer.text) < 200
        assert api.topics == 0


@pytest.mark.req("SES-1", "EVT-23")
async def test_a_byte_order_mark_before_the_body_is_ignored() -> None:
    """.NET writes one."""
    async with administered() as api:
        answer = await api.post(b'\xef\xbb\xbf{"user": "user-1"}')
        assert answer.status_code == 201, answer.text
        assert answer.json()["hub.topic"] == await api.begin()


@pytest.mark.req("SES-1", "AUT-1", "EVT-7")
async def test_a_body_is_read_only_of_who_may_send_it() -> None:
    """Without a token it is 401, however bad; one that is too large is 413, and another media type 415."""
    async with administered() as api:
        answer = await ask(api.hub, "POST", "/sessions", {"Content-Type": "application/json"}, b"{")
        assert answer.status == 401
        assert (await api.post(b"{", api.hub.token())).status_code == 403
        answer2 = await api.post(b" " * (MAX_FORM + 1))
        assert refusal(answer2) == (413, "")
        headers = api.hub.headers(api.ehr)
        form = await api.hub.client.post(api.url, data={"user": "user-1"}, headers=headers)
        assert refusal(form) == (415, "")
        assert (await api.post(b'{"user": "user-1"}' + b" " * (MAX_FORM - 18))).status_code == 201


@pytest.mark.req("SES-1")
async def test_a_refusal_may_be_json() -> None:
    """For who asks for that: `{"message": ...}`."""
    async with administered() as api:
        headers = api.hub.headers(api.ehr, **{"Accept": "application/json", "Content-Type": "application/json"})
        answer = await api.hub.client.post(api.url, content=b"{}", headers=headers)
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("user is required")


@pytest.mark.req("SES-1", "LIM-1")
async def test_a_user_may_have_so_many_sessions() -> None:
    """429 with Retry-After beyond that; the live one is given again nevertheless."""
    async with administered(max_topics_per_user=2) as api:
        await api.begin()
        topic = await api.begin(new=True)
        answer = await api.post({"user": "user-1", "new": True})
        assert refusal(answer) == (429, "")
        assert int(answer.headers["Retry-After"]) > 0
        assert api.topics == 2
        assert topic  # and not forgotten
        assert (await api.post({"user": "user-1"})).status_code == 201


@pytest.mark.req("SES-2")
async def test_two_who_ask_at_once_get_one_session() -> None:
    """An EHR that launches two apps together puts them into one session."""
    async with administered() as api:
        topics = await asyncio.gather(*(api.begin() for _ in range(8)))
        assert len(set(topics)) == 1


@pytest.mark.req("SES-1", "SEC-1")
async def test_nothing_stands_at_hub_url() -> None:
    """The session API is beside hub.url, not under it: there the path is a topic's, and a token needs a scope for events."""
    async with administered() as api:
        answer = await api.hub.client.post(
            f"{api.hub.url}/sessions", json={"user": "user-1"}, headers=api.hub.headers(api.ehr)
        )
        assert answer.status_code == 403
        assert api.topics == 0


@pytest.mark.req("AUT-11", "SES-3", "SES-4")
async def test_a_session_that_nobody_owns_is_not_administered() -> None:
    """A token of the topic alone began it: 409 for a system client, and it stays."""
    async with administered() as api:
        guest = api.hub.token(None, client_id="guest", **{"hub.topic": "unowned"})
        assert (await api.hub.publish(event("Patient-open", topic="unowned"), guest)).status_code == 202
        assert (await api.end("unowned")).status_code == 409
        system = api.hub.token("ehr", SCOPE, client_id="ehr")
        assert (await api.look("unowned", system)).status_code == 409
        assert (await api.hub.context(guest, "unowned")).json()["context"] != []
