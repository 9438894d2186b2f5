"""WebSocket endpoints: unguessable, known by digest only, and found again however a client or a proxy spells them."""

from __future__ import annotations

import re

import pytest

from fhircast_hub.edge.endpoints import Endpoints

BASE, PATH = "wss://hub.example/api/hub", "/api/hub"


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints(BASE, PATH)


@pytest.mark.req("SUB-2")
def test_each_endpoint_is_new_and_long_enough(endpoints: Endpoints) -> None:
    """Under hub.url, of at least 128 random bits, which neither repeat nor share a beginning or an end."""
    made = [endpoints.new()[0] for _ in range(1000)]
    tokens = []
    for url in made:
        found = re.fullmatch(r"wss://hub\.example/api/hub/ws/([A-Za-z0-9_-]{22,})", url)
        assert found
        tokens.append(found[1])
    for part in (slice(0, 12), slice(-12, None)):
        assert len({token[part] for token in tokens}) == 1000


@pytest.mark.req("SEC-1")
def test_the_digest_does_not_hold_the_endpoint(endpoints: Endpoints) -> None:
    """What the hub keeps is a digest of fixed form, in which nothing of the endpoint is found."""
    url, subscription_id = endpoints.new()
    assert re.fullmatch("[0-9a-f]{32}", subscription_id)
    assert subscription_id not in url
    assert url.rpartition("/")[2][:6] not in subscription_id


@pytest.mark.req("SUB-20", "SUB-11")
def test_an_endpoint_is_found_however_it_comes_back(endpoints: Endpoints) -> None:
    """In a form: with another host or path before it, a slash or a query behind. In a handshake: by its path."""
    url, subscription_id = endpoints.new()
    token = url.rpartition("/")[2]
    for spelled in (url, url + "/", url + "?a=b", f"ws://10.0.0.1:8080/ws/{token}", f"https://proxy/x/{token}", token):
        assert endpoints.from_client(spelled)[1] == subscription_id
    for path in (f"/api/hub/ws/{token}", f"/api/hub/ws/{token}/", f"/api/hub/ws/{token}?access_token=x/y"):
        assert endpoints.resolve(path) == subscription_id
    escaped = "".join(f"%{ord(letter):02x}" for letter in token)
    assert endpoints.resolve(f"/api/hub/ws/{escaped}") == subscription_id


@pytest.mark.req("SUB-11")
@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/api/hub", "/api/hub/ws", "/api/hub/ws/", "/api/hub/ws//", "/api/hub/ws/a/b", "/api/hub/ws/a%2Fb"),
        *("/ws/a", "/api/hub2/ws/a", "/api/hub/WS/a", "/bind/a", "/api/hub/ws/" + "x" * 257, "/api/hub/ws?/a"),
    ],
)
def test_a_path_that_can_be_no_endpoint_is_none(endpoints: Endpoints, path: str) -> None:
    """Nothing to look up."""
    assert endpoints.resolve(path) is None


@pytest.mark.parametrize("text", ["", "/", "?", "\udcff", "ø", "a\0b", "//", "x" * 100_000, "wss://[::1/x"])
def test_whatever_a_client_calls_its_endpoint_has_a_digest(endpoints: Endpoints, text: str) -> None:
    """It is then not found, which is an answer; an exception is none."""
    assert re.fullmatch("[0-9a-f]{32}", endpoints.from_client(text)[1])


@pytest.mark.req("SUB-2")
def test_at_the_root_of_a_server_too() -> None:
    """Where hub.url has no path, endpoints are under /ws/."""
    endpoints = Endpoints("ws://localhost:8080", "")
    url, subscription_id = endpoints.new()
    assert url.startswith("ws://localhost:8080/ws/")
    assert endpoints.resolve(url.removeprefix("ws://localhost:8080")) == subscription_id


@pytest.mark.req("AUT-17", "AUT-35")
@pytest.mark.parametrize(
    "chosen", ["my-endpoint", "ws://anywhere/bind/x-1", "wss://a/b/c?d", "ws://a/with%20space", "ø"]
)
def test_a_legacy_client_chooses_its_endpoint(chosen: str) -> None:
    """Under /bind/ it finds what it chose; its own ones too; without `legacy` /bind/ is nothing."""
    endpoints = Endpoints(BASE, PATH, legacy=True)
    url, subscription_id = endpoints.from_client(chosen)
    assert url.startswith("wss://hub.example/bind/")
    assert endpoints.resolve(url.removeprefix("wss://hub.example")) == subscription_id == endpoints.from_client(url)[1]
    made, its = endpoints.new()
    assert endpoints.resolve(made.removeprefix("wss://hub.example")) == its
    assert Endpoints(BASE, PATH).resolve(url.removeprefix("wss://hub.example")) is None
