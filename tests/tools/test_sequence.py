"""tools/sequence.py: a diagram has all that its source says, within the picture."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tools.sequence import columns, drawn, parse

SOURCE = """sequenceDiagram
  participant EHR
  participant Hub as The hub & its store
  EHR->>Hub: POST <topic>
  Hub-->>EHR: 202
  Hub->>Viewer: Patient-open, with a text that is much longer than the gap between two
  Note over EHR,Viewer: all of them<br>are in step
  Viewer->>Viewer: shows the patient
"""


def test_all_texts_are_in_the_picture() -> None:
    picture = ElementTree.fromstring(drawn(SOURCE))
    texts = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    for text in ("EHR", "The hub & its store", "Viewer", "POST <topic>", "202", "all of them", "shows the patient"):
        assert text in texts


def test_answers_are_dashed() -> None:
    lines = [line for line in drawn(SOURCE).splitlines() if "marker-end" in line]
    assert ["dasharray" in line for line in lines] == [False, True, False, False]


def test_neighbours_have_room_for_what_goes_between_them() -> None:
    x = columns(parse(SOURCE))
    assert x["EHR"] < x["Hub"] < x["Viewer"]
    assert x["Viewer"] - x["Hub"] > 70 * 6


def test_everything_is_within_the_picture() -> None:
    svg = drawn(SOURCE)
    _, _, width, height = map(float, re.findall(r'viewBox="(.*?)"', svg)[0].split())
    places = re.findall(r'<text x="(\d+)" y="(\d+)"', svg)
    assert places
    assert all(0 < int(x) < width and 0 < int(y) < height for x, y in places)


def test_a_line_that_cannot_be_drawn_is_named() -> None:
    with pytest.raises(ValueError, match="cannot be drawn: loop daily"):
        parse("sequenceDiagram\n  loop daily\n")
