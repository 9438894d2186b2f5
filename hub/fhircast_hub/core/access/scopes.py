"""FHIRcast's OAuth 2.0 scopes (FHIRcast 3.0.0, 2.2): `fhircast/<event|*>.<read|write|*>`."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

ANY = "*"
#: What lets a system client begin and end sessions (SES-1). It is the hub's own, and no wildcard reaches it.
SESSIONS = "fhircast-hub/sessions.write"

_SCOPE = re.compile(r"fhircast/(\*|[a-z0-9][a-z0-9._-]{0,127})\.(read|write|\*)", re.ASCII | re.IGNORECASE)


class Scopes(msgspec.Struct, frozen=True):
    """The events, in lower case, that a token may read and write; "*" among them means every event.

    `sessions` is whether it may begin and end sessions.
    """

    read: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()
    sessions: bool = False

    @classmethod
    def parse(cls, granted: Iterable[str]) -> Scopes:
        """The FHIRcast scopes among `granted`; every other scope, however alike, is ignored (AUT-6)."""
        read, write, sessions = set(), set(), False
        for scope in granted:
            sessions = sessions or scope == SESSIONS
            if found := _SCOPE.fullmatch(scope):
                event, verb = found[1].lower(), found[2].lower()
                if verb != "write":
                    read.add(event)
                if verb != "read":
                    write.add(event)
        return cls(frozenset(read), frozenset(write), sessions)

    def may_read(self, event: str) -> bool:
        """Whether an event of this lower-case name may be received."""
        return event in self.read or ANY in self.read

    def may_write(self, event: str) -> bool:
        """Whether an event of this lower-case name may be published."""
        return event in self.write or ANY in self.write
