"""The OpenAPI description of all HTTP routes: those of hub.url, and those of the root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhircast_hub.core.limits import MAX_ID, MAX_NAME, MAX_TOPIC
from fhircast_hub.http.sessions import NewSession
from fhircast_hub.versions import VERSION

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
_SESSION_PARAMETERS = {
    "type": "object",
    "required": ["hub.url", "hub.topic"],
    "properties": {"hub.url": _TEXT, "hub.topic": _TEXT},
}
_SHOWN_PARTICIPANT = {
    "type": "object",
    "required": ["name", "events", "neverMatch", "channel", "since", "lastAcknowledgement", "state"],
    "properties": {
        "name": _TEXT,
        "events": {"type": "array", "items": _TEXT},
        "neverMatch": {
            "type": "array",
            "items": _TEXT,
            "description": "Those of the events that no event can have as its name.",
        },
        "channel": _TEXT,
        "since": {
            "type": "string",
            "format": "date-time",
            "description": "Of not connected yet: when the subscription was made. Of left and lost: when the socket ended."
            " Of all other states: when the present socket connected, or the callback was verified.",
        },
        "lastAcknowledgement": {"type": ["string", "null"], "format": "date-time"},
        "state": {
            "type": "string",
            "description": "not connected yet; connected (sent no event yet); in sync; does not acknowledge; refused X;"
            " silent; left (the socket ended by 1000 or 1001); or lost (the socket ended otherwise, and should come back)",
        },
    },
}
_TOPIC = {"name": "topic", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
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


def describe(hub_path: str) -> dict[str, Any]:
    """The description."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "fhircast-hub", "version": VERSION},
        "paths": _hub_paths(hub_path) | _session_paths() | _open_paths(),
        "components": {
            "schemas": {
                "NewSession": NewSession.model_json_schema(),
                "SessionParameters": _SESSION_PARAMETERS,
                "ShownParticipant": _SHOWN_PARTICIPANT,
            },
            "securitySchemes": {"HTTPBearer": {"type": "http", "scheme": "bearer", "bearerFormat": "SMART on FHIR"}},
        },
    }


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
    get = _operation("The current context", {200: ("The context with its shared content.", _CONTEXT)})
    well_known = _operation("What the hub supports", {200: ("The configuration.", {"type": "object"})}, secured=False)
    statement = {200: ("The CapabilityStatement.", {"type": "object"})}
    metadata = _operation("CapabilityStatement", statement, secured=False, media="application/fhir+json")
    return {
        path or "/": {"post": post},
        f"{path}/{{topic}}": {"parameters": [_TOPIC], "get": get, "post": post},
        f"{path}/.well-known/fhircast-configuration": {"get": well_known},
        f"{path}/metadata": {"get": metadata},
    }


def _session_paths() -> dict[str, Any]:
    body = {"application/json": {"schema": _named("NewSession")}}
    parameters = "SMART launch parameters, to be put beside access_token."
    begin = _operation(
        "The user's session that was begun here before, or a new one",
        {201: (parameters, _named("SessionParameters"))},
        body=body,
    )
    participants = {200: ("The subscribers.", {"type": "array", "items": _named("ShownParticipant")})}
    show = _operation("The session's subscribers, and which of them are in sync", participants)
    end = _operation("End a session; its subscribers get a denial", {204: ("The session has ended.", None)})
    return {
        "/sessions": {"post": begin},
        "/sessions/{topic}/participants": {"parameters": [_TOPIC], "get": show},
        "/sessions/{topic}": {"parameters": [_TOPIC], "delete": end},
    }


def _open_paths() -> dict[str, Any]:
    """The paths at the root that need no token."""
    live = _operation("The process answers", {200: ("Live.", _TEXT)}, secured=False, media="text/plain")
    answers = {
        200: ("The hub serves. A line for each issuer without usable keys.", _TEXT),
        503: ("The hub starts or stops, or its database does not answer.", _TEXT),
    }
    ready = _operation(
        "Whether the store is open and the hub accepts requests", answers, secured=False, media="text/plain"
    )
    metrics = _operation(
        "Metrics in Prometheus' text format",
        {200: ("Prometheus text format.", _TEXT)},
        secured=False,
        media="text/plain",
    )
    this = _operation(
        "The description of all HTTP routes", {200: ("All HTTP routes.", {"type": "object"})}, secured=False
    )
    return {
        "/health/live": {"get": live},
        "/health/ready": {"get": ready},
        "/metrics": {"get": metrics},
        "/openapi.json": {"get": this},
    }


def _operation(
    summary: str,
    answers: Mapping[int, tuple[str, dict[str, Any] | None]],
    *,
    body: dict[str, Any] | None = None,
    secured: bool = True,
    media: str = "application/json",
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": {}}
    for status, (description, schema) in answers.items():
        content = {"content": {media: {"schema": schema}}} if schema else {}
        operation["responses"][str(status)] = {"description": description, **content}
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    if secured:
        operation["security"] = [{"HTTPBearer": []}]
        operation["responses"] = _refusals() | operation["responses"]
    return operation


def _named(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _refusals() -> dict[str, Any]:
    """The refusals of a request with a token, in JSON or text (SUB-24)."""
    content = {"text/plain": {"schema": _TEXT}, "application/json": {"schema": _REFUSAL}}
    return {str(status): {"description": why, "content": content} for status, why in REFUSALS.items()}
