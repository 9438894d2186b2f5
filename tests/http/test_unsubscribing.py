"""Unsubscribing ends an endpoint of the same user."""

from __future__ import annotations

import pytest

from tests.http.subscribing_world import lives, post
from tests.running import TOPIC, event, running_hub

FORM = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
ENDPOINT = "hub__channel.endpoint"


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


@pytest.mark.req("UNS-5")
async def test_medplums_endpoint_means_nothing_when_subscribing() -> None:
    """Only on unsubscribe is `endpoint` read as hub.channel.endpoint."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        answer = await post(hub, FORM | {"endpoint": endpoint})
        assert answer.status_code == 202
        assert answer.json()["hub.channel.endpoint"] != endpoint
