"""The environment of a decision: time, new identifiers, settings."""

from __future__ import annotations

from typing import Protocol

import msgspec

from fhircast_hub.core.limits import Rules


class Ids(Protocol):
    """Source of new identifiers."""

    def uuid(self) -> str:
        """A UUID that was never given before."""
        ...


class Env(msgspec.Struct, frozen=True):
    """The environment of one decision."""

    #: Time of the decision, in epoch seconds.
    now: float
    #: Source of new identifiers.
    ids: Ids
    #: The deployment's settings.
    rules: Rules
    #: Name of the node that decides. "": the hub is one process.
    node: str = ""
