"""Subscribing, renewing and unsubscribing on the wire: forms, answers, limits, leases."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.running import TOPIC, Follower, RunningHub, event, running_hub, until

FORM = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
ENDPOINT = "hub__channel.endpoint"
AS_JSON = {"Content-Type": "application/json"}


async def post(hub: RunningHub, form: Any, token: str | None = None, **headers: str) -> httpx.Response:
    """Post a form as it is: a dict, or bytes."""
    if isinstance(form, bytes):
        sent = hub.headers(token, **{"Content-Type": "application/x-www-form-urlencoded"} | headers)
        return await hub.client.post(hub.url, content=form, headers=sent)
    return await hub.client.post(hub.url, data=form, headers=hub.headers(token, **headers))


async def lives(endpoint: str) -> bool:
    """Whether the endpoint still takes a socket."""
    try:
        async with connect(endpoint, proxy=None):
            return True
    except InvalidStatus as refusal:
        return refusal.response.status_code != 404


async def left(hub: RunningHub) -> None:
    """Wait until the hub has noted that no socket is there."""
    await until(lambda: not len(hub.hub.registry) and not hub.hub.service._tasks)


async def lease(endpoint: str) -> int:
    """The seconds that the confirmation grants."""
    async with connect(endpoint, proxy=None) as connection:
        seconds: int = (await Follower(connection).next())["hub.lease_seconds"]
        return seconds


# --- the form and its answer ---


@pytest.mark.req("SUB-1")
@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_endpoint_comes_from_the_public_url(slash: str) -> None:
    """202 with exactly one member of JSON: scheme, host and path are the setting's, whatever the headers say."""
    lies = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
        "Forwarded": "host=evil.example;proto=http",
        "Origin": "https://evil.example",
    }
    async with running_hub(public_url="https://hub.example:8443/api/hub" + slash) as hub:
        answer = await hub.client.post(hub.url + slash, data=FORM, headers=hub.headers(**lies))
        assert (answer.status_code, answer.headers["Content-Type"]) == (202, "application/json")
        assert list(answer.json()) == ["hub.channel.endpoint"]
        assert answer.json()["hub.channel.endpoint"].startswith("wss://hub.example:8443/api/hub/ws/")


@pytest.mark.req("SUB-4")
async def test_a_missing_parameter_is_named() -> None:
    """400 names the one that is missing; when unsubscribing, hub.events is none of them."""
    async with running_hub() as hub:
        for mode in ("subscribe", "unsubscribe"):
            for name in FORM:
                if (mode, name) == ("unsubscribe", "hub.events"):
                    continue
                form = {key: value for key, value in (FORM | {"hub.mode": mode}).items() if key != name}
                answer = await post(hub, form)
                assert answer.status_code == 400, name
                assert name in answer.text
        endpoint = await hub.subscribe()
        assert (await hub.form(hub__mode="unsubscribe", **{ENDPOINT: endpoint})).status_code == 202


@pytest.mark.req("SUB-4")
async def test_a_callback_without_a_type_means_a_webhook() -> None:
    """It is read as a webhook, and not as a form without a type; beside websocket it is ignored."""
    async with running_hub() as hub:
        callback = {"hub.callback": "https://127.0.0.1/callback", "hub.secret": "s"}
        answer = await post(hub, {name: FORM[name] for name in FORM if name != "hub.channel.type"} | callback)
        assert answer.status_code == 400
        assert "hub.callback" in answer.text
        assert (await post(hub, FORM | callback)).status_code == 202
        assert (await post(hub, FORM | {"hub.callback": "", "hub.secret": ""})).status_code == 202


@pytest.mark.req("SUB-5")
async def test_a_form_that_makes_no_sense_is_refused_in_one_line() -> None:
    """400, as text of one line; where Accept prefers JSON, as a message in it. Nobody owns the topic afterwards."""
    wrong = [
        {"hub.mode": "publish"},
        {"hub.mode": "Subscribe"},
        {"hub.mode": ""},
        {"hub.channel.type": "carrier-pigeon"},
        {"hub.channel.type": "webhook"},
        {"hub.channel.type": "webhook", "hub.callback": "https://127.0.0.1/"},
        *({"hub.lease_seconds": value} for value in ("0", "-1", "1.5", "1e3", "soon", "", "٣", "+5", "0x10")),
        *({"hub.events": value} for value in ("", " , ,", "Patient open", "-open", "ø-open", "a" * 129, "a,b;c")),
        *({"hub.topic": value} for value in ("", "  ", "t" * 1025, ".well-known", "metadata", "ws", " ws ")),
        *({"hub.topic": f"a{control}b"} for control in "\0\t\n\r\x1f\x7f\x85\u2028"),
        {"subscriber.name": "a\nb"},
        {"subscriber.name": "n" * 257},
        {"hub.channel.endpoint": "wss://a\rb"},
    ]
    async with running_hub() as hub:
        for members in wrong:
            answer = await post(hub, FORM | members)
            assert answer.status_code == 400, members
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert answer.text.strip()
            assert len(answer.text.splitlines()) == 1
            answer = await post(hub, FORM | members, Accept="application/json")
            assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")
            assert list(answer.json()) == ["message"]
        assert (await hub.context(hub.token("user-2"))).status_code == 200
        assert hub.hub.service.usage.subscriptions == 0


@pytest.mark.req("SUB-5", "SUB-18", "SUB-13", "SUB-27")
async def test_the_edges_of_what_is_taken() -> None:
    """Longest names, unknown events, spaces, trailing commas, a leading zero: real clients send them, and they are granted."""
    fine = [
        {"hub.topic": "t" * 1024},
        {"hub.topic": "ws2"},
        {"hub.topic": "  padded  ", "hub.mode": " subscribe ", "hub.channel.type": "websocket\r\n"},
        {"hub.events": "open-patient-chart, DiagnosticReport-opened,"},
        {"hub.events": "a" * 128},
        {"hub.lease_seconds": "007"},
        {"hub.lease_seconds": "9" * 5000},
        {"subscriber.name": "n" * 256},
        {"hub.channel.endpoint": ""},
        {"hub.unknown": "x", "access_token": "y"},
    ]
    async with running_hub() as hub:
        for members in fine:
            answer = await post(hub, FORM | members)
            assert answer.status_code == 202, (members, answer.text)
        assert (await hub.context(hub.token("user-2"), "padded")).status_code == 403  # user-1's, without the spaces
        assert (await hub.context(hub.token("user-2"), "%20padded")).status_code == 200


@pytest.mark.req("SUB-6")
async def test_a_parameter_twice_is_refused() -> None:
    """Whether both say the same or not, in a form and in JSON."""
    plain = b"hub.channel.type=websocket&hub.mode=subscribe&hub.topic=t&hub.events=Patient-open"
    members = b'{"hub.channel.type":"websocket","hub.mode":"subscribe","hub.topic":"t","hub.events":"Patient-open"%b}'
    async with running_hub() as hub:
        assert (await post(hub, plain)).status_code == 202
        for extra in (b"hub.topic=t", b"hub.topic=u", b"%68ub.topic=t", b"hub.events=Patient-close", b"hub.mode="):
            assert (await post(hub, plain + b"&" + extra)).status_code == 400, extra
        assert (await post(hub, members % b"", **AS_JSON)).status_code == 202
        assert (await post(hub, members % b',"hub.topic":"t"', **AS_JSON)).status_code == 400


@pytest.mark.req("SUB-7")
async def test_another_content_type_is_refused() -> None:
    """415, also for none, and the text says what would have done."""
    async with running_hub() as hub:
        for sent in (None, "", "text/plain", "multipart/form-data; boundary=x", "text/json", "application/xml", "*/*"):
            headers = hub.headers() if sent is None else hub.headers(**{"Content-Type": sent})
            answer = await hub.client.post(hub.url, content=b"hub.mode=subscribe", headers=headers)
            assert answer.status_code == 415
            assert "application/x-www-form-urlencoded" in answer.text


@pytest.mark.req("SUB-7", "SUB-16")
@pytest.mark.parametrize(
    "sent", ["application/json", "application/fhir+json", "application/json;charset=utf-8", "Application/JSON ; x=y"]
)
async def test_a_json_object_with_a_mode_is_a_form(sent: str) -> None:
    """As JSON, with hub.events as an array, and numbers as numbers: what is granted is the same."""
    async with running_hub() as hub:
        form = FORM | {
            "hub.events": ["patient-open", " Patient-Close"],
            "hub.lease_seconds": 60,
            "subscriber.name": None,
        }
        answer = await hub.client.post(hub.url, json=form, headers=hub.headers(**{"Content-Type": sent}))
        async with connect(answer.json()["hub.channel.endpoint"], proxy=None) as connection:
            confirmation = await Follower(connection).next()
            assert confirmation["hub.events"] == "patient-open,Patient-Close"
            assert confirmation["hub.lease_seconds"] == 60


@pytest.mark.req("SUB-5", "SUB-16")
@pytest.mark.parametrize("name", ["hub.topic", "subscriber.name", "hub.channel.endpoint", "hub.events", "hub.mode"])
async def test_half_a_surrogate_is_no_text(name: str) -> None:
    """JSON can spell what UTF-8 cannot say; no such value is taken in, and nothing stands in the log of failures."""
    async with running_hub() as hub:
        half = json.dumps(FORM | {name: "a\ud800b"}).encode()
        assert (await post(hub, half, **AS_JSON)).status_code == 400


@pytest.mark.req("SUB-16")
async def test_no_form_stops_the_store(tmp_path: Path) -> None:
    """One client's odd topic does not keep all the others from being written for good."""
    async with running_hub(store=f"sqlite:///{tmp_path / 'hub.db'}") as hub:
        odd = asyncio.create_task(post(hub, json.dumps(FORM | {"hub.topic": "\ud800"}).encode(), **AS_JSON))
        await asyncio.wait([odd], timeout=1)
        assert (await hub.form(hub__events="Patient-open")).status_code == 202
        assert (await odd).status_code == 400


# --- renewal ---


@pytest.mark.req("SUB-20")
async def test_a_renewal_replaces_events_lease_and_name() -> None:
    """Same endpoint, same socket, a new confirmation; then what is new is received, and what was dropped is not."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe("Patient-open", hub__lease_seconds="100", subscriber__name="before")
        async with hub.follow(endpoint) as follower:
            renewal = {ENDPOINT: endpoint, "subscriber__name": "after", "hub__lease_seconds": "500"}
            answer = await hub.form(hub__events="Patient-close,Encounter-open", **renewal)
            assert (answer.status_code, answer.json()) == (202, {"hub.channel.endpoint": endpoint})
            confirmation = await follower.next()
            assert confirmation["hub.events"] == "Patient-close,Encounter-open"
            assert confirmation["hub.lease_seconds"] == 500
            await hub.publish(event("Patient-open"))
            await hub.publish(event("Patient-close"))
            assert await follower.names(1) == ["Patient-close"]
            gone = await hub.form(hub__mode="unsubscribe", subscriber__name="after")
            assert (gone.status_code, gone.json()) == (202, {}), "the caller did not say the endpoint"
            assert (await follower.next())["hub.mode"] == "denied"


@pytest.mark.req("SUB-20", "SUB-32")
async def test_a_renewal_that_may_read_nothing_leaves_everything() -> None:
    """403 and the old state: no confirmation, no denial, the old event still comes."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe("Patient-open")
        async with hub.follow(endpoint) as follower:
            blind = hub.token(scope="fhircast/Encounter-open.read")
            assert (await hub.form(blind, hub__events="Patient-close", **{ENDPOINT: endpoint})).status_code == 403
            assert await follower.silent()
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("SUB-20", "SUB-31")
async def test_a_renewal_loses_and_doubles_nothing_in_flight() -> None:
    """Renewed again and again in a stream of events, a socket receives each of them once, in order."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe("UserLogout")
        async with hub.follow(endpoint) as follower:

            async def renew() -> None:
                for number in range(20):
                    events = "UserLogout,UserHibernate" if number % 2 else "UserLogout"
                    assert (await hub.form(hub__events=events, **{ENDPOINT: endpoint})).status_code == 202

            async def publish() -> None:
                for number in range(60):
                    await hub.publish(event("UserLogout", event_id=str(number)))

            await asyncio.gather(renew(), publish())
            said = [await follower.next() for _ in range(80)]
            assert [each["id"] for each in said if "id" in each] == [str(number) for number in range(60)]
            assert await follower.silent()


@pytest.mark.req("SUB-21")
async def test_only_a_live_endpoint_of_this_session_and_user_is_renewed() -> None:
    """404 for a made-up one, another session's, another user's, an ended one, one whose lease is over."""
    async with running_hub() as hub:
        mine = await hub.subscribe()
        other = hub.token("user-2")
        theirs = await hub.subscribe(token=other, hub__topic="theirs")
        ended = await hub.subscribe()
        await hub.form(hub__mode="unsubscribe", **{ENDPOINT: ended})
        for topic, endpoint in [
            (TOPIC, "wss://hub.example/ws/made-up"),
            (TOPIC, "not even a URL"),
            ("elsewhere", mine),
            (TOPIC, theirs),
            (TOPIC, ended),
        ]:
            answer = await hub.form(hub__events="Patient-open", hub__topic=topic, **{ENDPOINT: endpoint})
            assert answer.status_code == 404, endpoint
        assert (await hub.form(other, hub__events="Patient-open", **{ENDPOINT: mine})).status_code == 404
        assert (await hub.context(other, "elsewhere")).status_code == 200  # nothing was created
        hub.clock.now += 61
        await hub.hub.service.tick()
        assert (await hub.form(hub__events="Patient-open", **{ENDPOINT: mine})).status_code == 404


# --- limits ---


@pytest.mark.req("SUB-22")
async def test_a_full_topic_refuses_and_then_lets_the_longest_absent_go() -> None:
    """With all sockets there: 429 with Retry-After, and nobody goes. Else who has none longest gives way."""
    async with running_hub(max_subscriptions_per_topic=2) as hub:
        first, second = await hub.subscribe(), await hub.subscribe()
        async with hub.follow(first), hub.follow(second) as kept:
            answer = await hub.form(hub__events="Patient-open")
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) > 0
            await hub.publish(event("Patient-open"))
            assert await kept.names(1) == ["Patient-open"]
        await left(hub)
        hub.clock.now += 5
        async with hub.follow(first):
            pass  # it came back, so the second is absent longest
        await left(hub)
        third = await hub.subscribe()
        assert not await lives(second)
        assert await lives(first)
        assert await lives(third)


@pytest.mark.req("SUB-22")
async def test_a_user_over_the_limit_loses_the_longest_absent_of_all_sessions() -> None:
    """Across topics: sockets stay, of the others the one goes that is absent longest; with none absent: 429."""
    async with running_hub(max_subscriptions_per_user=3) as hub:
        first = await hub.subscribe(hub__topic="first")
        hub.clock.now += 1
        second = await hub.subscribe(hub__topic="second")
        hub.clock.now += 1
        third = await hub.subscribe(hub__topic="third")
        async with hub.follow(first):
            hub.clock.now += 1
            fourth = await hub.subscribe(hub__topic="fourth")
            assert not await lives(second)
            async with hub.follow(third), hub.follow(fourth):
                answer = await hub.form(hub__events="Patient-open", hub__topic="fifth")
                assert answer.status_code == 429
                assert int(answer.headers["Retry-After"]) > 0
                assert (await hub.context(hub.token("user-2"), "fifth")).status_code == 200  # and created nothing
                # The limit is each user's own.
                assert await lives(await hub.subscribe(token=hub.token("user-2"), hub__topic="sixth"))


@pytest.mark.req("SUB-22")
async def test_a_request_that_will_be_refused_costs_nobody_a_place() -> None:
    """At the user's limit: 403 for the scope, for the owner, for the claim, 429 for the topic, 401 for the lease, 404, 400."""
    limits: dict[str, Any] = {
        "max_subscriptions_per_user": 2,
        "max_subscriptions_per_topic": 1,
        "max_topics_per_user": 2,
    }
    async with running_hub(**limits) as hub:
        foreign = await hub.subscribe(token=hub.token("user-2"), hub__topic="foreign")
        async with hub.follow(foreign):
            mine = await hub.subscribe(hub__topic="mine"), await hub.subscribe(hub__topic="mine too")
            stale = hub.token(exp=int(hub.clock.now) - 10)
            limited = hub.token(**{"hub.topic": "mine"})
            refusals = [
                (403, await hub.form(hub.token(scope=""), hub__events="Patient-open", hub__topic="mine")),
                (403, await hub.form(hub__events="Patient-open", hub__topic="foreign")),
                (403, await hub.form(limited, hub__events="Patient-open", hub__topic="mine too")),
                (429, await hub.form(hub__events="Patient-open", hub__topic="a third one")),
                (401, await hub.form(stale, hub__events="Patient-open", hub__topic="mine")),
                (404, await hub.form(hub__events="Patient-open", **{ENDPOINT: "wss://made-up/x"})),
                (400, await hub.form(hub__events="Patient-open", hub__lease_seconds="0")),
            ]
            assert [answer.status_code for _, answer in refusals] == [status for status, _ in refusals]
        assert [await lives(endpoint) for endpoint in mine] == [True, True]


@pytest.mark.req("SUB-22", "SUB-23")
async def test_who_replaces_a_subscription_of_their_own_is_not_over_the_limit() -> None:
    """At the user's limit an app that comes anew takes its own old place, not that of another app."""
    async with running_hub(max_subscriptions_per_user=2) as hub:
        other = await hub.subscribe(hub__topic="elsewhere", subscriber__name="Other app")
        hub.clock.now += 1
        old = await hub.subscribe(subscriber__name="OHIF")
        new = await hub.subscribe(subscriber__name="OHIF")
        assert not await lives(old)
        assert await lives(new)
        assert await lives(other)


@pytest.mark.req("SUB-23", "SUB-39")
async def test_a_name_that_comes_anew_replaces_those_without_a_socket() -> None:
    """Same user, session and non-empty name: the absent goes, the connected lives beside; no name replaces nothing."""
    async with running_hub() as hub:
        there = await hub.subscribe(subscriber__name="OHIF")
        async with hub.follow(there) as follower:
            absent = await hub.subscribe(subscriber__name="OHIF")
            elsewhere = await hub.subscribe(subscriber__name="OHIF", hub__topic="elsewhere")
            nameless = await hub.subscribe(), await hub.subscribe(subscriber__name="")
            new = await hub.subscribe(subscriber__name="OHIF")
            assert not await lives(absent)
            assert [await lives(endpoint) for endpoint in (elsewhere, *nameless, new)] == [True] * 4
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]


# --- leases ---


@pytest.mark.req("LEA-1")
@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ({}, 100),
        ({"hub__lease_seconds": "150"}, 150),
        ({"hub__lease": "150"}, 150),
        ({"hub__lease_seconds": "201"}, 200),
        ({"hub__lease": "9" * 40}, 200),
    ],
)
async def test_the_lease_is_granted_up_to_the_maximum(asked: dict[str, str], granted: int) -> None:
    """What was asked, under either name, as far as the maximum goes; else the default. It runs from the 202."""
    async with running_hub(default_lease=100, max_lease=200) as hub:
        endpoint = await hub.subscribe(**asked)
        hub.clock.now += 10
        assert await lease(endpoint) == granted - 10


@pytest.mark.req("LEA-2", "LEA-4")
async def test_no_lease_outlives_its_token() -> None:
    """It ends with the token's exp, with a denial and close 1000."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe(token=hub.token(exp=int(hub.clock.now) + 90), hub__lease_seconds="5000")
        assert await lease(endpoint) == 90
        async with hub.follow(endpoint) as follower:
            hub.clock.now += 91
            await hub.hub.service.tick()
            assert (await follower.next())["hub.mode"] == "denied"
            assert await follower.closed() == 1000


@pytest.mark.req("LEA-2")
async def test_a_token_past_its_end_may_act_but_not_subscribe() -> None:
    """Within the clock skew after exp: an event is taken, a subscription or renewal gets 401 invalid_token."""
    async with running_hub() as hub:
        token = hub.token(exp=int(hub.clock.now) + 10)
        endpoint = await hub.subscribe(token=hub.token())
        hub.clock.now += 11
        assert (await hub.publish(event("Patient-open"), token)).status_code == 202
        for more in ({}, {ENDPOINT: endpoint}):
            answer = await hub.form(token, hub__events="Patient-open", **more)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.req("LEA-2")
async def test_a_token_that_is_over_is_the_first_thing_wrong() -> None:
    """Token 401 comes before endpoint 404 and scope 403: a client then fetches a new token instead of giving up."""
    async with running_hub() as hub:
        over = {"exp": int(hub.clock.now) - 5}
        unknown = {ENDPOINT: "wss://made-up/x"}
        assert (await hub.form(hub.token(**over), hub__events="Patient-open", **unknown)).status_code == 401
        for scope in ("fhircast/Home-open.read", ""):
            blind = hub.token(scope=scope, **over)
            assert (await hub.form(blind, hub__events="Patient-open")).status_code == 401


@pytest.mark.req("LEA-3")
async def test_a_fresh_token_prolongs_the_lease_on_the_same_socket() -> None:
    """Renewed with a token that is good for longer, a socket lives beyond the end of the first."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe(token=hub.token(exp=int(hub.clock.now) + 100))
        async with hub.follow(endpoint) as follower:
            hub.clock.now += 50
            fresh = hub.token(exp=int(hub.clock.now) + 100)
            await hub.form(fresh, hub__events="Patient-open", **{ENDPOINT: endpoint})
            assert (await follower.next())["hub.lease_seconds"] == 100
            hub.clock.now += 60
            await hub.hub.service.tick()
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]


# --- unsubscribing ---


@pytest.mark.req("UNS-6", "UNS-5")
@pytest.mark.parametrize("parameter", ["hub.channel.endpoint", "endpoint"])
async def test_unsubscribing_ends_the_endpoint_for_good(parameter: str) -> None:
    """202 with the endpoint, a denial, close 1000, nothing more is sent; a second time it is unknown."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            form = FORM | {"hub.mode": "unsubscribe", parameter: endpoint}
            answer = await post(hub, form)
            assert (answer.status_code, answer.json()) == (202, {"hub.channel.endpoint": endpoint})
            await hub.publish(event("Patient-open"))
            denial = await follower.next()
            assert denial["hub.mode"] == "denied"
            assert denial["hub.topic"] == TOPIC
            assert denial["hub.reason"]
            assert await follower.closed() == 1000
        assert not await lives(endpoint)
        assert (await post(hub, form)).status_code == 404


@pytest.mark.req("UNS-2", "UNS-3")
async def test_an_endpoint_of_somebody_else_stays() -> None:
    """404 for an unknown endpoint, and the same for one of another user or session, which goes on being told."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            unknown = await hub.form(hub__mode="unsubscribe", **{ENDPOINT: "wss://hub.example/ws/unknown"})
            foreign = await hub.form(hub.token("user-2"), hub__mode="unsubscribe", **{ENDPOINT: endpoint})
            elsewhere = await hub.form(hub__mode="unsubscribe", hub__topic="elsewhere", **{ENDPOINT: endpoint})
            assert unknown.status_code == foreign.status_code == elsewhere.status_code == 404
            assert unknown.text == foreign.text, "the refusal must not tell that there is one"
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("UNS-7")
async def test_without_an_endpoint_the_only_one_of_that_name_is_meant() -> None:
    """Exactly one of the caller's, on that topic, of that name: ended. None, or several: 400, and all stay."""
    async with running_hub() as hub:
        unsubscribe = {"hub__mode": "unsubscribe"}
        assert (await hub.form(**unsubscribe)).status_code == 400
        one = await hub.subscribe(subscriber__name="one")
        await hub.subscribe(subscriber__name="elsewhere", hub__topic="elsewhere")
        assert (await hub.form(subscriber__name="two", **unsubscribe)).status_code == 400
        assert (await hub.form(hub.token("user-2"), subscriber__name="one", **unsubscribe)).status_code == 400
        two = await hub.subscribe(subscriber__name="two")
        assert (await hub.form(**unsubscribe)).status_code == 400
        assert (await hub.form(subscriber__name=" two ", **unsubscribe)).json() == {}
        assert await lives(one)
        assert not await lives(two)
        widget = hub.token(client_id="a-widget")
        assert (await hub.form(widget, **unsubscribe)).status_code == 400, "another application of the same user"
        assert await lives(one)
        assert (await hub.form(**unsubscribe)).json() == {}
        assert not await lives(one)


@pytest.mark.req("SUB-19", "SUB-30", "SUB-20", "UNS-6")
@pytest.mark.parametrize("claims", [{"client_id": "a-widget"}, {"client_id": None, "azp": "a-widget"}])
async def test_an_endpoint_is_renewed_by_the_application_that_made_it(claims: dict[str, Any]) -> None:
    """Another one of the same user finds none to renew; who knows the endpoint may end it, and the answer names it again."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        renewal = await hub.form(hub.token(**claims), hub__events="Patient-close", **{ENDPOINT: endpoint})
        assert renewal.status_code == 404
        assert await lives(endpoint)
        ended = await hub.form(hub.token(**claims), hub__mode="unsubscribe", **{ENDPOINT: endpoint})
        assert ended.json() == {"hub.channel.endpoint": endpoint}
        assert not await lives(endpoint)


@pytest.mark.req("UNS-5")
async def test_medplums_endpoint_means_nothing_when_subscribing() -> None:
    """Only on unsubscribe is `endpoint` read as hub.channel.endpoint."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        answer = await post(hub, FORM | {"endpoint": endpoint})
        assert answer.status_code == 202
        assert answer.json()["hub.channel.endpoint"] != endpoint
