"""The FHIR server: read, search, `$ihe-pix` and transactions, for requests with a token that `verify` accepts."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from demo.records.access import Verify, guarded, may
from demo.records.address import service_url
from demo.records.capability import capability
from demo.records.outcome import FhirError, FhirResponse, refusal
from demo.records.parameters import PARAMETERS
from demo.records.pix import cross_reference
from demo.records.search import read_query, search
from demo.records.store import Store, load
from demo.records.writing import MAX_BODY, etag, read_changes, read_json, transaction

_JSON = {"json", "application/json", "application/fhir+json"}
_ANYTHING = {"*/*", "application/*"}


def make_app(verify: Verify, store: Store | None = None) -> Starlette:
    """An ASGI app with [base] at its root, to be mounted at /fhir. `verify` takes a token and raises for an invalid
    one. `store` replaces the demo's records, of which each app has a copy.
    """
    server = _Server(store or load().copy())
    return Starlette(
        routes=[
            Route("/", server.transaction, methods=["POST"]),
            Route("/metadata", server.metadata),
            Route("/Patient/$ihe-pix", server.pix),
            Route("/{type}", server.search),
            Route("/{type}/{id}", server.read),
        ],
        middleware=guarded(verify, _unauthorized, free=frozenset({"/metadata"}), methods=("GET", "POST")),
        exception_handlers={FhirError: _fhir_error, HTTPException: _http_error},
    )


class _Server:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def metadata(self, request: Request) -> Response:
        _check_format(request)
        return FhirResponse(capability(service_url(request)))

    async def read(self, request: Request) -> Response:
        _check_format(request)
        type_, id_ = _known_type(request), request.path_params["id"]
        found = self._store.get(type_, id_)
        if found is None:
            raise FhirError(404, "not-found", f"there is no {type_} with this id")
        return FhirResponse(found, headers={"ETag": etag(found.get("meta", {}))})

    async def search(self, request: Request) -> Response:
        _check_format(request)
        query = read_query(_known_type(request), request.query_params.multi_items(), strict=_is_strict(request))
        return FhirResponse(search(self._store, query, service_url(request)))

    async def transaction(self, request: Request) -> Response:
        _check_format(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _JSON:
            raise FhirError(415, "not-supported", "Content-Type must be application/fhir+json")
        changes = read_changes(read_json(await _body(request)))
        for type_ in {change.resource["resourceType"] for change in changes}:
            _check_scope(request, type_, "cu")
        return FhirResponse(transaction(self._store, changes))

    async def pix(self, request: Request) -> Response:
        _check_format(request)
        _check_scope(request, "Patient", "rs")
        asked = request.query_params
        if len(sources := asked.getlist("sourceIdentifier")) != 1:
            raise FhirError(400, "required", "exactly one sourceIdentifier is required")
        return FhirResponse(
            cross_reference(self._store, service_url(request), sources[0], asked.getlist("targetSystem"))
        )


async def _body(request: Request) -> bytes:
    """Reads the body. Raises FhirError for one that is too long, before all of it has come."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise FhirError(413, "too-costly", f"the body must have at most {MAX_BODY} bytes")
    return bytes(body)


def _known_type(request: Request) -> str:
    type_ = str(request.path_params["type"])
    if type_ not in PARAMETERS:
        raise FhirError(404, "not-supported", "there are no resources of this type here")
    _check_scope(request, type_, "rs")
    return type_


def _check_scope(request: Request, type_: str, rights: str) -> None:
    if not may(request, type_, rights):
        raise FhirError(403, "forbidden", f"the token lacks the scope user/{type_}.{rights}")


def _check_format(request: Request) -> None:
    """`_format` counts before Accept. Raises FhirError where neither accepts JSON."""
    # In a URL a plus is a space, and many clients forget it.
    named = request.query_params.get("_format", "").replace(" ", "+")
    asked = named or request.headers.get("accept") or "*/*"
    if not {each.partition(";")[0].strip().lower() for each in asked.split(",")} & (_JSON | _ANYTHING):
        raise FhirError(406, "not-supported", "only JSON is supported: application/fhir+json")


def _is_strict(request: Request) -> bool:
    """`Prefer: handling=strict`, perhaps with other preferences."""
    wishes = request.headers.get("prefer", "").replace(";", ",").replace(" ", "").lower()
    return "handling=strict" in wishes.split(",")


def _unauthorized(reason: str, headers: dict[str, str]) -> Response:
    return refusal(401, "login", reason, headers)


async def _fhir_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FhirError)
    return refusal(error.status, error.code, error.diagnostics)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not-found", 405: "not-supported"}.get(error.status_code, "processing")
    return refusal(error.status_code, code, error.detail, dict(error.headers or {}))
