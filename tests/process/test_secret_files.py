"""SEC-14: a hub with its secret in a file of systemd's credentials, and what its log says of one that everybody may read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.process.hub_process import IssuerThread, hub_process


@pytest.mark.req("SEC-14", "SEC-1")
def test_a_credential_that_everybody_may_read_is_a_warning(tmp_path: Path, issuer: IssuerThread) -> None:
    """The hub starts. One line names the setting, and no line has the secret."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "secret-key").write_text("hunter2" * 5 + "\n")
    for mode, count in ((0o400, 0), (0o444, 1)):
        (folder / "secret-key").chmod(mode)
        with hub_process(tmp_path, issuers=issuer.settings, secret_key_file=f"{folder}/secret-key") as hub:
            lines = hub.lines("secret can be read by every user")
            assert [line["level"] for line in lines] == ["warning"] * count
            assert all("FHIRCAST_SECRET_KEY_FILE" in line["reason"] for line in lines)
            assert not hub.lines("webhook secrets do not survive a restart")
            assert "hunter2" not in hub.stdout + hub.stderr


@pytest.mark.req("OPS-39")
@pytest.mark.parametrize(
    ("settings", "count"), [({}, 1), ({"webhooks": False}, 0), ({"store": "memory:"}, 0)], ids=["key", "off", "memory"]
)
def test_a_hub_that_will_forget_the_secrets_of_webhooks_warns(
    tmp_path: Path, issuer: IssuerThread, settings: dict[str, Any], count: int
) -> None:
    """Nothing survives a restart in memory, and nothing is lost without webhooks."""
    with hub_process(tmp_path, issuers=issuer.settings, **settings) as hub:
        lines = hub.lines("webhook secrets do not survive a restart")
    assert [line["level"] for line in lines] == ["warning"] * count
