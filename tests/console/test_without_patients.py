"""Words that subscribers write, without those of the open contexts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from fhircast_hub.console.without_patients import (
    MAX_BYTES,
    MAX_LETTERS,
    NAME_SEARCH,
    REASON_SEARCH,
    OpenText,
    shown_name,
)
from fhircast_hub.core.state.session import Session
from tests.core.rules.webhook_world import Hooked
from tests.core.world import patient

pytestmark = pytest.mark.req("CSL-5")

WHO: dict[str, Any] = {
    "name": [{"family": "Berg-Hansen", "given": ["Åse", "Ola"]}, {"family": "Nordmann"}],
    "identifier": [{"system": "urn:mrn", "value": "MRN-4711"}, {"value": "01018012345"}],
    "birthDate": "1980-01-01",
}


def session_with(context: bytes) -> Session:
    """A session with one open context, whose array is this."""
    world = Hooked()
    world.publish("Patient-open", patient("p"))
    session = world.session
    assert session
    ((ref, opened),) = session.contexts.items()
    opened = replace(opened, frame=context, context_at=0, context_size=len(context))
    return replace(session, contexts={ref: opened})


def text_of(resource: Any, search: int = REASON_SEARCH) -> OpenText:
    written = resource if isinstance(resource, bytes) else json.dumps(resource, ensure_ascii=False).encode()
    return OpenText((session_with(written), None), search)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("has a note that waits", "has … note that waits"),
        ("ÅSE berg-hansen waits", "… …-… waits"),
        ("A\u030ase waits", "… waits"),
        ("born 010180 12345, but 19800101", "born …, but …"),
        ("born 01.01.1980, 01 01-80", "born …, …"),
        ("note x7y of Nordmann_Ola waits", "note … of …_… waits"),
        ("\uff2eordmann waits", "… waits"),  # a wide N
        ("Somebody else than Kari waits", "Somebody else than … waits"),
        ("nord\u200bmann waits", "…\u200b… waits"),
        ("Patient-open of ImagingStudy waits", "Patient-open of ImagingStudy waits"),
        ("", ""),
    ],
)
def test_a_reason_has_no_words_of_open_contexts_no_names_and_no_numbers(reason: str, shown: str) -> None:
    """Whatever their case and spelling. A capital letter is the start of the sentence, or a name."""
    assert text_of(WHO).reason(reason) == shown


def test_without_contexts_numbers_and_names_are_left_out_still() -> None:
    assert OpenText((None,), REASON_SEARCH).reason("Waits for Kari, 17 notes of her") == "Waits for …, … notes of her"


@pytest.mark.parametrize(
    "context",
    [
        b"x" * (MAX_BYTES + 1),
        b'{"family": "Nordmann\\u006e"}',
        ("".join(map(chr, range(0x4E00, 0x4E00 + MAX_LETTERS + 1))) + "x" * 5000).encode(),
        ("A\u030ase" + "x" * 5000).encode(),
        ("æ" * 8000).encode(),
    ],
)
def test_beyond_its_bounds_a_search_leaves_out_everything(context: bytes) -> None:
    """A text that is too long, has escaped letters, or takes long to compare. Where names cannot be searched, the client is shown."""
    text = text_of(context)
    assert text.reason("a note waits") == "…"
    assert text.name("Chart") is None
    assert OpenText((), REASON_SEARCH).reason("x" * 257) == "…"


def test_a_search_ends_when_enough_was_searched() -> None:
    """The words that were not searched are left out."""
    text = text_of(b"x" * MAX_BYTES)
    assert text.reason("of these so many are shown") == "of these so many … …"
    assert text_of(b"x" * 1000).reason("y" * 33) == "…"
    names = text_of(b"x" * MAX_BYTES, NAME_SEARCH)
    shown = [names.name("".join(map(chr, (97 + number, 98 + number)))) for number in range(20)]
    assert shown[:16] == [f"{chr(97 + number)}{chr(98 + number)}" for number in range(16)]
    assert shown[16:] == [None] * 4


@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_a_large_text_is_searched_in_any_case(case: Any) -> None:
    """Letters beyond ASCII too."""
    text = text_of((case("Åse Bjørn Ærlig ½") + " filler" * 5000).encode())
    assert text.reason("bjørn åse waits") == "… … waits"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Chart 2", "Chart 2"),
        ("PACS3 West", "PACS3 West"),
        ("Viewer of Åse NORDMANN", "Viewer of … …"),
        ("Nordmann_Ola", "…_…"),
        ("chart 4711", "chart …"),
        ("Patient chart", "Patient chart"),
        ("", ""),
    ],
)
def test_a_name_has_no_words_of_open_contexts(name: str, shown: str) -> None:
    """Other capital letters and digits are as they were."""
    assert text_of(WHO, NAME_SEARCH).name(name) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("patient-OPEN", "Patient-open"),
        ("UserLogout", "UserLogout"),
        ("org.example.transmogrify", "org.example.transmogrify"),
        ("org.example.v123", "org.example.v123"),
        ("org.example.p0101", "other"),
        ("org.example.p0x1y0z1", "other"),
        ("org.nordmann", "other"),
        ("nordmann", "other"),
        ("org.example.a-open", "other-open"),
        ("org..example", "other"),
        ("Observation-open", "other-open"),
        ("aase-Select", "other-select"),
        ("a-b", "other"),
    ],
)
def test_names_that_are_neither_of_the_catalogue_nor_reverse_domain_are_not_shown(name: str, shown: str) -> None:
    assert shown_name(name) == shown
