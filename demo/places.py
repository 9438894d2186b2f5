"""The address of each part of the demo. As in a hospital, no two applications share an origin."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass

from demo import DemoError

#: The parts, and their ports where these are free.
PORTS = {
    "hub": 8080,
    "ehr": 8081,
    "auth": 8082,
    "login": 8083,
    "pacs": 8084,
    "second-opinion": 8085,
    "chart": 8086,
    "reporting": 8087,
}
FIRST = PORTS["hub"]


@dataclass(frozen=True)
class Places:
    """The port of each part on localhost."""

    ports: dict[str, int]

    def origin(self, name: str) -> str:
        """Origin of a part, by its name in PORTS."""
        return f"http://localhost:{self.ports[name]}"

    def origins(self) -> dict[str, str]:
        """Origins of all parts."""
        return {name: self.origin(name) for name in self.ports}

    @property
    def hub_url(self) -> str:
        """hub.url."""
        return f"{self.origin('hub')}/api/hub"

    @property
    def fhir(self) -> str:
        """The base of the EHR's FHIR server."""
        return f"{self.origin('ehr')}/fhir"

    def dicomweb(self, name: str) -> str:
        """The base of a viewer's DICOMweb service."""
        return f"{self.origin(name)}/dicomweb"


def find_places(host: str, *, own_hub: bool, first_port: int = FIRST) -> tuple[Places, dict[str, socket.socket]]:
    """The places, and a listening socket for each part but the hub, which listens in a process of its own.

    The hub has the first port, and the other parts have the ports after it. A port that is taken is replaced by a
    free one. With a hub that runs already, all ports are fixed, and a DemoError names a port that is taken.
    """
    ports = {name: port - FIRST + first_port for name, port in PORTS.items()}
    with ExitStack() as opened:
        sockets = {
            name: opened.enter_context(_listen(host, name, port, movable=own_hub))
            for name, port in ports.items()
            if own_hub or name != "hub"
        }
        opened.pop_all()
    ports |= {name: listener.getsockname()[1] for name, listener in sockets.items()}
    if own_hub:
        sockets.pop("hub").close()
    return Places(ports), sockets


def _listen(host: str, name: str, port: int, *, movable: bool) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        if not movable:
            raise DemoError(f"port {port}, for {name}: {error.strerror}") from None
        return socket.create_server((host, 0))
