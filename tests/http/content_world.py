"""Clients that share content, and the requests that these clients send."""

from __future__ import annotations

from typing import Any

from tests.running import RunningHub, event


def put(id_: str, **members: Any) -> dict[str, Any]:
    """An entry that shares an Observation."""
    return {"request": {"method": "PUT"}, "resource": {"resourceType": "Observation", "id": id_, **members}}


def delete(id_: str) -> dict[str, Any]:
    """An entry that takes it back."""
    return {"fullUrl": f"Observation/{id_}", "request": {"method": "DELETE"}}


def update(version: str | None, *entries: object, event_id: str = "update", of: str = "r1") -> dict[str, Any]:
    """An update of a report, made on this version."""
    bundle = {"resourceType": "Bundle", "id": "a-bundle", "type": "transaction", "entry": entries}
    posted = event("DiagnosticReport-update", event_id=event_id)
    reference = {"key": "report", "reference": {"reference": f"DiagnosticReport/{of}"}}
    posted["event"]["context"] = [reference, {"key": "updates", "resource": bundle}]
    return posted | {"event": posted["event"] | ({} if version is None else {"context.versionId": version})}


async def version(hub: RunningHub) -> str:
    """The current version."""
    read: str = (await hub.context()).json()["context.versionId"]
    return read


async def shared(hub: RunningHub) -> list[str]:
    """The ids of what GET says is shared."""
    content = (await hub.context()).json()["context"][-1]
    assert content["key"] == "content"
    return [entry["resource"]["id"] for entry in content["resource"].get("entry", [])]
