"""The client's span, and the sampler."""

from __future__ import annotations

import pytest

from fhircast_hub.telemetry.steps import Parent, parent_in
from tests.running import TOPIC, running_hub
from tests.telemetry.traces_world import (
    SAMPLED,
    SPAN,
    TRACE,
    UNSAMPLED,
    Exported,
)


@pytest.mark.req("OPS-28")
@pytest.mark.parametrize(
    "value", [SAMPLED, f" {SAMPLED}\t", f"00-{TRACE}-{SPAN}-ff", f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-more"]
)
def test_the_parent_of_a_request(value: str) -> None:
    parent = parent_in([(b"host", b"hub"), (b"traceparent", value.encode()), (b"tracestate", b"a=b")])
    assert parent == Parent(int(TRACE, 16), int(SPAN, 16), int(value.strip()[53:55], 16))


@pytest.mark.req("OPS-28")
@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        [SAMPLED, SAMPLED],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-01-more"],
        [f"01-{TRACE}-{SPAN}-01more"],
        [f"00-{TRACE.upper()}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}"],
        [f"0-{TRACE}-{SPAN}-01"],
        [f"00-{TRACE}x-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"{SAMPLED},{SAMPLED}"],
        [f"{SAMPLED}\n"],
        ["Patient/1" * 1000],
        ["00-\xff"],
    ],
)
def test_what_names_no_parent(values: list[str]) -> None:
    assert parent_in([(b"traceparent", value.encode("latin-1")) for value in values]) is None


@pytest.mark.req("OPS-28")
async def test_a_request_is_in_the_trace_of_its_client(exported: Exported) -> None:
    """Nothing of tracestate and baggage comes along."""
    async with running_hub() as hub:
        more = {"traceparent": SAMPLED, "tracestate": "vendor=Quastenflosser", "baggage": "patient=Quastenflosser"}
        await hub.client.get(f"{hub.url}/{TOPIC}", headers=hub.headers() | more)
        [span] = exported.of(hub, "context")
    assert span.context
    assert span.parent
    assert (span.context.trace_id, span.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert span.parent.is_remote
    assert not span.context.trace_state
    assert "Quastenflosser" not in span.to_json()


@pytest.mark.req("OPS-28")
@pytest.mark.parametrize(
    ("sampler", "traceparent", "is_traced"),
    [
        ("parentbased_always_on", None, True),
        ("parentbased_always_on", UNSAMPLED, False),
        ("parentbased_always_off", None, False),
        ("parentbased_always_off", SAMPLED, True),
        ("always_off", SAMPLED, False),
        ("always_on", UNSAMPLED, True),
    ],
)
async def test_the_sampler_of_the_variables_decides(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, sampler: str, traceparent: str | None, is_traced: bool
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    async with running_hub() as hub:
        headers = hub.headers() | ({"traceparent": traceparent} if traceparent else {})
        await hub.client.get(f"{hub.url}/{TOPIC}", headers=headers)
        assert bool(exported.of(hub, "context")) == is_traced
