"""The media types that a client accepts (RFC 9110, "Accept"), as far as DICOMweb needs them."""

from __future__ import annotations

import re
from typing import NamedTuple

#: Splits at commas or semicolons outside of quotes.
_LIST = re.compile(r'(?:[^,"]|"[^"]*")+')
_PARAMETERS = re.compile(r'(?:[^;"]|"[^"]*")+')


class _Range(NamedTuple):
    media: str
    parameters: dict[str, str]
    quality: float


def best(accept: str, offered: tuple[str, ...]) -> str | None:
    """The media type of `offered` that the client prefers; the server's preference comes first. None: the client
    accepts none.

    `multipart/related` is offered with its type: 'multipart/related; type="application/dicom"'.
    """
    ranges = [_read(each) for each in _LIST.findall(accept)] or [_read("*/*")]
    liking = {each: max((a.quality for a in ranges if _covers(a, _read(each))), default=0.0) for each in offered}
    liked = max(offered, key=lambda each: liking[each])
    return liked if liking[liked] > 0 else None


def _read(text: str) -> _Range:
    media, *rest = (each.strip() for each in _PARAMETERS.findall(text) or [""])
    pairs = (each.partition("=") for each in rest)
    parameters = {name.strip().lower(): value.strip().strip('"').lower() for name, _, value in pairs}
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 0.0
    return _Range(media.lower(), parameters, quality)


def _covers(accepted: _Range, offered: _Range) -> bool:
    kind = offered.media.partition("/")[0]
    wanted = accepted.parameters.get("type", offered.parameters.get("type"))
    syntax = accepted.parameters.get("transfer-syntax", "*")
    return (
        accepted.media in {"*/*", f"{kind}/*", offered.media}
        and wanted == offered.parameters.get("type")
        and syntax in {"*", offered.parameters.get("transfer-syntax")}
    )
