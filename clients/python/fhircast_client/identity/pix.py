"""A PIX manager: IHE PIXm, transaction ITI-83."""

from __future__ import annotations

from typing import Any

import httpx

from fhircast_client.identity.local import Local, Query, Resource, dicts, text
from fhircast_client.identity.web import Unanswered, ask, token

#: 2:3.83.4.2.2: an unknown identifier is 404 `not-found`, an unknown source system 400 `code-invalid`. An unknown
#: target system is 403: that is our own configuration, and says nothing about the patient.
_UNKNOWN_STATUSES, _UNKNOWN_CODES = (400, 404), ("not-found", "code-invalid")


class PixManager:
    """`GET base/Patient/$ihe-pix?sourceIdentifier=system|value&targetSystem=...`.

    The local id is the identifier of `target_system` or, where that is a FHIR server's base address, the id of the
    Patient there; without it the id of the Patient that the manager names. Answers have no demographics: the check
    needs another resolver. Knows patients only, and no identifier without a system.
    """

    name = "the patient index"

    def __init__(self, base: str, http: httpx.AsyncClient, *, target_system: str = "") -> None:
        self._base, self._http, self._target = base.rstrip("/"), http, target_system.strip()

    async def find(self, query: Query) -> list[Local]:
        """The patient's ids in the target system. Raises Unanswered or httpx.HTTPError."""
        if query.type != "Patient" or not query.system:
            return []
        parameters = await self._ask(query.system, query.value, self._target)
        if parameters is None:
            return []
        ids = [each for each in self._ids(parameters, query) if each]
        return [Local(each, identifiers=_identifiers(parameters), source=self.name) for each in ids]

    async def known(self, kind: str, local_id: str) -> list[Local]:
        """The patient of a local id with its identifiers in all systems. Raises Unanswered or httpx.HTTPError."""
        if kind != "Patient" or not self._target:
            return []
        parameters = await self._ask(self._target, local_id, "")
        if parameters is None:
            return []
        own = {"system": self._target, "value": local_id}
        return [Local(local_id, identifiers=(own, *_identifiers(parameters)), source=self.name)]

    def _ids(self, parameters: list[Resource], query: Query) -> list[str]:
        if self._target == query.system and not query.logical:
            # "The identifier value given in the sourceIdentifier parameter shall not be included in the response."
            return [query.value]
        found = [each["value"] for each in _identifiers(parameters) if each["system"] == self._target]
        targets = [each for each in parameters if each.get("name") == "targetId"]
        references = [text(each.get("reference")) for target in targets for each in dicts(target, "valueReference")]
        prefix = f"{self._target.rstrip('/')}/Patient/" if self._target else ""
        return found + [each.rpartition("/")[2] for each in references if each.startswith(prefix)]

    async def _ask(self, system: str, value: str, target: str) -> list[Resource] | None:
        """The parameters of the answer; None where the manager does not know the identifier."""
        asked = [("sourceIdentifier", token(system, value)), *([("targetSystem", target)] if target else [])]
        address = f"{self._base}/Patient/$ihe-pix"
        status, answer = await ask(self._http, address, asked, "application/fhir+json")
        if status in _UNKNOWN_STATUSES and _says_unknown(answer):
            return None
        if status != httpx.codes.OK or not isinstance(answer, dict) or answer.get("resourceType") != "Parameters":
            raise Unanswered(f"status {status}, or no Parameters")
        return dicts(answer, "parameter")


def _identifiers(parameters: list[Resource]) -> tuple[Resource, ...]:
    named = [each for each in parameters if each.get("name") == "targetIdentifier"]
    found = [each for parameter in named for each in dicts(parameter, "valueIdentifier")]
    return tuple(
        each | {"system": text(each.get("system")), "value": text(each.get("value"))}
        for each in found
        if text(each.get("value")) and each.get("use") != "old"
    )


def _says_unknown(answer: Any) -> bool:
    if not isinstance(answer, dict) or answer.get("resourceType") != "OperationOutcome":
        return False
    return any(issue.get("code") in _UNKNOWN_CODES for issue in dicts(answer, "issue"))
