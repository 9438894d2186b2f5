"""Inputs for parsers: good ones with a few changes, and long ones that are one thing over and over."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

#: What parsers of JSON, forms and frames stumble over.
_TOKENS = (
    *(
        b'"',
        b"\\",
        b'\\"',
        b"\\\\",
        b"\\u0022",
        b"\\u0000",
        b"\\ud800",
        b"\\u0069d",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
    ),
    *(
        b"{}",
        b"[]",
        b'""',
        b"{},",
        b"[],",
        b'"",',
        b'"a":0,',
        b'"id":"1",',
        b'{"a":1},',
        b'"\\"":',
        b"null",
        b"1.10",
        b"1e999",
        b"-",
    ),
    *(
        b"NaN",
        b"-Infinity",
        b"9" * 30,
        b"\n",
        b" ",
        b"\x00",
        b"\xff",
        b"\xc3\xa9",
        b"\xf0\x9f\x98\x80",
        b"\xef\xbb\xbf",
        b"&",
        b"=",
    ),
    *(
        b"%2C",
        b"%41",
        b"%ff",
        b"+",
        b"hub.mode",
        b'"status":200,',
        b'"resource":{',
        b'"entry":[',
        b'{"request":{"method":"PUT"}},',
    ),
    *(b"\x81\x80abcd", b"\x81\xfe", b"\x01\x80", b"\x89\x00", b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
)
#: A member of JSON up to its value, where a long value may be put.
_MEMBER = re.compile(rb'"(?:[^"\\]|\\.)*"\s*:')


class Shape(NamedTuple):
    """An input that is as long as one likes: `unit` over and over between `before` and `after`."""

    before: bytes
    unit: bytes
    after: bytes

    def grown(self, size: int) -> bytes:
        """Of at most `size` bytes, or one unit."""
        times = (size - len(self.before) - len(self.after)) // len(self.unit)
        return b"".join((self.before, self.unit * max(1, times), self.after))


def changed(seed: bytes, chance: random.Random, others: tuple[bytes, ...]) -> bytes:
    """The seed with up to four changes."""
    text = seed
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(text))
        end = min(len(text), start + chance.choice((0, 1, 1, 4, 30, 200)))
        what = chance.randrange(6)
        if what == 0:
            middle = chance.choice(_TOKENS)
        elif what == 1:
            middle = bytes(chance.randrange(256) for _ in range(end - start))
        elif what == 2:
            middle = text[start:end] * chance.choice((0, 2, 3, 300))
        elif what == 3:
            middle = chance.choice(others)[:200]
        elif members := list(_MEMBER.finditer(text)):  # a member more, with a name of another: perhaps one twice
            place, name = chance.choice(members), chance.choice(members)[0]
            start = end = place.start()
            middle = name + chance.choice((b"1,", b'"x",', b"{},", b"[{}],"))
        else:
            middle = b""
        text = (text[:start] + middle + text[end:])[:4000]
    return text


def shape(seed: bytes, chance: random.Random) -> Shape:
    """The seed with something over and over in it: in a value, before a member, or anywhere."""
    unit = b"".join(chance.choice(_TOKENS) for _ in range(chance.randint(1, 3)))
    members = list(_MEMBER.finditer(seed))
    if not members or chance.random() < 0.2:
        place = chance.randint(0, len(seed))
        return Shape(seed[:place], unit, seed[place:])
    member = chance.choice(members)
    if chance.random() < 0.2:
        return Shape(seed[: member.start()], unit, seed[member.start() :])
    before, after = chance.choice(
        ((b'{"zz":[', b"1],"), (b'["', b'"],'), (b"{", b'"z":1},'), (b"[" * 50, b"1" + b"]" * 50 + b","), (b'"', b'",'))
    )
    name = b'"zz":' if not before.startswith(b'{"zz"') else b'"zy":'
    if before.startswith(b'{"zz"'):
        after = after[:-1] + b"},"
    return Shape(seed[: member.start()] + name + before, unit, after + seed[member.start() :])
