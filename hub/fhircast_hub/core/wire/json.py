"""JSON that a client sent: the hub decodes only the members that it needs. Errors name the member by its path.

A duplicate member is refused in every object that the hub splits (EVT-6). The hub and a subscriber could each read another of
the two.
Every function takes time in proportion to the size of the text, whatever the text holds.

Two ways lead to the members of an object. msgspec's dict is fast, but drops duplicates. The quotation marks of the text
are counted to find duplicates. Where the count proves nothing, the object is decoded with `_UniqueName` as its keys, and
duplicates stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import NamedTuple, TypeVar

import msgspec

from fhircast_hub.core.errors import BadRequest, HubError
from fhircast_hub.core.limits import MAX_DEPTH, MAX_ID, MAX_MEMBERS

_T = TypeVar("_T")
#: The members of a JSON object by name. The values are undecoded bytes.
Members = dict[str, msgspec.Raw]
#: The members of a JSON object. Strings may be decoded, and objects may be split into their members.
PartlyDecoded = dict[str, str | Members | msgspec.Raw]

#: Longest text, in bytes, that is decoded before its members are counted. Takes at most 2 ms.
SMALL_BYTES = 32 << 10
#: Most members that are decoded with `_UniqueName` in one step. Takes at most 2 ms.
_MAX_AT_ONCE = 8192
#: Members of objects in an array that have a quotation mark in a name. Such objects are decoded twice.
_MAX_WITH_QUOTES = 4096

#: Control characters, line ends, and unpaired surrogates, which UTF-8 cannot encode.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: U+FEFF in UTF-8. .NET writes it before a text.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OBJECT, _ARRAY = ord("{"), ord("[")

#: Writes JSON.
encode = msgspec.json.Encoder().encode
#: The value null.
NULL = msgspec.Raw(b"null")

_MEMBERS = msgspec.json.Decoder(Members)
_MEMBERS_OR_NULL: msgspec.json.Decoder[Members | None] = msgspec.json.Decoder(Members | None)
_OBJECTS = msgspec.json.Decoder(list[Members])
_SIMPLE_OBJECTS = msgspec.json.Decoder(list[dict[str, str | Members]])
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_STRING_OR_NULL = msgspec.json.Decoder(str | None)

#: msgspec's finding about a value of a wrong type: the types that were expected, the actual type, and the path.
_WRONG_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`(?: - at `\$(.*)`)?")
#: msgspec's names of types in the words of JSON.
_TYPE_NAMES = {
    "object": "an object",
    "array": "an array",
    "str": "a string",
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
}


class TypeAndId(msgspec.Struct):
    """The two members that identify a resource."""

    resourceType: str
    id: str | None = None


class ItemLimit(NamedTuple):
    """How many items an array may have, and the error for an array of more."""

    maximum: int
    error: Callable[[int], HubError]


class _UniqueName:
    """The name of a member, as a key that equals no other: members of the same name stay two."""

    __slots__ = ()


class _NameCollector:
    """Makes the keys of a decoder, and keeps the name behind each. Raises _TooManyNames beyond `maximum`, to stop the decoder."""

    def __init__(self, maximum: int) -> None:
        self.names: list[str] = []
        self._maximum = maximum

    def __call__(self, _: type, name: str) -> _UniqueName:
        self.names.append(name)
        if len(self.names) > self._maximum:
            raise _TooManyNames
        return _UniqueName()


class _TooManyNames(Exception):
    pass


def decode(decoder: msgspec.json.Decoder[_T], raw: bytes | msgspec.Raw, path: str) -> _T:
    """Decode `raw`, the value at `path`. Raises BadRequest that names the path of the fault."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _wrong_type(path, str(error)) from None
    except RecursionError:
        raise BadRequest(f"{path} may be nested at most {MAX_DEPTH} deep, and this one is nested deeper") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} must be JSON: {str(error).removeprefix('JSON is malformed: ')}") from None


def _wrong_type(path: str, finding: str) -> BadRequest:
    """msgspec's finding (Expected `str`, got `int` - at `$[0].key`) as an error of the hub."""
    if not (found := _WRONG_TYPE.fullmatch(finding)):
        return BadRequest(f"{path}: {finding}".replace("`", ""))
    expected, actual = ([_TYPE_NAMES.get(name, name) for name in types.split(" | ")] for types in found.groups()[:2])
    return BadRequest(f"{path}{found[3] or ''} must be {' or '.join(expected)}, not {actual[0]}")


def pairs_of(text: bytes | msgspec.Raw, path: str) -> list[tuple[str, msgspec.Raw]]:
    """The members of a JSON object in their order, duplicates included. Raises BadRequest for more than MAX_MEMBERS."""
    collector = _NameCollector(MAX_MEMBERS)
    try:
        raws = decode(msgspec.json.Decoder(dict[_UniqueName, msgspec.Raw], dec_hook=collector), text, path)
    except _TooManyNames:
        raise BadRequest(f"{path} may have at most {MAX_MEMBERS} members, and this one has more") from None
    return list(zip(collector.names, raws.values(), strict=True))


def members_of(text: bytes | msgspec.Raw, path: str) -> Members:
    """The members of the JSON object at `path`.

    Raises BadRequest for a duplicate member, however its name is escaped (EVT-6), and for more than MAX_MEMBERS.
    """
    members = _members_by_quotes(text, path)
    return _members_by_pairs(text, path) if members is None else members


def _members_by_pairs(text: bytes | msgspec.Raw, path: str) -> Members:
    pairs = pairs_of(text, path)
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadRequest(f"{path} may have each member once, and this one has a member twice")
    return members


def _members_by_quotes(text: bytes | msgspec.Raw, path: str) -> Members | None:
    """The members of a small object. None: the object is not small, or its quotation marks do not rule out duplicates."""
    if len(memoryview(text)) > SMALL_BYTES:
        return None
    members = decode(_MEMBERS, text, path)
    return members if _quotes_match(bytes(text), [members]) else None


def _quotes_match(text: bytes, objects: list[Members]) -> bool:
    """Whether the JSON `text` has no members but those of `objects`. Also False where a name has a quotation mark in it."""
    # A member has two quotation marks around its name, and those of its value. A dropped duplicate leaves more in the text.
    counts = list(map(len, objects))
    values = b"".join(chain.from_iterable(map(dict.values, objects)))
    return text.count(b'"') == 2 * sum(counts) + values.count(b'"') and max(counts, default=0) <= MAX_MEMBERS


def members_of_each(
    array: bytes | msgspec.Raw, nested: Iterable[str], path: str, limit: ItemLimit
) -> tuple[list[PartlyDecoded], list[Members] | None]:
    """The members of each object in the JSON array at `path`. Their members with a name in `nested` are split, too.

    The second value: the same members, undecoded. None where every value is a string or an object of the first.

    Raises the error of `limit` for more items than its maximum. Raises BadRequest as `members_of` does.
    A nested member that is an array stays undecoded. Its objects are checked.
    """
    if len(memoryview(array)) <= SMALL_BYTES:
        simple = decode_simple_objects(array)
        if simple is not None and simple[1] == bytes(array).count(b'"') and len(simple[0]) <= limit.maximum:
            return simple[0], None
    objects = _decode_objects(array)
    if objects is None or len(objects) > limit.maximum:
        raws = decode(_RAWS, array, path)
        if len(raws) > limit.maximum:
            raise limit.error(len(raws))
        objects = _decode_one_by_one(raws, (f"{path}[{index}]" for index in range(len(raws))))
    return _split_nested(objects, nested, path), objects


def _decode_objects(array: bytes | msgspec.Raw) -> list[Members] | None:
    """The members of each object in a JSON array. None: the members are many, or something is wrong with one of them."""
    collector = _NameCollector(_MAX_AT_ONCE)
    try:
        if len(memoryview(array)) <= SMALL_BYTES:
            found: list[Members] = _OBJECTS.decode(array)
            return found if _quotes_match(bytes(array), found) else None
        objects = msgspec.json.Decoder(list[dict[_UniqueName, msgspec.Raw]], dec_hook=collector).decode(array)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, _TooManyNames):
        return None
    names = iter(collector.names)
    found = [{name: raw for raw, name in zip(each.values(), names, strict=False)} for each in objects]
    counts = list(map(len, found))
    if sum(counts) != len(collector.names) or max(counts, default=0) > MAX_MEMBERS:
        return None
    return found


def _decode_one_by_one(raws: list[msgspec.Raw], paths: Iterable[str]) -> list[Members]:
    """`members_of` each. Decodes twice the objects that have a quotation mark in a name: FHIR has no such names.

    Raises BadRequest for more than _MAX_WITH_QUOTES members of such objects.
    """
    found: list[Members] = []
    with_quotes = 0
    for raw, path in zip(raws, paths, strict=True):
        members = _members_by_quotes(raw, path)
        if members is None:
            members = _members_by_pairs(raw, path)
            with_quotes += len(members)
            if with_quotes > _MAX_WITH_QUOTES:
                raise BadRequest(
                    f"{path}: at most {_MAX_WITH_QUOTES} members may have quotation marks in their names, and there are more"
                )
        found.append(members)
    return found


def _split_nested(objects: list[Members], nested: Iterable[str], path: str) -> list[PartlyDecoded]:
    """Split the objects in the `nested` members of `objects`. Checks the objects in arrays there, too."""
    result: list[PartlyDecoded] = [{**members} for members in objects]
    places: list[tuple[int, str]] = []
    raws: list[msgspec.Raw] = []
    for index, members in enumerate(objects):
        for name in nested:
            if name in members:
                inner = _objects_in(members[name])
                raws += inner
                places += [(index, name)] * len(inner)
    found = _decode_objects(b"[%b]" % b",".join(raws))
    if found is None:
        found = _decode_one_by_one(raws, ("{}[{}].{}".format(path, *place) for place in places))
    for (index, name), raw, members in zip(places, raws, found, strict=True):
        if raw is objects[index][name]:
            result[index][name] = members
    return result


def _objects_in(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """An object itself; the objects in an array. Any other value has none."""
    first = memoryview(raw)[0]
    if first == _ARRAY:
        return [each for each in _RAWS.decode(raw) if memoryview(each)[0] == _OBJECT]
    return [raw] if first == _OBJECT else []


def decode_simple_objects(array: bytes | msgspec.Raw) -> tuple[list[PartlyDecoded], int] | None:
    """The objects in a JSON array, where all their members are strings and objects. None: any other array.

    The second value is the number of quotation marks that the array has without duplicate members.
    """
    try:
        found: list[PartlyDecoded] = _SIMPLE_OBJECTS.decode(array)  # type: ignore[assignment]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    strings = 0  # names and string values: two quotation marks each
    values: list[msgspec.Raw] = []
    for each in found:
        strings += len(each)
        for value in each.values():
            if type(value) is str:
                strings += 1
            else:
                strings += len(value)
                values += value.values()  # type: ignore[union-attr]
    if strings > MAX_MEMBERS and any(len(value) > MAX_MEMBERS for each in found for value in (each, *each.values())):
        return None
    return found, 2 * strings + b"".join(values).count(b'"')


def string_in(members: Members | PartlyDecoded, name: str, path: str) -> str:
    """The string that is the member `name` of the object at `path`. Raises BadRequest if it is missing, or another value."""
    value = members.get(name)
    if isinstance(value, str):
        return value
    try:
        return _STRING.decode(value)  # type: ignore[arg-type]  # anything but bytes is refused below
    except (TypeError, msgspec.MsgspecError, UnicodeDecodeError):
        path = f"{path}.{name}" if path else name
    if value is None:
        raise BadRequest(f"{path} is required")
    if isinstance(value, dict):
        raise BadRequest(f"{path} must be a string, not an object")
    return decode(_STRING, value, path)


def string_or_none(members: Members | PartlyDecoded, name: str, path: str) -> str | None:
    """As `string_in`. None: the member is missing, or null."""
    value = members.get(name, NULL)
    if isinstance(value, str):
        return value
    return None if value == NULL else string_in(members, name, path)


def object_in(members: PartlyDecoded, name: str, path: str) -> Members | None:
    """The object that is the member `name` of the object at `path`. None: missing, or null. Raises BadRequest for another value."""
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        raise BadRequest(f"{path}.{name} must be an object or null, not a string")
    decoded: Members | None = decode(_MEMBERS_OR_NULL, value, f"{path}.{name}")
    return decoded


def decode_type_and_id(resource: Members) -> TypeAndId:
    """The type and id of a resource. Raises KeyError, MsgspecError or UnicodeDecodeError for a faulty one."""
    return TypeAndId(_STRING.decode(resource["resourceType"]), _STRING_OR_NULL.decode(resource.get("id", NULL)))


def type_and_id_of(resource: Members, path: str, index: int | None = None) -> TypeAndId:
    """The type and id of the resource in the object at `path`. With an `index`, `path` is that of an array of such objects.

    Raises BadRequest where resourceType is no string, or id neither a string nor null.
    """
    try:
        return decode_type_and_id(resource)
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError):
        where = f"{path}.resource" if index is None else f"{path}[{index}].resource"
    return TypeAndId(string_in(resource, "resourceType", where), string_or_none(resource, "id", where))


def ref_of(resource: TypeAndId | None) -> str:
    """The ref of a resource: its type in lower case, a slash, its id. "": the resource has no id, or a too long one."""
    if resource is None or not resource.id or len(resource.id) > MAX_ID:
        return ""
    return f"{resource.resourceType.lower()}/{resource.id}"


def strip_bom(raw: bytes) -> bytes:
    """A JSON text without the byte order mark before it. A parser "MAY ignore the presence of a byte order mark" (RFC 8259, 8.1)."""
    return raw.removeprefix(_BYTE_ORDER_MARK)


def reject_control_characters(path: str, value: str) -> str:
    """Return `value`. Raises BadRequest that names `path` for a value with control characters."""
    if not value.isprintable() and _CONTROL.search(value):
        raise BadRequest(f"{path} must not have control characters")
    return value
