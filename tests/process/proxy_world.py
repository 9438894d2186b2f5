"""A proxy with TLS before a hub, and clients that come through the proxy."""

from __future__ import annotations

import ssl
import subprocess
import time
from pathlib import Path

import httpx

from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor
from tests.running import event


def wait_for(port: int, process: subprocess.Popen[bytes], trust: ssl.SSLContext) -> None:
    """Until the proxy answers."""
    deadline = time.monotonic() + PATIENCE
    with httpx.Client(timeout=PATIENCE, trust_env=False, verify=trust) as client:
        while time.monotonic() < deadline:
            assert process.poll() is None, "the proxy ended"
            try:
                client.get(f"https://127.0.0.1:{port}/")
            except httpx.TransportError:
                time.sleep(0.02)
            else:
                return
    raise AssertionError("the proxy does not answer")


class Proxy:
    """A proxy before a hub, and the folder of its files. `trust` is for its certificate."""

    def __init__(self, hub: HubProcess, folder: Path, port: int, trust: ssl.SSLContext) -> None:
        self.hub, self.folder, self.port, self.trust = hub, folder, port, trust


class ProxyVisitor(Visitor):
    """A client of the hub through the proxy, from this address."""

    def __init__(self, proxy: Proxy, issuer: IssuerThread, address: str = "127.0.0.1") -> None:
        super().__init__(proxy.hub, issuer.idp)
        self.origin = f"https://127.0.0.1:{proxy.port}"
        self.url = f"{self.origin}/api/hub"
        transport = httpx.AsyncHTTPTransport(verify=proxy.trust, local_address=address)
        self.client = httpx.AsyncClient(trust_env=False, timeout=PATIENCE, transport=transport)


async def check_session(proxy: Proxy, issuer: IssuerThread) -> None:
    """Subscribed over https, followed over wss, told of an event; closed with the hub's own code."""
    async with ProxyVisitor(proxy, issuer) as visitor:
        endpoint = await visitor.subscribe()
        assert endpoint.startswith(f"wss://127.0.0.1:{proxy.port}/api/hub/ws/")
        async with visitor.follow(endpoint, ssl=proxy.trust) as follower:
            assert (await visitor.publish(event("Patient-open"))).status_code == 202
            assert (await follower.next())["id"] == "Patient-open-1"
            await visitor.form(hub__mode="unsubscribe", **{"hub__channel.endpoint": endpoint})
            assert (await follower.next())["hub.mode"] == "denied"
            assert await follower.closed() == 1000


async def check_inside(proxy: Proxy, issuer: IssuerThread) -> None:
    """hub.url and the session API are shown. Health, metrics, console and description are not."""
    async with ProxyVisitor(proxy, issuer) as visitor:
        for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/console", "/"):
            assert (await visitor.client.get(f"{visitor.origin}{path}")).status_code == 404
        assert (await visitor.client.post(f"{visitor.origin}/sessions", json={})).status_code == 401
        assert (await visitor.client.get(f"{visitor.url}/metadata")).status_code == 200
