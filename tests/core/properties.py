"""Values for property tests of the core, and what each refusal must look like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

from fhircast_hub.core.errors import HubError
from tests.core.world import CLOSES, OPENS

settings: Callable[..., of_hypothesis] = partial(of_hypothesis, deadline=None, derandomize=True)
ALPHABET = "abzABZ019._-"
KNOWN = [*OPENS.split(","), *CLOSES.split(","), "DiagnosticReport-update", "SyncError", "heartbeat", "Home-open"]
names = st.one_of(st.sampled_from(KNOWN), st.text(ALPHABET, max_size=127).map("x".__add__))
cases = st.sampled_from([str, str.lower, str.upper, str.swapcase])
#: Text of any characters that JSON and UTF-8 can say.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def check_reason(error: HubError) -> None:
    """A reason is one line, fit for a log and a developer's eyes."""
    assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+", str(error))


def check_strict(text: bytes) -> None:
    """Raise unless any reader of JSON reads it."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    json.loads(text.decode(), parse_constant=refuse)
