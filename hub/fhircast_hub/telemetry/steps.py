"""Values of traces: the client's span, the trace of a request, its steps."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: https://www.w3.org/TR/trace-context/: version, trace id, parent id, flags. A later version may have more behind a hyphen.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)

Attributes = Mapping[str, str | int]


class Parent(NamedTuple):
    """The span of the client that sent the request."""

    trace_id: int
    span_id: int
    #: The lowest bit: the client's span is sampled.
    flags: int


class Step(NamedTuple):
    """A part of a request, or the whole. Times are those of time.perf_counter_ns."""

    name: str
    began: int
    ended: int
    attributes: Attributes


class Trace(NamedTuple):
    """The trace of a sampled request."""

    trace_id: int
    #: None: the request begins the trace.
    parent: Parent | None
    #: Nanoseconds from the beginning of time.perf_counter_ns to that of the epoch: one clock for all steps.
    epoch: int

    @classmethod
    def begin(cls, trace_id: int, parent: Parent | None = None) -> Trace:
        """The trace of a request that begins now."""
        return cls(trace_id, parent, time.time_ns() - time.perf_counter_ns())


def parent_in(headers: Iterable[tuple[bytes, bytes]]) -> Parent | None:
    """The parent that the header traceparent names. None: it names none, or there are several.

    A client writes any text into tracestate and baggage. So these headers are not read.
    """
    values = [value for name, value in headers if name == b"traceparent"]
    match = _TRACEPARENT.fullmatch(values[0].strip(b" \t")) if len(values) == 1 else None
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None
    parent = Parent(*(int(digits, 16) for digits in match.group(2, 3, 4)))
    return parent if parent.trace_id and parent.span_id else None
