"""Compares a message of a page with the real one, and learns which real value stands for each example value of the page."""

from __future__ import annotations

import json
import re
from typing import Any

#: Members whose value differs from run to run. Of the others the value must be that of the page.
VARYING = {
    "access_token",
    "context.versionId",
    "context.priorVersionId",
    "decimal",
    "expires_in",
    "hub.channel.endpoint",
    "hub.lease_seconds",
    "hub.topic",
    "id",
    "lastAcknowledgement",
    "since",
    "timestamp",
    "versionId",
}

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Values:
    """Example values of the page, and the real ones. Longer example values are replaced first."""

    def __init__(self, known: dict[str, str]) -> None:
        self._real = dict(known)

    def real(self, text: str) -> str:
        """The text with real values in place of the example values."""
        for example in sorted(self._real, key=len, reverse=True):
            text = text.replace(example, self._real[example])
        return text

    def learn(self, example: str, real: str) -> None:
        """From now on, `real` stands for `example`."""
        if example:
            self._real[example] = real

    def compare(self, example: Any, real: Any, place: str = "") -> None:
        """Raises AssertionError where the messages differ otherwise than in values that vary."""
        name = place.rpartition("/")[2]
        if isinstance(example, dict):
            assert isinstance(real, dict), f"{place}: {real!r}"
            assert list(example) == list(real), f"{place}: {list(real)} came, and not {list(example)}"
            for key, value in example.items():
                self.compare(value, real[key], f"{place}/{key}")
        elif isinstance(example, list):
            assert isinstance(real, list), f"{place}: {real!r}"
            assert len(example) == len(real), f"{place}: {real!r}"
            for number, value in enumerate(example):
                self.compare(value, real[number], f"{place}/{number}")
        elif isinstance(example, str) and isinstance(real, str) and name in VARYING:
            *same, last = example.rpartition("/")
            *came, ticket = real.rpartition("/")
            assert self.real("".join(same)) == "".join(came), f"{place}: {real!r}"
            self.learn(last, ticket)
        elif isinstance(example, str) and _UUID.fullmatch(example) and example not in self._real:
            assert _UUID.fullmatch(str(real)), f"{place}: {real!r}"
            self.learn(example, real)
        elif name in VARYING:
            assert type(example) is type(real), f"{place}: {real!r}"
        else:
            wanted = self.real(example) if isinstance(example, str) else example
            assert wanted == real, f"{place}: {real!r} came, and not {wanted!r}"

    def compare_text(self, example: str, real: str) -> None:
        """The same for the text of a body: JSON, or one value of a text, where `…` stands for any."""
        try:
            wanted = json.loads(example)
        except ValueError:
            pattern = ".*".join(re.escape(part) for part in self.real(example.strip()).split("…"))
            assert re.fullmatch(pattern, real.strip(), re.DOTALL), f"{real!r} came, and not {example!r}"
            return
        self.compare(wanted, json.loads(real))
