"""Whether two family names are spellings of the same name.

Case, diacritics, blanks, hyphens and apostrophes do not matter. Some letters may be written with two: å/aa/a, ø/ö/oe/o,
æ/ä/ae, ü/ue/u. So Østby matches Oestby and Ostby. But Oestby and Ostby, or Haas and Has, do not match each other.
"""

from __future__ import annotations

import unicodedata

#: Spellings of a letter. For other letters, the base letter is used.
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
#: Limits for names in events: each letter with two spellings doubles the number of spellings.
_MOST, _LETTERS = 64, 100


def spellings(name: str) -> set[str]:
    """All spellings of a name, folded. Empty for a name without letters and digits."""
    forms = {""}
    for letter in unicodedata.normalize("NFKC", name[:_LETTERS].casefold()):
        ways = _SPELLINGS.get(letter) or (_base(letter),)
        if len(forms) * len(ways) > _MOST:
            ways = ways[:1]
        forms = {form + way for form in forms for way in ways}
    return forms - {""}


def _base(letter: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", letter).casefold() if part.isalnum())
