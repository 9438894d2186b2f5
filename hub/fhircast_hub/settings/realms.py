"""Names of realms and of claims that were perhaps meant to be one. A slip in such a name splits all sessions silently."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from fhircast_hub.settings.errors import shown
from fhircast_hub.settings.issuers import IssuerSettings

#: Letters and digits that a name must have before one slip is looked for. Short names differ in a letter on purpose.
LEAST = 5


class Near(NamedTuple):
    """Two or more names that are nearly alike."""

    #: `realms`, or the realm whose issuers have such claims.
    what: str
    said: str
    advice: str


def near_names(issuers: Sequence[IssuerSettings]) -> Iterator[Near]:
    """Realms of nearly the same name, and claims of nearly the same name within a realm."""
    realms = list(dict.fromkeys(issuer.realm_name for issuer in issuers))
    advice = "spell them alike if a user of one is the same user in the other"
    for names in _alike(realms):
        yield Near(
            "realms", f"{_listed(names)} differ in case, spaces or punctuation alone, and share no users", advice
        )
    # The URL of an issuer is a realm that nobody wrote as one.
    for pair in _slips(dict.fromkeys(issuer.realm for issuer in issuers if issuer.realm)):
        yield Near("realms", f"{_listed(pair)} are nearly alike, and share no users", advice)
    for realm in realms:
        claims = dict.fromkeys(issuer.user_claim for issuer in issuers if issuer.realm_name == realm)
        for near in (*_alike(claims), *_slips(claims)):
            said = f"the claims {_listed(near)} of user_claim are nearly alike"
            yield Near(f"realm {shown(realm)}", said, "spell them alike if both mean the same claim")


def _alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that have the same letters and digits."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_letters(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _slips(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names with one letter more, less or other, or with two letters in the other order."""
    return [
        (one, other)
        for one, other in combinations(names, 2)
        if _marks(one) == _marks(other) and _is_slip(*sorted((_letters(one), _letters(other)), key=len))
    ]


def _is_slip(short: str, long: str) -> bool:
    if len(short) < LEAST or len(long) > len(short) + 1:
        return False
    if len(long) > len(short):
        return any(long[:index] + long[index + 1 :] == short for index in range(len(long)))
    differ = [index for index, (one, other) in enumerate(zip(short, long, strict=True)) if one != other]
    if len(differ) == 2:
        first, second = differ
        return second == first + 1 and short[first : second + 1] == long[second] + long[first]
    return len(differ) == 1


def _marks(name: str) -> list[str]:
    """Digits, and letters that stand alone. Names that differ in these differ on purpose: hospital-1, hospital-b."""
    return re.findall(r"\d+|(?<![^\W_])[^\W\d_](?![^\W_])", _plain(name))


def _letters(name: str) -> str:
    """Letters, their marks, and digits of a name, in lower case. Of some scripts a vowel is a mark."""
    return "".join(each for each in _plain(name) if each.isalnum() or unicodedata.category(each).startswith("M"))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _listed(names: Iterable[str]) -> str:
    return " and ".join(map(shown, names))
