"""Answers of the server, and its errors (FHIR R4, "OperationOutcome")."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse


class FhirResponse(JSONResponse):
    """A resource, which must not be cached: it contains patient data."""

    media_type = "application/fhir+json"

    def __init__(self, content: Any, status_code: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(content, status_code, {"Cache-Control": "no-store"} | (headers or {}))


class FhirError(Exception):
    """A refused request: HTTP status, issue-type code, and the reason for users."""

    def __init__(self, status: int, code: str, diagnostics: str) -> None:
        super().__init__(diagnostics)
        self.status, self.code, self.diagnostics = status, code, diagnostics


def refusal(status: int, code: str, diagnostics: str, headers: dict[str, str] | None = None) -> FhirResponse:
    """An OperationOutcome with one error."""
    issue = {"severity": "error", "code": code, "diagnostics": diagnostics}
    return FhirResponse({"resourceType": "OperationOutcome", "issue": [issue]}, status, headers)
