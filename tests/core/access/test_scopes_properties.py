"""A token may do what its scopes grant, for any scopes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhircast_hub.core.access.scopes import Scopes
from tests.core.properties import cases, names, settings, texts

verbs = st.sampled_from(["read", "write", "*"])


@pytest.mark.req("AUT-6")
@settings(max_examples=60)
@given(st.lists(st.tuples(names, verbs, cases), max_size=6), st.lists(texts, max_size=4), names)
def test_a_token_may_do_what_a_scope_grants_and_no_more(
    granted: list[tuple[str, str, Callable[[str], str]]], others: list[str], name: str
) -> None:
    """In any case and order, and whatever other scopes stand beside."""
    written = [change(f"fhircast/{event}.{verb}") for event, verb, change in granted]
    scopes = Scopes.parse([*others, *reversed(written)])
    assert scopes == Scopes.parse(written)
    for asked in (name, *(event for event, _, _ in granted)):
        key = asked.lower()
        assert scopes.may_read(key) == any(event.lower() == key and verb != "write" for event, verb, _ in granted)
        assert scopes.may_write(key) == any(event.lower() == key and verb != "read" for event, verb, _ in granted)


@pytest.mark.req("AUT-6")
@settings(max_examples=60)
@given(
    st.one_of(texts, st.text("fhircast/*.readwit-", max_size=24), st.text("*.-r", max_size=6).map("fhircast/{}".format))
)
def test_what_is_alike_grants_nothing(scope: str) -> None:
    """A scope that is not of the form grants nothing at all."""
    if not re.fullmatch(r"(?i)fhircast/(\*|[a-z0-9][a-z0-9._-]*)\.(read|write|\*)", scope):
        assert Scopes.parse([scope]) == Scopes()
