"""A PIX manager: IHE PIXm, transaction ITI-83."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx

from fhircast_identity.http_json import UnusableAnswer, ask, token
from fhircast_identity.local import Local, Query, Resource, dicts, text
from fhircast_identity.rules import in_force

#: 2:3.83.4.2.2: an unknown identifier is 404 `not-found`, an unknown source system 400 `code-invalid`. An unknown
#: target system is 403, which is a fault of the configuration here, and not an answer about the patient.
_UNKNOWN_STATUSES, _UNKNOWN_CODES = (400, 404), ("not-found", "code-invalid")


class PixManager:
    """`GET base/Patient/$ihe-pix?sourceIdentifier=system|value&targetSystem=...`.

    The local id is the identifier of `target_system`. Where that is a FHIR server's base address, the local id is the
    id of the Patient there. Without `target_system`, it is the id of the Patient in the answer. Answers have no
    demographics: the check needs another resolver. Knows only patients, and only identifiers with a system.
    """

    name = "the patient index"

    def __init__(self, base: str, http: httpx.AsyncClient, *, target_system: str = "") -> None:
        self._base, self._http, self._target = base.rstrip("/"), http, target_system.strip()

    async def find(self, query: Query) -> list[Local]:
        """The patient's ids in the target system. Raises UnusableAnswer or httpx.HTTPError."""
        if query.type != "Patient" or not query.system:
            return []
        parameters = await self._ask(query.system, query.value, self._target)
        if parameters is None:
            return []
        ids = [each for each in self._ids(parameters, query) if each]
        return [Local(each, identifiers=_identifiers(parameters), source=self.name) for each in ids]

    async def known(self, kind: str, local_id: str) -> list[Local]:
        """The patient of a local id with its identifiers in all systems. Raises UnusableAnswer or httpx.HTTPError."""
        if kind != "Patient" or not self._target:
            return []
        parameters = await self._ask(self._target, local_id, "")
        if parameters is None:
            return []
        own = {"system": self._target, "value": local_id}
        return [Local(local_id, identifiers=(own, *_identifiers(parameters)), source=self.name)]

    def _ids(self, parameters: list[Resource], query: Query) -> list[str]:
        found = [each["value"] for each in _identifiers(parameters) if each["system"] == self._target]
        if self._target == query.system and not query.logical:
            # "The identifier value given in the sourceIdentifier parameter shall not be included in the response."
            return [query.value, *found]
        targets = [each for each in parameters if each.get("name") == "targetId"]
        given = [text(each.get("reference")) for target in targets for each in dicts(target, "valueReference")]
        addresses = {each.partition("/_history/")[0] for each in given if self._is_ours(each)}
        # Ids of two servers may be the same by chance, so several addresses count as several ids.
        return found + [each.rpartition("/")[2] if len(addresses) == 1 else each for each in sorted(addresses)]

    def _is_ours(self, reference: str) -> bool:
        """Whether the reference is a Patient, on the target server where there is one."""
        server, patient, id_ = f"/{reference}".partition("/_history/")[0].rpartition("/Patient/")
        return (
            bool(patient and id_) and "/" not in id_ and (not self._target or server == f"/{self._target.rstrip('/')}")
        )

    async def _ask(self, system: str, value: str, target: str) -> list[Resource] | None:
        """The parameters of the answer; None where the manager does not know the identifier."""
        asked = [("sourceIdentifier", token(system, value)), *([("targetSystem", target)] if target else [])]
        address = f"{self._base}/Patient/$ihe-pix"
        answer = await ask(self._http, address, asked, "application/fhir+json")
        parameters = answer.json
        if answer.status in _UNKNOWN_STATUSES and _says_unknown(parameters):
            return None
        if (
            answer.status != httpx.codes.OK
            or not isinstance(parameters, dict)
            or parameters.get("resourceType") != "Parameters"
        ):
            raise UnusableAnswer(
                f"the answer must be status 200 and Parameters, and this one is status {answer.status}"
            )
        return dicts(parameters, "parameter")


def _identifiers(parameters: list[Resource]) -> tuple[Resource, ...]:
    named = [each for each in parameters if each.get("name") == "targetIdentifier"]
    found = [each for parameter in named for each in dicts(parameter, "valueIdentifier")]
    now = datetime.now(UTC)
    return tuple(
        each | {"system": text(each.get("system")), "value": text(each.get("value"))}
        for each in found
        if text(each.get("value")) and in_force(each, now)
    )


def _says_unknown(answer: Any) -> bool:
    if not isinstance(answer, dict) or answer.get("resourceType") != "OperationOutcome":
        return False
    return any(issue.get("code") in _UNKNOWN_CODES for issue in dicts(answer, "issue"))
