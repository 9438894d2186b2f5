"""Whether two family names are spellings of one.

Case, diacritics, blanks, hyphens and apostrophes make no difference. A letter that is written with two where a keyboard
lacks it may be written either way: å/aa/a, ø/ö/oe/o, æ/ä/ae, ü/ue/u. So Østby is Oestby and Ostby, while Oestby and
Ostby, Haas and Has, stay different names.
"""

from __future__ import annotations

import unicodedata

#: The ways in which a letter is written; of a letter not listed, its base letter.
_SPELLINGS = {
    "å": ("a", "aa"),
    "ä": ("a", "ae"),
    "æ": ("ae",),
    "ø": ("o", "oe"),
    "ö": ("o", "oe"),
    "œ": ("oe",),
    "ü": ("u", "ue"),
    "đ": ("d",),
    "ŋ": ("n",),
    "ŧ": ("t",),
    "ð": ("d",),
    "ł": ("l",),
    "þ": ("th",),
    "\u0131": ("i",),
}
#: A name comes from outside, and each letter with two spellings doubles their number. So many letters are compared.
_MOST, _LETTERS = 64, 100


def spellings(name: str) -> set[str]:
    """All spellings of a name, folded; the empty set where it has neither letter nor digit."""
    forms = {""}
    for letter in unicodedata.normalize("NFKC", name[:_LETTERS].casefold()):
        ways = _SPELLINGS.get(letter) or (_base(letter),)
        if len(forms) * len(ways) > _MOST:
            ways = ways[:1]
        forms = {form + way for form in forms for way in ways}
    return forms - {""}


def _base(letter: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", letter).casefold() if part.isalnum())
