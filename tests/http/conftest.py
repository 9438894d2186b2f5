"""The tests of the API run over both adapters: the direct way, which takes what it can, and ASGI, which takes all."""

from __future__ import annotations

import pytest

from fhircast_hub.http.protocol import HttpProtocol


@pytest.fixture(params=["direct", "asgi"], autouse=True)
def adapter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The adapter of this test's hubs."""
    if request.param == "asgi":
        monkeypatch.setattr(HttpProtocol, "_may_be_direct", lambda self: False)
    return str(request.param)
