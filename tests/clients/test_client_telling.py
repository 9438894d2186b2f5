"""What a client publishes reaches the others, or the client says that it did not; and nothing is published without end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fhircast_client import Event, FHIRcastClient, HubError, Refuse, Timings
from fhircast_client.events import context_of, encode, make_event
from fhircast_client.testing import Answer, FakeHub
from tests.clients import virtual_time
from tests.clients.fakes import FAST, Heard, Wire, patient, report, study, until

pytestmark = pytest.mark.usefixtures("nothing_left")

#: What an ingress answers while the hub restarts.
_INGRESS = [
    Answer(404, "<html>default backend</html>", content_type="text/html"),
    Answer(403, "", content_type="text/plain"),
    Answer(405, '{"code": 405}', content_type="application/json"),
    Answer(404, "404 page not found"),
    Answer(502, "<html>bad gateway</html>", content_type="text/html"),
]


def ehr(hub: FakeHub, **options: Any) -> tuple[FHIRcastClient, Heard]:
    """A client that follows patients, and what it was shown."""
    client, heard = hub.client("ehr", **{"timings": FAST, **options}), Heard()
    client.on("Patient-open", heard)
    return client, heard


@pytest.mark.req("CLT-20", "CLT-52")
@pytest.mark.parametrize("answer", _INGRESS, ids=lambda answer: f"{answer.status} {answer.content_type}")
async def test_a_publication_that_fails_is_out_of_step_at_once_and_is_tried_again(answer: Answer) -> None:
    async with FakeHub() as hub:
        client, heard = ehr(hub)
        async with client:
            await client.open(patient("p1"))
            hub.answer_next("publish", answer, answer)
            with pytest.raises(HubError):
                await client.open(patient("p2"))
            assert not client.status.in_sync
            assert client.status.why.startswith("The others were not told of Patient-open: ")
            assert "<" not in client.status.why
            await until(lambda: client.status.in_sync, lambda: client.status)
            assert client.context
            assert client.context.anchor == "Patient/p2"
            assert heard.anchors == ["Patient/p2"], "its handler shows it, whatever the application did meanwhile"
        opens = [message for message in hub.messages if message["event"]["context"][0]["resource"]["id"] == "p2"]
        assert len({message["id"] for message in opens}) == 1


@pytest.mark.req("CLT-20")
async def test_a_publication_that_the_hub_refuses_is_not_tried_again() -> None:
    async with FakeHub() as hub:
        client, _ = ehr(hub)
        wire = Wire(client)
        async with client:
            hub.answer_next("publish", Answer(403, "no scope"))
            with pytest.raises(HubError, match="no scope"):
                await client.open(patient("p2"))
            assert client.status.in_sync
            await asyncio.sleep(0.2)
            assert len(wire.of("out", "publish")) == 1


@pytest.mark.req("CLT-20", "CLT-51")
async def test_what_overtakes_it_is_shown_and_it_is_not_tried_again() -> None:
    async with FakeHub() as hub:
        client, heard = ehr(hub, timings=Timings(backoff_first=0.2, backoff_most=0.2, settle=0.05))
        wire = Wire(client)
        async with client:
            hub.answer_next("publish", Answer(503, "away"))
            with pytest.raises(HubError):
                await client.open(patient("p2"))
            await hub.publish("Patient-open", patient("p3"))
            await until(lambda: heard.anchors == ["Patient/p3"])
            await until(lambda: client.status.in_sync)
            await asyncio.sleep(0.4)
            assert len(wire.of("out", "publish")) == 1


@pytest.mark.req("CLT-20", "CLT-52")
async def test_an_open_of_the_same_is_the_same_event() -> None:
    async with FakeHub() as hub:
        client, _ = ehr(hub, timings=Timings(backoff_first=60, backoff_most=60, settle=0.05))
        async with client:
            hub.answer_next("publish", Answer(502))
            with pytest.raises(HubError):
                await client.open(patient("p2"))
            unsent = client._session.engine.untold.newest
            assert unsent
            assert (await client.open(patient("p2"))).id == unsent.id
            assert client.status.in_sync


@pytest.mark.req("CLT-19")
async def test_what_everybody_shows_is_not_opened_again() -> None:
    async with FakeHub() as hub:
        client, heard = ehr(hub)
        async with client:
            first = await client.open(patient("p1"))
            assert (await client.open(patient("p1"))).id == first.id
            assert len(hub.messages) == 1
            equal = await hub.publish("Patient-open", patient("p1"))
            assert (await hub.acknowledged(equal)).status == 200
            assert heard.anchors == []


@pytest.mark.req("CLT-19")
@pytest.mark.parametrize("raw", [False, True])
async def test_clients_that_publish_what_they_show_make_no_storm(raw: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeHub() as hub:
        clients = [hub.client(name, timings=FAST) for name in ("one", "other")]
        for client in clients:

            async def follow(event: Event, client: FHIRcastClient = client) -> None:
                if raw:
                    await client.publish(event.name, event.context)
                else:
                    await client.open(*(item["resource"] for item in event.context))

            client.on("Patient-open", follow)
            client.on("ImagingStudy-open", follow)
            await client.start()
        for opened in ([patient("p1")], [study("s1"), patient("p1")]):
            type_ = opened[0]["resourceType"]
            await hub.publish(f"{type_}-open", *opened)
            anchor = f"{type_}/{opened[0]['id']}"
            await until(lambda: all(c.context and c.context.anchor == anchor for c in clients))  # noqa: B023
        await asyncio.sleep(0.3)
        assert len(hub.messages) <= 6
        assert caplog.text.count("the handler of Patient-open publishes what it is shown") == 2, "once in each client"
        for client in clients:
            await client.stop()


@pytest.mark.req("CLT-21")
async def test_a_message_that_cannot_be_read_is_not_passed_over() -> None:
    async with FakeHub() as hub:
        client, heard = ehr(hub)
        wire = Wire(client)
        async with client:
            statuses: list[str] = []
            client.on_status(lambda status: statuses.append(status.why))
            hub.lose_next(1)
            await hub.publish("Patient-open", patient("p2"))
            hub.send_frame('{"timestamp": "2026-01-01T00:00:00Z", "id": "e1", "event": ' + '{"a":' * 100_000)
            await until(lambda: heard.anchors == ["Patient/p2"], lambda: statuses)
            await until(lambda: client.status.in_sync)
            assert "could not be read" in statuses[0]
            assert wire.of("out", "acknowledgement")[0].body == {"id": "e1", "status": 500}


@pytest.mark.req("CLT-21")
async def test_a_number_of_any_size_is_read() -> None:
    async with FakeHub() as hub:
        client, heard = ehr(hub)
        async with client:
            body = make_event(hub.topic, "Patient-open", context_of([{**patient("p1"), "x": 12}]), own=False).body
            hub.send_frame(json.dumps(body).replace("12}", "9" * 5000 + "}"))
            await until(lambda: heard.anchors == ["Patient/p1"])


@pytest.mark.req("CLT-23")
async def test_text_that_cannot_be_encoded_ends_no_connection() -> None:
    half = "unsaved \ud83d notes"

    def refuse(_: Event) -> None:
        raise Refuse(half)

    async with FakeHub() as hub:
        client = hub.client("chart", timings=FAST)
        client.on("Patient-open", refuse)
        async with client:
            answer = await hub.acknowledged(await hub.publish("Patient-open", patient("p1")))
            assert (answer.status, answer.reason) == (409, "unsaved \ufffd notes")
            opened = await client.open({**patient("p2"), "name": [{"text": half}]})
            assert opened.context[0]["resource"]["name"] == [{"text": "unsaved \ufffd notes"}]
            assert client.status.connection == "connected"


@pytest.mark.req("CLT-24", "CLT-54")
@pytest.mark.parametrize("answer", _INGRESS, ids=lambda answer: f"{answer.status} {answer.content_type}")
async def test_an_ingress_ends_no_client(answer: Answer) -> None:
    async with FakeHub() as hub:
        client, _ = ehr(hub)
        async with client:
            hub.answer_next("subscribe", answer, answer)
            seen: list[str] = []
            client.on_status(lambda status: seen.append(status.why))
            hub.deny()
            await until(lambda: client.status.connection == "connected" and hub.subscribed("ehr"), lambda: seen)
            assert not [why for why in seen if "<" in why]


@pytest.mark.req("CLT-24")
async def test_the_hub_itself_ends_a_client() -> None:
    async with FakeHub() as hub:
        client, _ = ehr(hub)
        await client.start()
        hub.answer_next("subscribe", Answer(403, "no scope for this session"))
        hub.deny()
        with pytest.raises(HubError, match="no scope for this session"):
            await client.run()


@pytest.mark.req("CLT-24")
async def test_a_wrong_url_ends_a_client_at_once() -> None:
    async with FakeHub() as hub:
        client, _ = ehr(hub)
        hub.answer_next("subscribe", _INGRESS[0])
        with pytest.raises(HubError, match="404"):
            await client.start()


@pytest.mark.req("CLT-13", "CLT-47")
async def test_sync_errors_of_one_turn_about_what_is_not_subscribed_to() -> None:
    async with FakeHub() as hub:
        client, _ = ehr(hub)
        async with client:
            about = make_event(hub.topic, "DiagnosticReport-open", context_of([report("r1")]), own=False)
            await asyncio.gather(*(hub.sync_error(about, f"viewer {number}") for number in range(5)))
            await until(lambda: len(client.status.behind) == 5)


@pytest.mark.req("CLT-25")
def test_an_own_open_that_is_not_told_back_is_asked_for() -> None:
    """In virtual time: after two pings the client does not say any more that all is well."""

    async def play() -> None:
        async with FakeHub() as hub:
            client, _ = ehr(hub)
            statuses: list[str] = []
            async with client:
                client.on_status(lambda status: statuses.append(status.why))
                hub.lose_next(1)
                await client.open(patient("p1"))
                await asyncio.sleep(29)
                assert client.status.in_sync
                await asyncio.sleep(2)
                assert statuses[0].startswith("The hub does not tell what is published here")
                assert client.status.in_sync, "the hub was asked"

    virtual_time.run(play())


@pytest.mark.req("CLT-20")
async def test_however_often_it_is_clicked_it_is_sent_again_by_one() -> None:
    async with FakeHub() as hub:
        client, _ = ehr(hub, timings=Timings(backoff_first=60, backoff_most=60, settle=0.05))
        async with client:
            for _ in range(5):
                hub.answer_next("publish", Answer(502))
                with pytest.raises(HubError):
                    await client.open(patient("p2"))
            assert len(client._session.publisher._telling) == 1
            tasks = [task for task in asyncio.all_tasks() if "_tell" in repr(task.get_coro())]
            assert len(tasks) <= 1


@pytest.mark.req("CLT-20")
async def test_a_call_that_is_cancelled_is_told_all_the_same() -> None:
    async with FakeHub() as hub:
        client, heard = ehr(hub)
        async with client:
            hub.cut("ehr", silently=True)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.open(patient("p2"))
            assert client.status.why.startswith("The others were not told of Patient-open")
            hub.restore("ehr")
            await until(lambda: heard.anchors == ["Patient/p2"])
            await until(lambda: client.status.in_sync)


@pytest.mark.req("CLT-19")
async def test_deep_resources_end_no_client() -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"x": [deep]}
    async with FakeHub() as hub:
        client, heard = ehr(hub)
        wire = Wire(client)
        async with client:
            for _ in range(2):
                event = make_event(hub.topic, "Patient-open", context_of([{**patient("p1"), "x": deep}]), own=False)
                hub.send_frame(encode(event.body).decode())
            await until(lambda: len(wire.of("out", "acknowledgement")) == 2)
            assert [message.status for message in wire.of("out", "acknowledgement")] == [200, 200]
            assert heard.anchors == ["Patient/p1"], "they are equal"


@pytest.mark.req("CLT-21")
async def test_an_event_of_another_session_is_not_followed() -> None:
    async with FakeHub() as hub:
        client, heard = ehr(hub)
        async with client:
            foreign = make_event("another session", "Patient-open", context_of([patient("p9")]), own=False)
            hub.send_frame(encode(foreign.body).decode())
            await hub.acknowledged(await hub.publish("Patient-open", patient("p1")))
            assert heard.anchors == ["Patient/p1"]


@pytest.mark.req("CLT-24", "CLT-55")
async def test_what_the_hub_declares_is_asked_at_each_subscription() -> None:
    async with FakeHub() as hub:
        client, _ = ehr(hub)
        hub.answer_next("configuration", _INGRESS[-1])
        async with client:
            assert "heartbeat" not in hub.subscribed("ehr")
            hub.deny()
            await until(lambda: "heartbeat" in hub.subscribed("ehr"))


@pytest.mark.req("CLT-20", "CLT-53")
async def test_what_failed_before_the_start_is_told_after_it() -> None:
    async with FakeHub() as hub:
        client, heard = ehr(hub)
        hub.answer_next("publish", Answer(502))
        with pytest.raises(HubError):
            await client.open(patient("p2"))
        async with client:
            await until(lambda: heard.anchors == ["Patient/p2"])
            await until(lambda: client.status.in_sync)


@pytest.mark.req("CLT-24")
async def test_a_client_that_the_hub_ends_ends_though_a_handler_publishes() -> None:
    async with FakeHub() as hub:
        client = hub.client("chart", timings=FAST)

        async def follow(_: Event) -> None:
            hub.cut("chart", silently=True)
            await client.open(study("s1"))

        client.on("Patient-open", follow)
        await client.start()
        await hub.publish("Patient-open", patient("p1"))
        await asyncio.sleep(0.1)
        hub.answer_next("subscribe", Answer(403, "no scope"))
        hub.disconnect("chart")
        hub.deny("chart")
        hub.restore("chart")
        with pytest.raises(HubError, match="no scope"):
            await asyncio.wait_for(client.run(), 15)
