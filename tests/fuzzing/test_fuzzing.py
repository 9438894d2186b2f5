"""A short round of the fuzzer, inputs that are made to be slow, and whether it would find them. `make fuzz` looks for longer."""

from __future__ import annotations

import pytest

from tests.core.world import body, message, patient
from tests.fuzzing.inputs import Shape
from tests.fuzzing.parsers import BODY, PARSERS, SMALL, Parser
from tests.fuzzing.run import Judge, wrong_with

_ROUNDS = 60

_MARK = b'"HERE"'
_OPEN = body(message("Patient-open", patient("p1") | {"x": "y"})).replace(b'"x": "y"', b'"x": "HERE"')
_IN_A_RESOURCE = _OPEN.replace(b'"x": "HERE"', b'"x": 1').replace(b'"id": "p1"', b'"id": "p1", "x": "HERE"')
_IN_THE_ENVELOPE = _OPEN.replace(_MARK, b"1").replace(b'{"timestamp"', b'{"x\\u0022\\":": 1, "x": "HERE", "timestamp"')
_UPDATE = body(
    message(
        "DiagnosticReport-update",
        {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
        {"key": "updates", "resource": {"resourceType": "Bundle", "entry": ["HERE"]}},
    )
)
_ENTRY = b'{"request":{"method":"PUT"},"resource":{"resourceType":"Patient","id":"1","x":[%b]}}'
_ACKNOWLEDGED = b'{"id":"e","status":409,'
_FORM = b"hub.mode=subscribe&hub.topic=t&hub.channel.type=websocket&hub.events="


def within(text: bytes, before: bytes, unit: bytes, after: bytes) -> Shape:
    start, end = text.split(_MARK)
    return Shape(start + before, unit, after + end)


MADE_TO_BE_SLOW = {
    "escaped quotes in a name, and objects": ("envelope", within(_IN_THE_ENVELOPE, b"[", b"{},", b"1]")),
    "the same, beside more bytes than objects": (
        "envelope",
        within(_IN_THE_ENVELOPE, b"[", b'{},"%b",' % (b"x" * 50), b"1]"),
    ),
    "nested as deep as may be": ("envelope", within(_IN_A_RESOURCE, b"[", b"[" * 50 + b"]" * 50 + b",", b"1]")),
    "nested deep, beside texts": (
        "envelope",
        within(_IN_A_RESOURCE, b"[", b"[" * 50 + b"]" * 50 + b',"%b",' % (b"x" * 900), b"1]"),
    ),
    "texts without end": ("envelope", within(_IN_A_RESOURCE, b"[[[", b'"[",', b"1]]]")),
    "backslashes": ("envelope", within(_IN_A_RESOURCE, b'"', b"\\\\", b'"')),
    "members of a resource": ("envelope", within(_IN_A_RESOURCE, b"1,", b'"a":0,', b'"b":0')),
    "items": ("envelope", within(_OPEN, b"1},", b'{"key":""},', b'{"key":""')),
    "small resources in an update": ("bundle", within(_UPDATE, b"", _ENTRY % (b"[]," * 700 + b"1") + b",", b"{}")),
    "entries of an update": (
        "bundle",
        within(_UPDATE, b"", b'{"request":{"method":"DELETE"},"fullUrl":"A/1"},', b"{}"),
    ),
    "numbers in an update": ("bundle", within(_UPDATE, _ENTRY[:-4], b"1,", b"1]}}")),
    "names in a form": ("form", Shape(_FORM, b"a,", b"a")),
    "unescaped characters in a form": ("form", Shape(_FORM, "😀%2C:".encode(), b"a")),
    "arrays in a JSON form": ("form", Shape(b'{"hub.mode":"subscribe","x":[', b"{},", b"1]}")),
    "members of what is no JSON": ("acknowledgement", Shape(_ACKNOWLEDGED, b'"a":0,', b"")),
    "arrays in what is no JSON": ("acknowledgement", Shape(_ACKNOWLEDGED + b'"x":[', b"[],", b"1],")),
    "nested in what is no JSON": (
        "acknowledgement",
        Shape(_ACKNOWLEDGED + b'"x":[', b"[" * 500 + b"]" * 500 + b",", b"1],"),
    ),
}


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.mark.req("EVT-6", "SUB-5", "CON-19", "SYN-15")
@pytest.mark.parametrize("name", PARSERS)
def test_nothing_makes_a_parser_fail_or_slow(name: str, judge: Judge) -> None:
    """Some thousand changed inputs, and some that are as long as may be, the same each time."""
    assert [wrong for seed in range(_ROUNDS) for wrong in wrong_with(PARSERS[name], seed, judge)] == []


@pytest.mark.req("EVT-6", "SUB-5", "CON-19", "SYN-15")
@pytest.mark.parametrize("what", MADE_TO_BE_SLOW)
def test_what_is_made_to_be_slow_is_not(what: str, judge: Judge) -> None:
    """The longest that may come, in time that is in proportion."""
    name, shape = MADE_TO_BE_SLOW[what]
    assert judge.of_shape(PARSERS[name], shape) == ""


def test_the_inputs_are_what_they_should_be() -> None:
    """Long, and no nonsense from the start."""
    assert all(
        len(shape.grown(PARSERS[name].longest)) > PARSERS[name].longest * 0.9
        for name, shape in MADE_TO_BE_SLOW.values()
    )
    assert (PARSERS["envelope"].longest, PARSERS["acknowledgement"].longest) == (BODY, SMALL)
    for parser in PARSERS.values():
        for seed in parser.seeds:
            parser.read(seed)


def fails(text: bytes) -> None:
    if b"\\u0022" in text:
        raise ValueError


def slow(text: bytes) -> None:
    for _ in text:
        for _ in range(3):
            str(hash(text[:9]))


def quadratic(text: bytes) -> None:
    for end in range(0, len(text), 16 << 10):
        text[:end].count(b"{")


@pytest.mark.parametrize(("parser", "words"), [(fails, "ValueError"), (slow, "ms for"), (quadratic, "the time for")])
def test_a_parser_that_fails_or_is_slow_is_found(parser: object, words: str) -> None:
    """Within as many rounds as the others were tried."""
    assert callable(parser)
    judge = Judge()  # another one allows more where the machine was slow at some moment
    bad = Parser("bad", parser, PARSERS["envelope"].seeds, SMALL if parser is not quadratic else BODY)
    assert any(words in wrong for seed in range(_ROUNDS) for wrong in wrong_with(bad, seed, judge))
