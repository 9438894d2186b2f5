"""Texts for the console without patients (CSL-5).

A subscriber names itself, and gives the reason of a refusal in words of its own. Both may quote a patient's name or number.
Such words are searched in the text of the open contexts. A context is never parsed for that: a large one would hold up the hub.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection

from fhircast_hub.core.state.session import OpenContext, Session
from fhircast_hub.core.wire.event_names import CATALOGUE, CATALOGUE_LOWER, spelling

#: Bytes of open contexts that are searched, at most.
MAX_BYTES = 64 << 10
#: Bytes up to which NFKC may take its time. Of these, bytes beyond ASCII.
SMALL, SMALL_BEYOND = 4 << 10, 1 << 10
#: Of a larger text, bytes beyond ASCII, and how many different characters these are. Letters that change are replaced one by one:
#: so many of them times the length of the text.
MAX_BEYOND, MAX_LETTERS, MAX_REPLACED = 8 << 10, 128, 384 << 10
#: Characters that are searched for one reason, and for the names of one session: length of the text times words.
REASON_SEARCH, NAME_SEARCH = 256 << 10, 1 << 20
#: Characters of a reason, and letters of a word that is searched.
MAX_REASON, MAX_WORD = 256, 32
LEFT_OUT = "…"

#: Letters and digits in a row. Numbers with blanks, dots or hyphens between them are one.
_WORD = re.compile(r"[^\W_]*\d[^\W_]*(?:[\s.\-]+[^\W_]*\d[^\W_]*)*|[^\W_]+")
_NAME_WORD = re.compile(r"[^\W_]+")
_DIGIT = re.compile(r"\d")
_CATALOGUE_WORDS = frozenset(word for name in CATALOGUE for word in name.split("-"))
_REVERSE_DOMAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+){2,}", re.ASCII)
#: Digits in a label from which on the label may be somebody's number.
_NUMBER = 4
_VERBS = ("open", "close", "update", "select")
_ASCII = bytes(range(128))


def shown_name(event: str) -> str:
    """An event's name as the console shows one: those of the catalogue, and reverse-domain names without long numbers.

    Others become `other`, or `other-open` and the like.
    """
    if event.lower() in CATALOGUE_LOWER:
        return spelling(event)
    if _REVERSE_DOMAIN.fullmatch(event):
        return event if all(len(_DIGIT.findall(label)) < _NUMBER for label in event.split(".")) else "other"
    verb = event.rpartition("-")[2].lower() if "-" in event else ""
    return f"other-{verb}" if verb in _VERBS else "other"


class OpenText:
    """The text of all open contexts of these sessions, to search words in. `search`: see REASON_SEARCH."""

    def __init__(self, sessions: Collection[Session | None], search: int) -> None:
        self._sessions = sessions
        self._left = search
        #: Words that were searched, and whether they were found.
        self._searched: dict[str, bool] = {}

    @functools.cached_property
    def _text(self) -> str | None:
        """The text, made where somebody searches. None: see _folded."""
        contexts = {id(each): each for session in self._sessions if session for each in session.contexts.values()}
        return _folded(contexts.values())

    def reason(self, text: str) -> str:
        """A reason of a subscriber's own, without words that stand in an open context, names and numbers."""
        if self._text is None or len(text) > MAX_REASON:
            return LEFT_OUT
        text = unicodedata.normalize("NFKC", text)
        first = _WORD.search(text)
        return _WORD.sub(lambda found: self._word(found[0], is_first=found.start() == (first and first.start())), text)

    def _word(self, word: str, *, is_first: bool) -> str:
        if _DIGIT.search(word) or any(each.isnumeric() for each in word):
            return LEFT_OUT
        if word in _CATALOGUE_WORDS:
            return word
        if not is_first and word != word.lower():
            return LEFT_OUT
        return LEFT_OUT if self._has(word) is not False else word

    def name(self, name: str) -> str | None:
        """A subscriber's name without words that stand in an open context. None: there is too much to search.

        The last word may be one character, as in `Viewer 2`.
        """
        if not name:
            return ""
        if self._text is None:
            return None
        plain = unicodedata.normalize("NFKC", name)
        found = {word: self._is_told(word) for word in _NAME_WORD.findall(plain)}
        if None in found.values():
            return None
        end = plain[-1:] if len(plain) > 1 and not plain[-2].isalnum() else ""
        found[end] = False
        return (
            _NAME_WORD.sub(lambda each: LEFT_OUT if found[each[0]] else each[0], plain) if any(found.values()) else name
        )

    def _is_told(self, word: str) -> bool | None:
        return False if word in _CATALOGUE_WORDS else self._has(word)

    def _has(self, word: str) -> bool | None:
        """Whether the word is in the text. None: so much was searched that this word is not."""
        text, folded = self._text or "", _fold(word)
        if folded in self._searched:
            return self._searched[folded]
        self._left -= len(text) * (1 + len(word) // 8)  # the longer a word, the longer may a search take
        if self._left < 0 or len(word) > MAX_WORD:
            return None
        found = self._searched[folded] = folded in text
        return found


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _folded(contexts: Collection[OpenContext]) -> str | None:
    """The text for a search, in any case and spelling. None: the text is too long, or of characters that take long."""
    if sum(each.context_size for each in contexts) > MAX_BYTES:
        return None
    written = b"\n".join(each.context for each in contexts)
    if b"\\u" in written:
        return None
    beyond = written.translate(None, _ASCII)
    if len(written) <= SMALL and len(beyond) <= SMALL_BEYOND:
        return _fold(written.decode(errors="replace"))
    if len(beyond) > MAX_BEYOND:
        return None
    return _folded_letters(written.lower().decode(errors="replace"), beyond.decode(errors="replace"))


def _folded_letters(text: str, beyond: str) -> str | None:
    """The text with each letter in lower case. `beyond`: its characters beyond ASCII. None: as in _folded."""
    letters = set(beyond)
    if len(letters) > MAX_LETTERS:
        return None
    changed = [(each, folded) for each in letters if (folded := _folded_letter(each)) != each]
    if len(changed) * len(text) > MAX_REPLACED or not all(folded for _, folded in changed):
        return None
    for letter, folded in changed:
        text = text.replace(letter, folded)
    return text


@functools.lru_cache(4096)
def _folded_letter(letter: str) -> str:
    """The letter, folded. "": NFKC joins the letter to the one before."""
    joins = unicodedata.category(letter).startswith("M") or "\u1100" <= letter <= "\u11ff"
    return "" if joins else _fold(letter)
