"""What the store of a node asks of the node's sockets and posts. `nodes.Duties` answers."""

from __future__ import annotations

from typing import Protocol

from fhircast_hub.core.access.principal import SessionKey


class Sockets(Protocol):
    """What the store asks of the sockets and posts of its node, where it cannot serve them any more."""

    def abandoned(self, key: SessionKey, connections: list[str]) -> None:
        """The node missed changes of a session, whose sockets these are. They must come back, and its posts are begun anew."""
        ...

    def resume_posts(self, key: SessionKey) -> None:
        """The node may have missed work for callbacks of a session."""
        ...

    def holds_posts(self, key: SessionKey) -> bool:
        """Whether the posts of a session have yet to be begun anew. Posts that come meanwhile are begun with these, in order."""
        ...

    def look_again(self, key: SessionKey) -> None:
        """A change was committed that the node had counted as lost: it may name connections that are none."""
        ...

    def begin_anew(self) -> None:
        """The node was marked dead. All of its sockets must come back."""
        ...
