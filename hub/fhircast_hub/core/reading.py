"""Reading JSON that somebody sent: only what the hub needs of it, with errors that name the member."""

from __future__ import annotations

import re
from typing import NoReturn, TypeVar

import msgspec

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_DEPTH, MAX_ID

_T = TypeVar("_T")

#: Control characters, line ends, and halves of a character that no UTF-8 can say.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: U+FEFF in UTF-8. .NET writes it before a text.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Stub(msgspec.Struct):
    """All that the hub looks at in a resource."""

    resourceType: str
    id: str | None = None


def decoded(decoder: msgspec.json.Decoder[_T], raw: bytes, what: str) -> _T:
    """`raw` read by `decoder`. Raises BadRequest that names the member, as a path from `what`."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        _refuse(what, str(error))
    except RecursionError:
        raise BadRequest(f"{what}: expected JSON nested at most {MAX_DEPTH} deep, got more") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{what}: expected JSON: {error}") from None


def unmarked(raw: bytes) -> bytes:
    """A JSON text without the byte order mark before it: who reads JSON "MAY ignore the presence of a byte order mark" (RFC 8259, 8.1)."""
    return raw.removeprefix(_BYTE_ORDER_MARK)


def check_controls(what: str, value: str) -> str:
    """`value`, if it has no control character; else BadRequest naming `what`."""
    if _CONTROL.search(value):
        raise BadRequest(f"{what}: expected no control characters, got some")
    return value


def ref_of(resource: Stub | None) -> str:
    """The ref of a resource: its type in lower case and its id; "" where it has none."""
    if resource is None or not resource.id or len(resource.id) > MAX_ID:
        return ""
    return f"{resource.resourceType.lower()}/{resource.id}"


def _refuse(what: str, message: str) -> NoReturn:
    """Say msgspec's finding (`Expected `str`, got `int` - at `$[0].key``) in terms of the message."""
    finding, _, path = message.partition(" - at `$")
    raise BadRequest(f"{what}{path.rstrip('`')}: {finding[:1].lower()}{finding[1:]}".replace("`", ""))
