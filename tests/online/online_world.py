"""`check-config --online` without its process: findings of settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fhircast_hub.online.finding import Finding
from fhircast_hub.online.places import LookAt
from fhircast_hub.online.run import check_online
from tests.proxy_environment import say_of_proxies
from tests.settings.settings_world import from_env


async def findings(*callbacks: str, look: LookAt | None = None, **settings: Any) -> list[Finding]:
    """All findings of these settings. The store is in memory, unless it is given."""
    return await check_online(from_env(**{"STORE": "memory:", **settings}), callbacks, look)


def about(found: Sequence[Finding], word: str) -> Finding:
    """The only finding with this word in what was checked."""
    (finding,) = (each for each in found if word in each.what)
    assert str(finding).isprintable()
    return finding


def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxies and no authorities."""
    say_of_proxies(monkeypatch)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
