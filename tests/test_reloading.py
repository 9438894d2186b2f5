"""The settings that SIGHUP reads again, without a process (tests/process/test_reloading.py has the signal)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog

from fhircast_hub.reloading import Reloading
from fhircast_hub.settings.reading import load

ISSUER = {"issuer": "http://localhost:1", "audience": "hub"}
IN_FILE = '[[ISSUERS]]\nissuer = "http://localhost:1"\naudience = "hub"\n'


@pytest.fixture(autouse=True)
def keep_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of this process stays as it is."""
    monkeypatch.setattr("fhircast_hub.reloading.configure_logging", lambda *_: None)


@pytest.mark.req("OPS-20")
@pytest.mark.parametrize("in_environment", [True, False])
def test_issuers_in_the_environment_are_said_to_stay(tmp_path: Path, *, in_environment: bool) -> None:
    """The environment wins over the file, and a process cannot read its environment again."""
    path = tmp_path / "hub.toml"
    path.write_text(IN_FILE)
    environ = {"FHIRCAST_ISSUERS": json.dumps([ISSUER])} if in_environment else {}
    reloading = Reloading(lambda: load(path, environ), load(path, environ))
    with structlog.testing.capture_logs() as captured:
        reloading.reload(lambda settings: None)
    assert ("issuers stay" in [line["event"] for line in captured]) is in_environment


@pytest.mark.req("OPS-20")
def test_settings_that_cannot_be_used_are_told_and_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(IN_FILE)
    reloading = Reloading(lambda: load(path, {}), load(path, {}))
    before = reloading.settings

    def refuse(_: object) -> None:
        raise ValueError("an issuer is configured twice")

    with structlog.testing.capture_logs() as captured:
        reloading.reload(refuse)
    assert [(line["event"], line["reason"]) for line in captured] == [
        ("settings not reloaded", "an issuer is configured twice")
    ]
    assert reloading.settings is before


@pytest.mark.req("OPS-36", "OPS-19")
def test_names_that_are_nearly_alike_are_told_after_the_issuers(tmp_path: Path) -> None:
    """After SIGHUP, as at the start: a slip splits the sessions of users, and no request fails."""
    path = tmp_path / "hub.toml"
    tables = [
        f'[[ISSUERS]]\nissuer = "https://{realm}.example"\naudience = "hub"\nrealm = "{realm}"\nuser_claim = "hpr"\n'
        for realm in ("hospital", "hosptial")
    ]
    path.write_text("".join(tables))
    reloading = Reloading(lambda: load(path, {}), load(path, {}))
    with structlog.testing.capture_logs() as captured:
        reloading.reload(lambda settings: None)
    assert [(line["event"], line["log_level"]) for line in captured] == [
        ("settings reloaded", "info"),
        *2 * [("issuer", "info")],
        ("names are nearly alike", "warning"),
    ]
    assert [line["user_claim"] for line in captured[1:3]] == ["hpr", "hpr"]
    assert captured[3]["reason"].startswith("realms: 'hospital' and 'hosptial' are nearly alike, and share no users; ")
