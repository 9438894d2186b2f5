"""The OpenAPI description of all HTTP routes. Those of hub.url are written here, those of the root come from FastAPI."""

from __future__ import annotations

from typing import Any

from fhircast_hub.core.limits import MAX_ID, MAX_NAME, MAX_TOPIC

_TEXT = {"type": "string"}
_FORM = {
    "type": "object",
    "required": ["hub.mode", "hub.topic"],
    "properties": {
        "hub.channel.type": {"type": "string", "enum": ["websocket", "webhook"]},
        "hub.mode": {"type": "string", "enum": ["subscribe", "unsubscribe"]},
        "hub.topic": {"type": "string", "minLength": 1, "maxLength": MAX_TOPIC},
        "hub.events": {
            "type": "string",
            "description": "Event names with commas between them.",
            "example": "Patient-open",
        },
        "hub.lease_seconds": {"type": "integer", "minimum": 1},
        "hub.channel.endpoint": {"type": "string", "description": "The endpoint of the subscription to renew or end."},
        "hub.callback": {"type": "string", "description": "The URL of a webhook."},
        "hub.secret": {"type": "string", "description": "The key that signs the posts to a webhook."},
        "subscriber.name": {"type": "string", "maxLength": MAX_NAME},
    },
}
_EVENT = {
    "type": "object",
    "required": ["timestamp", "id", "event"],
    "properties": {
        "timestamp": {"type": "string", "format": "date-time"},
        "id": {"type": "string", "minLength": 1, "maxLength": MAX_ID},
        "event": {
            "type": "object",
            "required": ["hub.topic", "hub.event", "context"],
            "properties": {
                "hub.topic": {"type": "string", "minLength": 1, "maxLength": MAX_TOPIC},
                "hub.event": {"type": "string", "example": "Patient-open"},
                "context.versionId": {"type": "string", "description": "The version that an update changes."},
                "context": {
                    "type": "array",
                    "items": {"type": "object", "required": ["key"], "properties": {"key": _TEXT}},
                },
            },
        },
    },
}
_ENDPOINT = {"type": "object", "properties": {"hub.channel.endpoint": _TEXT}}
_REFUSAL = {"type": "object", "required": ["message"], "properties": {"message": _TEXT}}
_CONTEXT = {
    "type": "object",
    "required": ["context.type", "context.versionId", "context"],
    "properties": {
        "context.type": _TEXT,
        "context.versionId": _TEXT,
        "context": {"type": "array", "items": {"type": "object"}},
    },
}
#: The statuses of refusals, for any request with a token.
REFUSALS = {
    400: "The request is wrong; the body names the mistake.",
    401: "No token, or an invalid one.",
    403: "Another user's topic, or a missing scope.",
    404: "No such endpoint, callback or session of this user.",
    405: "The path has no such method.",
    408: "The body did not end in time.",
    409: "Another version, a context that is not open, or a session without an owner.",
    413: "The body is too large.",
    415: "The body is neither a form nor JSON.",
    429: "A limit is reached. Try again after Retry-After.",
    503: "An issuer or the store does not answer. Try again after Retry-After.",
}


def describe(root: dict[str, Any], hub_path: str) -> dict[str, Any]:
    """The description. `root` is FastAPI's, of the root's routes."""
    described = {**root, "paths": {**_hub_paths(hub_path)}}
    for path, operations in root["paths"].items():
        described["paths"][path] = {method: _with_refusals(operation) for method, operation in operations.items()}
    described["components"] = {
        **root.get("components", {}),
        "securitySchemes": {"HTTPBearer": {"type": "http", "scheme": "bearer", "bearerFormat": "SMART on FHIR"}},
    }
    return described


def _hub_paths(path: str) -> dict[str, Any]:
    post = _operation(
        "Subscribe, unsubscribe, or publish an event",
        {202: ("Accepted. The endpoint of a WebSocket's subscription; {} for an event or a webhook.", _ENDPOINT)},
        body={
            "application/x-www-form-urlencoded": {"schema": _FORM},
            "application/json": {"schema": {"anyOf": [_EVENT, _FORM]}},
            "application/fhir+json": {"schema": _EVENT},
        },
    )
    topic = {"name": "topic", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    get = _operation("The current context", {200: ("The context with its shared content.", _CONTEXT)})
    well_known = _operation("What the hub supports", {200: ("The configuration.", {"type": "object"})}, secured=False)
    statement = {200: ("The CapabilityStatement.", {"type": "object"})}
    metadata = _operation("CapabilityStatement", statement, secured=False, media="application/fhir+json")
    return {
        path or "/": {"post": post},
        f"{path}/{{topic}}": {"parameters": [topic], "get": get, "post": post},
        f"{path}/.well-known/fhircast-configuration": {"get": well_known},
        f"{path}/metadata": {"get": metadata},
    }


def _operation(
    summary: str,
    answers: dict[int, tuple[str, dict[str, Any]]],
    *,
    body: dict[str, Any] | None = None,
    secured: bool = True,
    media: str = "application/json",
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": {}}
    for status, (description, schema) in answers.items():
        operation["responses"][str(status)] = {"description": description, "content": {media: {"schema": schema}}}
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    if secured:
        operation["security"] = [{"HTTPBearer": []}]
        return _with_refusals(operation)
    return operation


def _with_refusals(operation: dict[str, Any]) -> dict[str, Any]:
    """`operation` with its refusals, in JSON or text (SUB-24)."""
    content = {"text/plain": {"schema": _TEXT}, "application/json": {"schema": _REFUSAL}}
    refusals = {str(status): {"description": why, "content": content} for status, why in REFUSALS.items()}
    given = {status: answer for status, answer in operation["responses"].items() if status != "422"}
    return (
        {**operation, "responses": refusals | given} if operation.get("security") else {**operation, "responses": given}
    )
