"""No patient is in any byte that the console sends (CSL-5)."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest

from tests.console.console_world import Operated, operated
from tests.running import RunningHub, event

#: Of a patient, a study, a report and what was shared of them.
CANARIES = ("canary-id", "Canaryfamily", "Canarygiven", "CANARY-MRN", "canary-study", "canary-shared", "Canarytext")


@pytest.mark.req("CSL-5", "SEC-1")
async def test_no_patient_is_in_any_byte() -> None:
    """Opens, updates, selects, refusals that name the patient, and a SyncError of an application: nothing of a context."""
    who = {
        "resourceType": "Patient",
        "id": "canary-id",
        "identifier": [{"system": "urn:oid:1.2.3", "value": "CANARY-MRN"}],
        "name": [{"family": "Canaryfamily", "given": ["Canarygiven"]}],
    }
    async with operated() as console:
        hub = console.hub
        endpoint = await hub.subscribe(
            "Patient-open,ImagingStudy-open,Patient-update,SyncError", **{"subscriber.name": "Chart"}
        )
        async with hub.follow(endpoint) as follower, console.stream(session=console.hash()) as stream:
            opened = event("Patient-open", "canary-id")
            opened["event"]["context"] = [{"key": "patient", "resource": who}]
            assert (await hub.publish(opened)).status_code == 202
            message = await follower.next()
            reason = "Canarygiven Canaryfamily (CANARY-MRN) is not signed"
            await follower.connection.send(json.dumps({"id": message["id"], "status": 409, "reason": reason}))
            study = event("ImagingStudy-open", "canary-study", also=[{"key": "patient", "resource": who}])
            assert (await hub.publish(study)).status_code == 202
            error = event("SyncError", "canary-shared")
            error["event"]["context"][0]["resource"]["issue"] = [{"diagnostics": "Canarytext"}]
            assert (await hub.publish(error)).status_code == 202
            await stream.until("session", lambda part: part["problems"] and len(part["events"]) == 3)
            whole = json.dumps(await console.state(session=console.hash())) + stream.text
            whole += (await console.get("", "")).text + (await console.get("/config", "")).text
        assert "refused to follow Patient-open" in whole
        assert "not signed" in whole
        assert not [each for each in CANARIES if each.lower() in whole.lower()]


#: Spellings of what the context has of the patient.
SPELLINGS = (
    "010180 12345",
    "01.01.1980",
    "19800101",
    "A\u030ase",
    "Nordmann_Ola",
    "NORDMANN",
    "\uff2eordmann",
    "x0y1z",
)
#: The same in parts: none of these is in an answer, in whatever case and composition.
PARTS = ("010180", "12345", "1980", "åse", "nordmann", "x0y1z")
#: Digits of the hub's own: hashes, the topic, addresses of this machine, times and counts.
OWN_DIGITS = re.compile(r'"[0-9a-f]{12}"|"[0-9a-f-]{36}"|127\.0\.0\.1:\d+|: ?[0-9.]+(?=[,}\]])')


async def say(hub: RunningHub, endpoint: str, reason: str) -> None:
    """A patient with these names is opened, and the subscriber of this endpoint refuses."""
    who = {
        "resourceType": "Patient",
        "id": "canary-id",
        "identifier": [{"value": "01018012345"}, {"value": "x0y1z"}],
        "name": [{"family": "Nordmann", "given": ["Åse", "Ola"]}],
        "birthDate": "1980-01-01",
    }
    async with hub.follow(endpoint) as follower:
        opened = event("Patient-open", "canary-id")
        opened["event"]["context"] = [{"key": "patient", "resource": who}]
        body = json.dumps(opened, ensure_ascii=False).encode()
        headers = hub.headers(**{"Content-Type": "application/json"})
        assert (await hub.client.post(hub.url, content=body, headers=headers)).status_code == 202
        message = await follower.next()
        await follower.connection.send(json.dumps({"id": message["id"], "status": 409, "reason": reason}))


async def all_bytes(console: Operated) -> str:
    """All that the console sends but OWN_DIGITS, in lower case and composed. An ellipsis is three dots there."""
    async with console.stream(session=console.hash()) as stream:
        await stream.until("session", lambda part: part["problems"])
        parts = {**stream.parts, **await console.state(session=console.hash())}
        sent = OWN_DIGITS.sub("", json.dumps(parts, ensure_ascii=False) + stream.text)
        return unicodedata.normalize("NFKC", sent).lower()


@pytest.mark.req("CSL-5", "SEC-1")
@pytest.mark.parametrize("written", SPELLINGS)
async def test_no_spelling_of_a_patient_is_shown_of_a_reason(written: str) -> None:
    """Numbers in groups, composed and decomposed letters, words with a line below between them."""
    async with operated() as console:
        endpoint = await console.hub.subscribe("Patient-open", **{"subscriber.name": "Chart"})
        await say(console.hub, endpoint, f"wait for {written}, please")
        whole = await all_bytes(console)
        assert "please" in whole
        assert not [each for each in PARTS if each in whole]


@pytest.mark.req("CSL-5", "SEC-1")
@pytest.mark.parametrize("written", [each for each in SPELLINGS if not each[0].isdigit()])
async def test_no_patient_is_shown_of_a_name_of_a_participant_or_sender(written: str) -> None:
    """Nor of the subscriber in a SyncError."""
    async with operated() as console:
        endpoint = await console.hub.subscribe("Patient-open", **{"subscriber.name": f"Viewer of {written}"})
        await say(console.hub, endpoint, "please wait")
        whole = await all_bytes(console)
        assert whole.count("viewer of ...") >= 4
        assert not [each for each in PARTS if each in whole]


@pytest.mark.req("CSL-5", "SEC-1")
async def test_no_patient_is_shown_of_a_name_of_an_event() -> None:
    """Of those that are sent, and of those that somebody subscribes to."""
    names = ("org.example.p01018012345", "org.nordmann", "Nordmann-open")
    async with operated() as console:
        endpoint = await console.hub.subscribe(f"Patient-open,{','.join(names)}", **{"subscriber.name": "Chart"})
        for name in names:
            await console.hub.publish(event(name, "canary-id"))
        await say(console.hub, endpoint, "please wait")
        whole = await all_bytes(console)
        assert '"other-open"' in whole
        assert not [each for each in PARTS if each in whole]


@pytest.mark.req("CSL-3", "CSL-5")
async def test_a_topic_is_in_the_parts_of_sessions_only() -> None:
    """Topics are the operator's to read there. No other part has one."""
    async with operated() as console:
        await console.open(topic="topic-of-nordmann")
        parts = await console.state(session=console.hash("topic-of-nordmann"))
        assert {name for name, part in parts.items() if "nordmann" in json.dumps(part)} == {"sessions", "session"}
        assert "nordmann" not in (await console.get("/config", "")).text
