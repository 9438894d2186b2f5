"""Scopes: which events a token may read and write."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhircast_hub.core.access.scopes import SESSIONS, Scopes

NAMES = st.text("aB9._-", min_size=1, max_size=9).map("x".__add__)


@pytest.mark.req("AUT-6")
@pytest.mark.parametrize(
    ("scope", "read", "write"),
    [
        ("fhircast/Patient-open.read", True, False),
        ("fhircast/Patient-open.write", False, True),
        ("fhircast/Patient-open.*", True, True),
        ("fhircast/*.read", True, False),
        ("fhircast/*.write", False, True),
        ("fhircast/*.*", True, True),
        ("FHIRcast/PATIENT-OPEN.Read", True, False),
        ("fhircast/Patient-close.read", False, False),
    ],
)
def test_a_scope_grants_an_event_and_a_verb(scope: str, read: bool, write: bool) -> None:
    """`*` stands for any event and for both verbs; case does not matter."""
    scopes = Scopes.parse([scope])
    assert (scopes.may_read("patient-open"), scopes.may_write("patient-open")) == (read, write)


@pytest.mark.req("AUT-6")
@pytest.mark.parametrize(
    "scope",
    [
        *("", "openid", "launch", "patient/*.read", "user/Patient.read", "fhircast", "fhircast/", "fhircast/*"),
        *("fhircast/Patient-open", "fhircast/Patient-open.rs", "fhircast/Patient-open.readwrite", "fhircast/.read"),
        *("fhircast/Patient-*.read", "fhircast/*-open.read", "xfhircast/*.read", "fhircast/*.read\n", " fhircast/*.*"),
        *("fhircast:*.read", "fhircast/*.read,fhircast/*.write", "fhircast//*.read", "fhircast/**.read"),
    ],
)
def test_other_scopes_grant_nothing(scope: str) -> None:
    """A scope that is only alike is ignored, and does not spoil the others."""
    assert Scopes.parse([scope]) == Scopes()
    assert Scopes.parse([scope, "fhircast/a.read"]) == Scopes.parse(["fhircast/a.read"])


@pytest.mark.req("AUT-6")
def test_dots_in_an_events_name_are_part_of_it() -> None:
    """Only what follows the last dot is the verb."""
    scopes = Scopes.parse(["fhircast/org.example.read.write"])
    assert scopes.may_write("org.example.read")
    assert not scopes.may_read("org.example")


@pytest.mark.req("AUT-6")
@settings(max_examples=40)
@given(st.lists(st.tuples(NAMES, st.sampled_from(["read", "write", "*"]))), NAMES)
def test_scopes_add_up(granted: list[tuple[str, str]], other: str) -> None:
    """A token may do what one of its scopes grants, whatever their order and case, and nothing else."""
    texts = [f"fhircast/{name}.{verb}" for name, verb in granted]
    scopes = Scopes.parse(texts)
    assert scopes == Scopes.parse([text.upper() for text in reversed(texts)])
    for name in [other, *(name for name, _ in granted)]:
        verbs = {verb for given_, verb in granted if given_.lower() == name.lower()}
        assert scopes.may_read(name.lower()) == bool(verbs & {"read", "*"})
        assert scopes.may_write(name.lower()) == bool(verbs & {"write", "*"})


@pytest.mark.req("SES-1", "AUT-6")
def test_sessions_are_begun_by_one_scope() -> None:
    """It says nothing of events, and stands beside scopes that do."""
    assert Scopes.parse([SESSIONS]) == Scopes(sessions=True)
    both = Scopes.parse(["fhircast/a.read", "fhircast-hub/sessions.write", "openid"])
    assert both.sessions
    assert both.may_read("a")
    assert not both.may_write("a")


@pytest.mark.req("SES-1", "AUT-6")
@pytest.mark.parametrize(
    "scope",
    [
        *(
            "fhircast/*.*",
            "fhircast/*.write",
            "fhircast/sessions.write",
            "fhircast-hub/*.*",
            "fhircast-hub/*.write",
            "*",
        ),
        *(
            "fhircast-hub/sessions.*",
            "fhircast-hub/sessions.read",
            "fhircast-hub/sessions.writes",
            "fhircast-hub/sessions",
        ),
        *("Fhircast-Hub/Sessions.Write", "FHIRCAST-HUB/SESSIONS.WRITE", "fhircast-hub/session.write"),
        *("xfhircast-hub/sessions.write", "fhircast-hub/sessions.write ", " fhircast-hub/sessions.write"),
        *("fhircast-hub/sessions.write\n", "fhircast-hub/sessions.write,openid", "fhircast_hub/sessions.write"),
        *("fhircast-hub/ſessions.write", "fhircast-hub/sеssions.write", "fhircast-hub/sessions。write"),  # noqa: RUF001
        *("fhircast\u2010hub/sessions.write", "fhircast-hub%2Fsessions.write", "fhircast-hub//sessions.write", ""),
    ],
)
def test_no_other_scope_begins_sessions(scope: str) -> None:
    """Neither a wildcard nor what only looks alike, in whatever case, script or spelling."""
    assert not Scopes.parse([scope]).sessions
    assert Scopes.parse([scope, SESSIONS]).sessions
    assert Scopes.parse([SESSIONS, scope]).sessions
