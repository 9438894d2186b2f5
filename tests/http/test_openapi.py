"""The OpenAPI description: of all routes, and true. schemathesis asks what it says may be asked, and what it says may not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fhircast_hub.http.root import ROOT_PATHS
from tests.process.hub_process import PATIENCE, HubProcess, hub_process, issuer_thread
from tests.running import TOPIC, running_hub

#: Requests for each operation, half of them as described; always the same ones.
EXAMPLES = 20
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = {
    "POST /api/hub",
    "GET /api/hub/{topic}",
    "POST /api/hub/{topic}",
    "GET /api/hub/.well-known/fhircast-configuration",
    "GET /api/hub/metadata",
    "POST /sessions",
    "GET /sessions/{topic}/participants",
    "DELETE /sessions/{topic}",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
    "GET /openapi.json",
}
OPEN = {each for each in OPERATIONS if not any(part in each for part in ("{topic}", "/sessions", "POST"))}

Described = tuple[HubProcess, dict[str, Any], list[str]]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    """A hub, its description, and the tokens of a user and a system client."""
    with issuer_thread() as issuer:
        issuers = [issuer.settings[0] | {"system_clients": ["ehr"]}]
        with hub_process(tmp_path_factory.mktemp("hub"), issuers=issuers, log_level="error") as hub:
            description = httpx.get(f"{hub.origin}/openapi.json", trust_env=False, timeout=PATIENCE)
            assert (description.status_code, description.headers["Content-Type"]) == (200, "application/json")
            system = issuer.idp.token("ehr", "fhircast/*.* fhircast-hub/sessions.write", client_id="ehr")
            yield hub, description.json(), [issuer.idp.token(), system]
            assert hub.process.poll() is None
            assert hub.stdout == "", "nothing went wrong in the hub"


def operations(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, item in description["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_every_route_is_described(described: Described) -> None:
    """These and no others; who needs no token says so by having no security."""
    found = operations(described[1])
    assert found.keys() == OPERATIONS
    assert {each.partition(" ")[2] for each in found if "{" not in each and "/api/hub" not in each} == ROOT_PATHS
    assert {each for each, operation in found.items() if not operation.get("security")} == OPEN


def test_refusals_and_bodies_are_described(described: Described) -> None:
    """What needs a token may be refused in each of the ways; what is posted has a schema."""
    for name, operation in operations(described[1]).items():
        if name not in OPEN:
            assert {"400", "401", "403", "404", "409", "429", "503"} <= operation["responses"].keys(), name
        assert ("requestBody" in operation) == name.startswith("POST"), name
        assert operation["responses"].keys() & {"200", "201", "202", "204"}, name


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_the_hub_answers_as_described(described: Described, name: str) -> None:
    """Whatever is sent, by whomever: a status, a content type and a body that the description has, and never a 5xx."""
    hub, description, tokens = described
    method, _, path = name.partition(" ")
    operation = schemathesis.openapi.from_dict(description)[path][method]
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode if possible(name, mode)))

    @settings(
        derandomize=True,
        database=None,
        max_examples=EXAMPLES if name in OPEN else 3 * EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, token=st.sampled_from([*tokens, "no token"]), of_ours=st.booleans())
    def ask(case: Case[Any], token: str, of_ours: bool) -> None:
        if of_ours and "topic" in case.path_parameters:
            case.path_parameters["topic"] = TOPIC
        headers = {"Authorization": f"Bearer {token}"}
        case.call_and_validate(base_url=hub.origin, headers=headers, checks=CHECKS)

    ask()


def possible(name: str, mode: GenerationMode) -> bool:
    """Nothing can be wrong with a request that has no parts."""
    return mode is GenerationMode.POSITIVE or name.startswith("POST")


async def test_the_description_has_the_hubs_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client can tell what it talks to."""
    monkeypatch.setattr("fhircast_hub.http.openapi.VERSION", "7.8.9")
    async with running_hub() as hub:
        assert (await hub.client.get(f"{hub.origin}/openapi.json")).json()["info"]["version"] == "7.8.9"
