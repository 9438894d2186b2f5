"""FHIRcast's OAuth 2.0 scopes (FHIRcast 3.0.0, 2.2): `fhircast/<event|*>.<read|write|*>`."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from fhircast_hub.core.errors import InsufficientScope

#: Among the events of a scope: every event.
ANY = "*"
#: Scope of a system client that begins and ends sessions (SES-1). The scope is the hub's own; no wildcard includes it.
SESSIONS = "fhircast-hub/sessions.write"
#: Scopes of an operator (CSL-1). They are the hub's own too; no wildcard includes them. The second includes the first.
CONSOLE_READ, CONSOLE_WRITE = "fhircast-hub/console.read", "fhircast-hub/console.write"

_SCOPE = re.compile(r"fhircast/(\*|[a-z0-9][a-z0-9._-]{0,127})\.(read|write|\*)", re.ASCII | re.IGNORECASE)


class Scopes(msgspec.Struct, frozen=True):
    """The scopes of a token. Event names are in lower case; ANY among them means every event."""

    #: Events that the token may subscribe to and read.
    read: frozenset[str] = frozenset()
    #: Events that the token may publish.
    write: frozenset[str] = frozenset()
    #: Whether the token may begin and end sessions (SESSIONS).
    sessions: bool = False
    #: Whether the token may see the operator's console (CONSOLE_READ or CONSOLE_WRITE).
    console: bool = False
    #: Whether the token may end sessions there (CONSOLE_WRITE).
    console_write: bool = False

    @classmethod
    def parse(cls, granted: Iterable[str]) -> Scopes:
        """The FHIRcast scopes among `granted`. All others are ignored, however similar (AUT-6)."""
        read, write, own = set(), set(), set()
        for scope in granted:
            own.add(scope)
            if found := _SCOPE.fullmatch(scope):
                event, verb = found[1].lower(), found[2].lower()
                if verb != "write":
                    read.add(event)
                if verb != "read":
                    write.add(event)
        console_write = CONSOLE_WRITE in own
        console = console_write or CONSOLE_READ in own
        return cls(frozenset(read), frozenset(write), SESSIONS in own, console, console_write)

    def may_read(self, event: str) -> bool:
        """Whether the token may receive this event (name in lower case)."""
        return event in self.read or ANY in self.read

    def may_write(self, event: str) -> bool:
        """Whether the token may publish this event (name in lower case)."""
        return event in self.write or ANY in self.write


def check_scoped(scopes: Scopes) -> None:
    """Raise InsufficientScope for a token without a scope for any event (AUT-21)."""
    if not (scopes.read or scopes.write):
        raise InsufficientScope(
            "this token has no FHIRcast scope, such as fhircast/Patient-open.read", scope="fhircast/*.read"
        )
