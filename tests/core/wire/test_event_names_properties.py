"""Any text is an event name or a bad request."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.event_names import Kind, classify, parse_events
from tests.core.properties import cases, check_reason, names, settings, texts


@pytest.mark.req("SUB-18", "EVT-4")
@settings(max_examples=60)
@given(st.lists(st.tuples(names, cases), min_size=1, max_size=8))
def test_events_are_the_same_in_any_case_and_when_read_again(asked: list[tuple[str, Callable[[str], str]]]) -> None:
    """Each once, in the order asked, and spelled as it was asked for first."""
    granted = parse_events(change(name) for name, change in asked)
    assert parse_events(granted) == granted
    assert [name.lower() for name in granted] == list(dict.fromkeys(name.lower() for name, _ in asked))
    spelled = [change(name) for name, change in asked]
    assert all(
        name in spelled and name.lower() not in map(str.lower, spelled[: spelled.index(name)]) for name in granted
    )


@pytest.mark.req("EVT-4", "EVT-5")
@settings(max_examples=150)
@given(
    st.one_of(
        texts,
        names,
        st.text("Ppatient-openclosupdatesrc.İK", max_size=20),
        st.tuples(
            st.text("Az\u212a9", max_size=4), st.sampled_from(["-open", "-Close", "-update", "-select", ".x"])
        ).map("".join),
    )
)
@example("\u212aind-open")
@example("Home-open")
def test_any_text_is_an_event_or_a_bad_request(name: str) -> None:
    """Nothing else is raised; the kind and the type do not depend on the case, and the type is that of the name."""
    try:
        kind, type_ = classify(name)
    except BadRequest as error:
        check_reason(error)
        for change in (str.lower, str.upper):
            if name.isascii():
                with pytest.raises(BadRequest):
                    classify(change(name))
        return
    assert name.isascii()
    assert classify(name.lower()) == classify(name.upper()) == (kind, type_)
    if type_:
        assert name.lower() == f"{type_}-{kind.value}"
    else:
        assert kind in (Kind.HOME, Kind.PASSED_ON)
