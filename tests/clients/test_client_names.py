"""A handler whose event name is misspelt is never called: the log says so when the handler is given."""

from __future__ import annotations

import logging

import pytest

from fhircast_client.testing import FakeHub
from tests.clients.fakes import Heard

pytestmark = pytest.mark.req("CLT-33")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Patient-opne", "Patient-open"),
        ("patient-open ", "Patient-open"),
        ("Pateint-close", "Patient-close"),
        ("DiagnosticReports-update", "DiagnosticReport-update"),
        ("ImagingStudy-zoom", "ImagingStudy-open"),
        ("Logout", "UserLogout"),
        ("switch-patient-chart", "Patient-open"),
        ("Condition-opened", ""),
        ("org.example.my-own", ""),
    ],
)
async def test_a_misspelt_name_is_said_when_the_handler_is_given(
    name: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeHub() as hub:
        hub.client("viewer").on(name, Heard())
    (record,) = [record for record in caplog.records if record.name == "fhircast_client"]
    said = f'unknown event name "{name}"' + (
        f": did you mean {meant}?" if meant else "; a name is such as Patient-open"
    )
    assert (record.levelno, record.getMessage()) == (logging.WARNING, said)


@pytest.mark.parametrize(
    "name",
    [
        *("Patient-open", "PATIENT-CLOSE", "imagingstudy-select", "DiagnosticReport-update", "Home-open"),
        *("userlogout", "UserHibernate", "SyncError", "heartbeat", "com.example.zoomed"),
        *("Parameters-open", "Media-open", "ResearchStudy-open", "ImagingSelection-select", "Person-update"),
    ],
)
async def test_a_name_that_events_may_have_is_not_mentioned(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeHub() as hub:
        hub.client("viewer").on(name, Heard())
    assert not caplog.records
