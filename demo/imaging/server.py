"""DICOMweb over an archive: QIDO-RS, WADO-RS and rendered images (PS3.18), for requests with a token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from demo.imaging import qido
from demo.imaging.accept import best
from demo.imaging.archive import Archive, Instance, NotHere, Series, Study
from demo.imaging.render import THUMBNAIL, Look, read_window, render
from demo.records.access import Verify, guarded
from demo.records.address import service_url

#: Pictures in the cache: some 10 MiB.
KEPT_PICTURES = 64
_JSON = ("application/dicom+json", "application/json")
_PICTURES = ("image/jpeg", "image/png")
_SYNTAX = "transfer-syntax=1.2.840.10008.1.2.1"
_FILE = f"application/dicom; {_SYNTAX}"
_FILES = f'multipart/related; type="application/dicom"; {_SYNTAX}'
_NOT_KEPT = {"Cache-Control": "no-store"}
# Images never change, but permissions do.
_KEPT = {"Cache-Control": "private, max-age=3600", "Vary": "Accept, Authorization"}


def make_app(archive: Archive, verify: Verify) -> Starlette:
    """An ASGI app with the service at its root: /studies... `verify` takes a token and raises for an invalid one."""
    service = _Service(archive)
    series = "/studies/{study}/series"
    instance = series + "/{series}/instances/{instance}"
    return Starlette(
        routes=[
            Route("/studies", service.studies),
            Route("/studies/{study}/thumbnail", service.thumbnail),
            Route(series, service.series),
            Route(series + "/{series}/instances", service.instances),
            Route(instance, service.instance),
            Route(instance + "/metadata", service.metadata),
            Route(instance + "/rendered", service.rendered),
            Route(instance + "/frames/{frame:int}/rendered", service.rendered),
        ],
        middleware=guarded(verify, _plain(401)),
        exception_handlers={NotHere: _not_here, HTTPException: _http_error},
    )


class _Service:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._render = lru_cache(KEPT_PICTURES)(self._render_now)

    async def studies(self, request: Request) -> Response:
        try:
            found = qido.find_studies(self._archive, request.query_params.multi_items(), service_url(request))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        return _json(request, found)

    async def series(self, request: Request) -> Response:
        study = self._study(request)
        return _json(request, [qido.series_json(each, service_url(request)) for each in study.series.values()])

    async def instances(self, request: Request) -> Response:
        instances = self._series(request).instances.values()
        return _json(request, [qido.instance_json(each, service_url(request)) for each in instances])

    async def metadata(self, request: Request) -> Response:
        return _json(request, [qido.metadata_json(self._instance(request))])

    async def instance(self, request: Request) -> Response:
        instance = self._instance(request)
        chosen = _choose(request, _FILES, _FILE)
        file = await asyncio.to_thread(instance.file)
        if chosen == _FILE:
            return Response(file, headers=_NOT_KEPT, media_type="application/dicom")
        boundary = uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\nContent-Length: {len(file)}\r\n\r\n".encode()
        body = b"".join([head, file, f"\r\n--{boundary}--\r\n".encode()])
        said = f'multipart/related; type="application/dicom"; boundary={boundary}'
        return Response(body, headers=_NOT_KEPT, media_type=said)

    async def rendered(self, request: Request) -> Response:
        """The picture of a frame, by default of the first."""
        self._instance(request)
        place = request.path_params
        return await self._picture(place["study"], place["series"], place["instance"], place.get("frame", 1), request)

    async def thumbnail(self, request: Request) -> Response:
        """The middle of the first series, small."""
        uid, study = str(request.path_params["study"]), self._study(request)
        series_uid, series = next(iter(study.series.items()))
        instance_uid, instance = list(series.instances.items())[len(series.instances) // 2]
        frame = instance.frame_count // 2 + 1
        return await self._picture(uid, series_uid, instance_uid, frame, request, THUMBNAIL)

    async def _picture(
        self, study: str, series: str, instance: str, frame: int, request: Request, size: int | None = None
    ) -> Response:
        look = _look(request, size)
        picture = await asyncio.to_thread(self._render, study, series, instance, frame, look)
        return Response(picture, headers=_KEPT, media_type=look.media_type)

    def _render_now(self, study: str, series: str, instance: str, frame: int, look: Look) -> bytes:
        return render(self._archive.study(study).one_series(series).instance(instance), frame, look)

    def _study(self, request: Request) -> Study:
        return self._archive.study(request.path_params["study"])

    def _series(self, request: Request) -> Series:
        return self._study(request).one_series(request.path_params["series"])

    def _instance(self, request: Request) -> Instance:
        return self._series(request).instance(request.path_params["instance"])


def _choose(request: Request, *offered: str) -> str:
    """The media type that the client prefers. Raises HTTPException."""
    chosen = best(request.headers.get("accept", "*/*"), offered)
    if chosen is None:
        raise HTTPException(
            406, f"Accept must allow {' or '.join(each.partition('; transfer')[0] for each in offered)}"
        )
    return chosen


def _json(request: Request, content: list[qido.Json]) -> Response:
    chosen = _choose(request, *_JSON)
    return JSONResponse(content, headers=_NOT_KEPT, media_type=chosen)


def _look(request: Request, size: int | None) -> Look:
    """The options in `window`, `quality` and Accept. Raises HTTPException."""
    asked = request.query_params
    if unknown := sorted(set(asked) - {"window", "quality"}):
        raise HTTPException(400, f"a rendered image can have window and quality, not {', '.join(unknown)}")
    try:
        window = read_window(asked["window"]) if "window" in asked else None
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    quality = asked.get("quality", "85")
    if not (quality.isascii() and quality.isdigit() and len(quality) <= 3 and 1 <= int(quality) <= 100):
        raise HTTPException(400, "quality must be from 1 to 100")
    return Look(_choose(request, *_PICTURES), window, int(quality), size)


def _plain(status: int) -> Callable[[str, dict[str, str]], Response]:
    """Answers with this status, and only the reason as text."""
    return lambda reason, headers: PlainTextResponse(reason, status, _NOT_KEPT | headers)


async def _not_here(request: Request, error: Exception) -> Response:
    return _plain(404)(str(error), {})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _plain(error.status_code)(error.detail, dict(error.headers or {}))
