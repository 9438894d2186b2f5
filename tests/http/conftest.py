"""The tests of the API run over both adapters: the direct way, which takes what it can, and ASGI, which takes all."""

from __future__ import annotations

import pytest

from fhircast_hub.http.protocol import HttpProtocol
from tests.running import RunningHub


@pytest.fixture(params=["direct", "asgi"], autouse=True)
def adapter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The adapter of this test's hubs."""
    if request.param == "direct":
        monkeypatch.setattr(RunningHub, "remembers_all", True)  # else the first request of a token goes by ASGI
    else:
        monkeypatch.setattr(HttpProtocol, "_may_be_direct", lambda self: False)
    return str(request.param)
