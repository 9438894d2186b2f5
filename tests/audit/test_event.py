"""AuditEvents: each kind is valid FHIR R4B, and keeps what the pattern of IHE that it claims demands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from fhircast_hub.audit.event import Act, AuditEntry, make_audit_event, patients

HUB = "https://hub.example/api/hub"
TOPIC, HASH = "room 12 ø", "0123456789ab"
BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
ASKED = {"issuer": "https://idp.example", "user": "ann", "client": "viewer", "address": "192.0.2.7"}
SOURCE, DESTINATION = "110153", "110152"


def made(act: Act = Act.PUBLISH, **members: Any) -> dict[str, Any]:
    """The AuditEvent of an entry at noon, as FHIR's models read it."""
    line = make_audit_event(AuditEntry(act, 1_800_014_400.0, **members), HUB, {TOPIC: HASH}.__getitem__)
    assert b"\n" not in line
    AuditEvent.model_validate_json(line)
    resource: dict[str, Any] = json.loads(line)
    return resource


def agents(resource: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Its agents by what they are in the exchange."""
    return {agent["type"]["coding"][0]["code"]: agent for agent in resource["agent"]}


@pytest.mark.req("AUD-1")
@pytest.mark.parametrize("status", [0, 202, 401, 500])
@pytest.mark.parametrize("asked", [{}, {"address": "192.0.2.7"}, {"client": "viewer", "issuer": "i"}, ASKED])
@pytest.mark.parametrize("about", [{}, {"event": "Patient-open", "patients": ("Patient/p1",), "topic": TOPIC}])
@pytest.mark.parametrize("act", Act)
def test_every_kind_is_a_valid_auditevent(act: Act, about: dict[str, Any], asked: dict[str, Any], status: int) -> None:
    """Whatever is known of it and however it ended."""
    resource = made(act, status=status, reason="Forbidden" if status > 400 else "", **about, **asked)
    assert resource["resourceType"] == "AuditEvent"
    assert len({json.dumps(agent["type"]) for agent in resource["agent"]}) == len(resource["agent"])
    assert sum(agent["requestor"] for agent in resource["agent"]) == 1, "one of them began it"


@pytest.mark.req("AUD-1")
@pytest.mark.parametrize(
    ("act", "action", "interaction"),
    [
        (Act.SUBSCRIBE, "C", "create"),
        (Act.UNSUBSCRIBE, "D", "delete"),
        (Act.PUBLISH, "C", "create"),
        (Act.READ, "R", "read"),
        (Act.SESSION, "U", "update"),
        (Act.CONNECT, "E", "operation"),
        (Act.ELSEWHERE, "E", "operation"),
        (Act.OTHER, "E", "operation"),
    ],
)
def test_what_was_done(act: Act, action: str, interaction: str) -> None:
    """As FHIR's action, as FHIR's interaction, by the hub's own name, and which event."""
    resource = made(act, event="Patient-open")
    assert (resource["action"], resource["type"]["code"]) == (action, "rest")
    assert [each["code"] for each in resource["subtype"]] == [interaction, act.code, "Patient-open"]
    assert len(made(act)["subtype"]) == 2


@pytest.mark.req("AUD-1")
def test_when_and_how_it_ended() -> None:
    """An instant in UTC; success, the client's failure with the reason, the hub's failure."""
    assert made()["recorded"] == "2027-01-15T12:00:00.000Z"
    outcomes = {status: made(status=status)["outcome"] for status in (0, 200, 202, 204, 400, 401, 409, 429, 500, 503)}
    assert outcomes == dict.fromkeys((0, 200, 202, 204), "0") | dict.fromkeys((400, 401, 409, 429), "4") | {
        500: "8",
        503: "8",
    }
    assert made(status=403, reason="Forbidden")["outcomeDesc"] == "Forbidden"
    assert "outcomeDesc" not in made(status=202)


@pytest.mark.req("AUD-1")
@pytest.mark.parametrize(
    ("act", "of_hub", "of_client", "of_user"),
    [(Act.PUBLISH, DESTINATION, SOURCE, "AUT"), (Act.READ, SOURCE, DESTINATION, "IRCP")],
)
def test_who_did_it(act: Act, of_hub: str, of_client: str, of_user: str) -> None:
    """Hub, client and user, each as where data came from or went to, the latter two named within their issuer."""
    found = agents(made(act, **ASKED))
    assert found.keys() == {of_hub, of_client, of_user}
    assert found[of_hub]["who"]["identifier"] == {"value": HUB}
    assert found[of_client]["who"]["identifier"] == {"system": "https://idp.example", "value": "viewer"}
    assert found[of_client]["network"] == {"address": "192.0.2.7", "type": "2"}
    assert found[of_user]["who"]["identifier"] == {"system": "https://idp.example", "value": "ann"}
    assert [agent["requestor"] for agent in found.values()] == [False, False, True]


@pytest.mark.req("AUD-1")
@pytest.mark.parametrize(
    ("asked", "requestor"),
    [
        ({"client": "scheduler", "issuer": "i", "address": "192.0.2.7"}, SOURCE),
        ({"address": "192.0.2.7"}, SOURCE),
        ({}, DESTINATION),
    ],
)
def test_who_is_not_a_user(asked: dict[str, Any], requestor: str) -> None:
    """A client without a user asked itself, a stranger is known by address only, and else it was the hub's own doing."""
    found = agents(made(**asked))
    assert [role for role, agent in found.items() if agent["requestor"]] == [requestor]
    assert ("who" in found[requestor]) == (asked.keys() != {"address"})


@pytest.mark.req("AUD-1", "AUD-8")
def test_of_which_patient_and_session() -> None:
    """References of its patients, and the session by its topic, with the hash of log lines as a detail."""
    resource = made(patients=("Patient/p1", "Patient/p2"), topic=TOPIC)
    person, other, session = resource["entity"]
    assert [person["what"], other["what"]] == [{"reference": "Patient/p1"}, {"reference": "Patient/p2"}]
    assert (person["type"]["code"], person["role"]["code"]) == ("1", "1")
    assert session["what"] == {"identifier": {"system": "urn:fhircast-hub:topic", "value": TOPIC}}
    assert session["detail"] == [{"type": "urn:fhircast-hub:topic-hash", "valueString": HASH}]
    assert (session["type"]["code"], session["role"]["code"]) == ("2", "4")


@pytest.mark.req("AUD-8")
def test_a_request_without_a_topic_names_none() -> None:
    """No text that could be a topic stands there."""
    [session] = made()["entity"]
    assert session["what"] == {"display": "no topic was read"}
    assert "detail" not in session


@pytest.mark.req("AUD-1")
@pytest.mark.parametrize(
    ("act", "pattern"),
    [(Act.SUBSCRIBE, "Create"), (Act.PUBLISH, "Create"), (Act.READ, "Read"), (Act.SESSION, "Update")],
)
def test_the_pattern_is_claimed_of_what_keeps_it(act: Act, pattern: str) -> None:
    """BALP's are of what succeeded, by a client that is known with its address; a patient's where there is one."""
    assert made(act, **ASKED)["meta"]["profile"] == [BALP + pattern]
    assert made(act, patients=("Patient/p1",), **ASKED)["meta"]["profile"] == [f"{BALP}Patient{pattern}"]
    for lacking in ({**ASKED, "status": 403}, {**ASKED, "client": ""}, {**ASKED, "address": ""}):
        assert "meta" not in made(act, **lacking)


@pytest.mark.req("AUD-1")
@pytest.mark.parametrize("act", [Act.UNSUBSCRIBE, Act.CONNECT, Act.ELSEWHERE, Act.OTHER])
def test_no_pattern_is_claimed_where_none_fits(act: Act) -> None:
    """Delete has no room for a second subtype, and what could not be read follows none."""
    assert "meta" not in made(act, **ASKED)


@pytest.mark.req("AUD-1")
@pytest.mark.parametrize("text", ['"}],', "\n\r\u2028", "\x00\x1b[31m", "Ærø 患者 😀"])
def test_text_of_others_stays_text(text: str) -> None:
    """No name breaks out of its member or its line."""
    resource = made(client=text, issuer=text, address="192.0.2.7")
    assert agents(resource)[SOURCE]["who"]["identifier"]["value"] == text


@pytest.mark.req("AUD-1")
@pytest.mark.parametrize(
    ("ref", "implied", "expected"),
    [
        ("patient/p1", {}, ("Patient/p1",)),
        ("imagingstudy/s1", {"patient": "patient/p2"}, ("Patient/p2",)),
        ("patient/p1", {"patient": "patient/p2"}, ("Patient/p1",)),
        ("imagingstudy/s1", {"encounter": "encounter/e1"}, ()),
        ("", {}, ()),
    ],
)
def test_the_patient_of_a_context(ref: str, implied: dict[str, str], expected: tuple[str, ...]) -> None:
    """The anchor if it is one, else the one it implies, else none."""
    assert patients(ref, implied) == expected
