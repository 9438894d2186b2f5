"""Reading JSON that somebody sent: only what the hub needs of it, with errors that name the member.

No member may be there twice in what the hub looks into (EVT-6): the hub and a subscriber could each read another one of the two.
All of this takes time in proportion to the size of the text, whatever is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import NoReturn, TypeVar

import msgspec

from fhircast_hub.core.errors import BadRequest, HubError
from fhircast_hub.core.limits import MAX_DEPTH, MAX_ID, MAX_MEMBERS

_T = TypeVar("_T")
Members = dict[str, msgspec.Raw]
#: The members of an object that the hub looks into: texts may have been read, and so may be the members of the objects in it.
Looked = dict[str, str | Members | msgspec.Raw]

#: Control characters, line ends, and halves of a character that no UTF-8 can say.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: U+FEFF in UTF-8. .NET writes it before a text.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Bytes of a text whose members are all read before they are counted, and members that are read one by one: both take a
#: millisecond or two.
SMALL, _FEW = 32 << 10, 8192
#: Members of objects with a quotation mark in a name, which are read twice.
_SLOW = 4096
_OBJECT, _ARRAY = ord("{"), ord("[")

_MEMBERS = msgspec.json.Decoder(Members)
_OBJECTS = msgspec.json.Decoder(list[Members])
_USUAL = msgspec.json.Decoder(list[dict[str, str | Members]])
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_TEXT_OR_NONE = msgspec.json.Decoder(str | None)
#: The value of a member that says none.
#: Writes JSON.
encode = msgspec.json.Encoder().encode
NULL = msgspec.Raw(b"null")
_WRONG: msgspec.json.Decoder[Members | None] = msgspec.json.Decoder(Members | None)


class _Name:
    """The name of a member, which is no other's: members of the same name stay two."""

    __slots__ = ()


class _Names:
    """Makes these names, and keeps how they are spelled. Raises TooMany beyond `most`, so that no more are read."""

    def __init__(self, most: int) -> None:
        self.spelled: list[str] = []
        self._most = most

    def __call__(self, _: type, name: str) -> _Name:
        self.spelled.append(name)
        if len(self.spelled) > self._most:
            raise _TooMany
        return _Name()


class _TooMany(Exception):
    pass


class Stub(msgspec.Struct):
    """All that the hub looks at in a resource."""

    resourceType: str
    id: str | None = None


def decoded(decoder: msgspec.json.Decoder[_T], raw: bytes | msgspec.Raw, what: str) -> _T:
    """`raw` read by `decoder`. Raises BadRequest that names the member, as a path from `what`."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        _refuse(what, str(error))
    except RecursionError:
        raise BadRequest(f"{what}: expected JSON nested at most {MAX_DEPTH} deep, got more") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{what}: expected JSON: {error}") from None


def pairs_of(text: bytes | msgspec.Raw, what: str) -> list[tuple[str, msgspec.Raw]]:
    """The members of a JSON object in their order, those of the same name too. Raises BadRequest for more than MAX_MEMBERS."""
    names = _Names(MAX_MEMBERS)
    try:
        raws = decoded(msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=names), text, what)
    except _TooMany:
        raise BadRequest(f"{what}: expected at most {MAX_MEMBERS} members, got more") from None
    return list(zip(names.spelled, raws.values(), strict=True))


def members_of(text: bytes | msgspec.Raw, what: str) -> Members:
    """The members of a JSON object, whose values are not read.

    Raises BadRequest for a member that is there twice, however it is spelled (EVT-6), and for more than MAX_MEMBERS.
    """
    found = _counted(text, what)
    return _read_slowly(text, what) if found is None else found


def _read_slowly(text: bytes | msgspec.Raw, what: str) -> Members:
    pairs = pairs_of(text, what)
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadRequest(f"{what}: expected each member once, got one twice")
    return members


def _counted(text: bytes | msgspec.Raw, what: str) -> Members | None:
    """The members of a small object, if quotes show that there are no others."""
    if len(memoryview(text)) > SMALL:
        return None
    members = decoded(_MEMBERS, text, what)
    return members if _are_all(bytes(text), [members]) else None


def _are_all(text: bytes, objects: list[Members]) -> bool:
    """Whether the JSON `text` has no members but these of its `objects`. False too where a quotation mark stands in a name."""
    # Each has the two quotes of its name and those of its value. There are more where one has the name of another.
    counts = list(map(len, objects))
    values = b"".join(chain.from_iterable(map(dict.values, objects)))
    return text.count(b'"') == 2 * sum(counts) + values.count(b'"') and max(counts, default=0) <= MAX_MEMBERS


def look_into(
    array: bytes | msgspec.Raw, names: Iterable[str], what: str, most: int, too_many: Callable[[int], HubError]
) -> tuple[list[Looked], list[Members] | None]:
    """The members of each object in a JSON array, and of the objects that it has under these `names`; `what` names the array.

    The second is the members alone, where these had to be read apart.

    Where the array has more than `most`, raises `too_many` of them. Else raises BadRequest as `members_of` does, also about objects
    in an array under one of the names.
    """
    if len(memoryview(array)) <= SMALL:
        found = usual(array)
        if found is not None and found[1] == bytes(array).count(b'"') and len(found[0]) <= most:
            return found[0], None
    objects = _at_once(array)
    if objects is None or len(objects) > most:
        raws = decoded(_RAWS, array, what)
        if len(raws) > most:
            raise too_many(len(raws))
        objects = _one_by_one(raws, (f"{what}[{at}]" for at in range(len(raws))))
    return _look_deeper(objects, names, what), objects


def _at_once(array: bytes | msgspec.Raw) -> list[Members] | None:
    """The members of each object in a JSON array; None where they are many, or not all as they should be."""
    names = _Names(_FEW)
    try:
        if len(memoryview(array)) <= SMALL:
            found: list[Members] = _OBJECTS.decode(array)
            return found if _are_all(bytes(array), found) else None
        objects = msgspec.json.Decoder(list[dict[_Name, msgspec.Raw]], dec_hook=names).decode(array)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, _TooMany):
        return None
    left = iter(names.spelled)
    found = [{name: raw for raw, name in zip(each.values(), left, strict=False)} for each in objects]
    counts = list(map(len, found))
    if sum(counts) != len(names.spelled) or max(counts, default=0) > MAX_MEMBERS:
        return None
    return found


def _one_by_one(raws: list[msgspec.Raw], what: Iterable[str]) -> list[Members]:
    """`members_of` each. Names with quotation marks are read slowly, and FHIR has none: BadRequest where they are thousands."""
    found: list[Members] = []
    slow = 0
    for raw, where in zip(raws, what, strict=True):
        members = _counted(raw, where)
        if members is None:
            members = _read_slowly(raw, where)
            slow += len(members)
            if slow > _SLOW:
                raise BadRequest(
                    f"{where}: expected up to {_SLOW} members with quotation marks in their names, got more"
                )
        found.append(members)
    return found


def _look_deeper(objects: list[Members], names: Iterable[str], what: str) -> list[Looked]:
    looked: list[Looked] = [{**members} for members in objects]
    places: list[tuple[int, str]] = []
    raws: list[msgspec.Raw] = []
    for at, members in enumerate(objects):
        for name in names:
            if name in members:
                some = _objects(members[name])
                raws += some
                places += [(at, name)] * len(some)
    found = _at_once(b"[%b]" % b",".join(raws))
    if found is None:
        found = _one_by_one(raws, ("{}[{}].{}".format(what, *place) for place in places))
    for (at, name), raw, members in zip(places, raws, found, strict=True):
        if raw is objects[at][name]:
            looked[at][name] = members
    return looked


def _objects(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """The value itself where it is an object, or the objects in it where it is an array."""
    first = memoryview(raw)[0]
    if first == _ARRAY:
        return [each for each in _RAWS.decode(raw) if memoryview(each)[0] == _OBJECT]
    return [raw] if first == _OBJECT else []


def usual(array: bytes | msgspec.Raw) -> tuple[list[Looked], int] | None:
    """The objects in a JSON array where all members are texts and objects, and the quotes that it has if no member is there twice.

    None for any other array.
    """
    try:
        found: list[Looked] = _USUAL.decode(array)  # type: ignore[assignment]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    texts = 0  # names, and texts without quotes in them
    values: list[msgspec.Raw] = []
    for each in found:
        texts += len(each)
        for value in each.values():
            if type(value) is str:
                texts += 1
            else:
                texts += len(value)
                values += value.values()  # type: ignore[union-attr]
    if texts > MAX_MEMBERS and any(len(value) > MAX_MEMBERS for each in found for value in (each, *each.values())):
        return None
    return found, 2 * texts + b"".join(values).count(b'"')


def text_in(members: Members | Looked, name: str, what: str) -> str:
    """The text that is a member of what `what` names. Raises BadRequest where it is missing, and for another value."""
    value = members.get(name)
    if isinstance(value, str):
        return value
    try:
        return _TEXT.decode(value)  # type: ignore[arg-type]  # what is no bytes is refused below
    except (TypeError, msgspec.MsgspecError, UnicodeDecodeError):
        where = f"{what}.{name}" if what else name
    if value is None:
        raise BadRequest(f"{where}: expected it, and it is missing")
    if isinstance(value, dict):
        raise BadRequest(f"{where}: expected str, got object")
    return decoded(_TEXT, value, where)


def text_or_none(members: Members | Looked, name: str, what: str) -> str | None:
    """As `text_in`; None where it is missing, or null."""
    value = members.get(name, NULL)
    if isinstance(value, str):
        return value
    return None if value == NULL else text_in(members, name, what)


def object_in(looked: Looked, name: str, what: str) -> Members | None:
    """The object that is a member of what `what` names; None where it is missing, or null. Raises BadRequest for another value."""
    value = looked.get(name)
    if value is None:
        return None
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        raise BadRequest(f"{what}.{name}: expected object or null, got str")
    none: Members | None = decoded(_WRONG, value, f"{what}.{name}")
    return none


def stub_of(resource: Members, what: str, at: int | None = None) -> Stub:
    """The type and id of the resource of what `what` names, or of the one `at` an index there. Raises BadRequest where they are none."""
    try:
        return Stub(_TEXT.decode(resource["resourceType"]), _TEXT_OR_NONE.decode(resource.get("id", NULL)))
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError):
        where = f"{what}.resource" if at is None else f"{what}[{at}].resource"
    return Stub(text_in(resource, "resourceType", where), text_or_none(resource, "id", where))


def strip_bom(raw: bytes) -> bytes:
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
