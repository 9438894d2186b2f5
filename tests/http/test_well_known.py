"""What the hub declares of itself, to anyone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.running import event, running_hub

CONFIGURATION = "/.well-known/fhircast-configuration"
EXTENSION = "http://fhircast.hl7.org/StructureDefinition/fhircast-configuration-extension"

OPENED = ("Patient", "Encounter", "ImagingStudy", "DiagnosticReport")
BUILT = {f"{type_}-{verb}" for type_ in OPENED for verb in ("open", "close", "update", "select")} | {
    *("SyncError", "UserLogout", "UserHibernate", "Home-open", "heartbeat"),
}


@pytest.mark.req("CFG-1", "CFG-4", "CFG-5")
async def test_the_configuration_declares_exactly_what_is_built() -> None:
    """Without a token: the members of FHIRcast 3.0.0, and that the hub's order is the order of events."""
    async with running_hub() as hub:
        answer = await hub.client.get(hub.url + CONFIGURATION)
        declared = answer.json()
        events = declared.pop("eventsSupported")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        assert sorted(events) == sorted(BUILT)
        assert declared == {
            "websocketSupport": True,
            "webhookSupport": True,
            "fhircastVersion": "3.0.0",
            "getCurrentSupport": True,
            "capabilities": {
                "supportsGetCurrentContext": True,
                "supportsNonCurrentContextUpdates": True,
                "ordersEvents": True,
            },
        }


@pytest.mark.req("CFG-1", "CFG-5")
async def test_what_is_declared_can_be_subscribed_to_and_published() -> None:
    """Every declared event is granted, and all but the hub's own heartbeat are accepted and received."""
    async with running_hub() as hub:
        declared = (await hub.client.get(hub.url + CONFIGURATION)).json()["eventsSupported"]
        async with hub.follow(await hub.subscribe(",".join(declared))) as follower:
            # What is shared, or selected, is in what was opened last; so each type is opened, shared in, and closed in turn.
            order = ("open", "update", "select", "close")
            resources = [name for name in declared if name.partition("-")[0] in OPENED]
            resources.sort(key=lambda name: (name.partition("-")[0], order.index(name.partition("-")[2])))
            version = ""
            for name in [*resources, *(name for name in declared if name not in resources and name != "heartbeat")]:
                updates = {"key": "updates", "resource": {"resourceType": "Bundle", "type": "transaction"}}
                also = [updates] if name.endswith("-update") else []
                answer = await hub.publish(event(name, event_id=name, also=also, **{"context.versionId": version}))
                assert answer.status_code == 202, answer.text
                received = (await follower.next())["event"]
                assert received["hub.event"] == name
                version = received.get("context.versionId", version)
            assert (await hub.publish(event("heartbeat"))).status_code == 400
            assert await follower.silent()


@pytest.mark.req("CFG-1")
@pytest.mark.parametrize(("setting", "declared"), [("R4B", "R4B"), ("r5", "R5"), ("none", None)])
async def test_the_fhir_version_is_declared_where_it_is_set(setting: str, declared: str | None) -> None:
    """FHIRCAST_FHIR_VERSION comes out as the specification spells it, and not at all without."""
    async with running_hub(fhir_version=setting) as hub:
        assert (await hub.client.get(hub.url + CONFIGURATION)).json().get("fhirVersion") == declared


@pytest.mark.req("CFG-3")
async def test_the_capability_statement_names_the_hub() -> None:
    """Without a token: a CapabilityStatement whose FHIRcast extension says hub.url, whatever Host was asked."""
    async with running_hub(fhir_version="R5") as hub:
        answer = await hub.client.get(hub.url + "/metadata", headers={"Host": "evil.example"})
        statement: dict[str, Any] = json.loads(answer.content)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/fhir+json")
        assert statement["resourceType"] == "CapabilityStatement"
        assert statement["fhirVersion"] == "5.0.0"
        # FHIR R4, CapabilityStatement: these are required, and an instance has an implementation (cpb-15).
        assert {"status", "date", "kind", "format", "implementation"} <= statement.keys()
        (rest,) = statement["rest"]
        assert rest["mode"] == "server"
        assert rest["extension"] == [{"url": EXTENSION, "extension": [{"url": "hub.url", "valueUrl": hub.url}]}]


@pytest.mark.parametrize("path", [CONFIGURATION, "/metadata"])
async def test_head_answers_as_get_does_without_the_body(path: str) -> None:
    """A client that only asks whether it is there gets the headers alone."""
    async with running_hub() as hub:
        get, head = await hub.client.get(hub.url + path), await hub.client.head(hub.url + path)
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["Content-Length"] == str(len(get.content))
