"""Subscribers of shared content, and the entries of updates that tests publish."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import HubError
from fhircast_hub.core.rules.contexts import current_context
from tests.core.world import (
    TOPIC,
    World,
    frozen,
    message,
    patient,
    report,
    resource,
    token,
)

R1, R2 = "DiagnosticReport/r1", "DiagnosticReport/r2"
REPORTS = ",".join(f"DiagnosticReport-{verb}" for verb in ("open", "close", "update", "select"))
EVENTS = REPORTS + "," + REPORTS.replace("DiagnosticReport", "Patient")


def put(type_: str, id_: str, **members: object) -> dict[str, Any]:
    """An entry that shares a resource."""
    return {"request": {"method": "PUT"}, "resource": resource(type_, id_, **members)}


def delete(ref: str) -> dict[str, Any]:
    """An entry that deletes a resource."""
    return {"fullUrl": ref, "request": {"method": "DELETE"}}


def anchor(ref: str) -> dict[str, Any]:
    """The context item by which an update or select names its context."""
    type_ = ref.partition("/")[0]
    return {"key": {"DiagnosticReport": "report"}.get(type_, type_.lower()), "reference": {"reference": ref}}


class Reading(World):
    """A world in which r1 is open. A viewer receives all events of reports and patients."""

    def __init__(self, **rules: Any) -> None:
        super().__init__(**rules)
        self.join("viewer", EVENTS)
        self.publish("DiagnosticReport-open", report("r1"), patient("p1"))
        self.heard("viewer")

    def version(self, ref: str = R1) -> str:
        """The current version of an open context."""
        assert self.session
        type_, _, id_ = ref.partition("/")
        return self.session.contexts[f"{type_.lower()}/{id_}"].version

    def update(self, *entries: object, of: str = R1, version: str | None = None) -> dict[str, Any]:
        """An update of an open context with a new id, not posted yet. Its default prior version is the current one."""
        self._events += 1
        bundle = resource("Bundle", "a-bundle", type="transaction", entry=list(entries))
        name = f"{of.partition('/')[0]}-update"
        posted = message(name, anchor(of), {"key": "updates", "resource": bundle}, id_=f"event-{self._events}")
        posted["event"]["context.versionId"] = self.version(of) if version is None else version
        return posted

    def share(self, *entries: object, of: str = R1, by: Principal | None = None) -> dict[str, Any]:
        """Post an update that must be accepted. Returns the message."""
        posted = self.update(*entries, of=of)
        self.post(posted, by)
        return posted

    def told(self) -> dict[str, Any]:
        """The one message that the viewer was sent."""
        (one,) = self.read("viewer")
        return one

    def refuses(self, posted: object, error: type[HubError], by: Principal | None = None) -> str:
        """Post an update that must be refused, and check that nothing has changed. Returns the reason."""
        before, frames = frozen(self.session), copy.deepcopy(self.frames)
        with pytest.raises(error) as refused:
            self.post(posted, by)
        assert type(refused.value) is error
        assert (frozen(self.session), self.frames) == (before, frames)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def shared(self, by: Principal | None = None) -> list[str]:
        """The shared content of the current context in GET's answer, in short."""
        resources = [entry["resource"] for entry in self.content(by).get("entry", [])]
        return [f"{each['resourceType']}/{each['id']}" for each in resources]

    def raw(self, by: Principal | None = None) -> bytes:
        """GET's answer as bytes."""
        return current_context(self.session, by or token(), TOPIC, self.rules)
