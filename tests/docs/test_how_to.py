"""What the how-to pages hand out: the unit by systemd's own reader, the alert rules against the hub's own metrics."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fhircast_hub.audit.sink import JsonLinesSink
from fhircast_hub.settings.errors import NotNow, SettingsError
from fhircast_hub.telemetry.gathering import _UP
from fhircast_hub.telemetry.metrics import Metrics
from tests.docs.blocks import Block, titled
from tests.docs.checks import check_shell
from tools.site import ROOT

SYSTEMD, ALERTS, PRODUCTION = (f"docs/how-to/{name}.md" for name in ("systemd", "alerts", "production"))
#: How exposed the service may be: 0 is not at all, 10 fully.
MOST_EXPOSED = 2.0
#: Metrics that are Prometheus's own.
PROMETHEUS = {"up"}
_NAME = re.compile(r"\b(?:fhircast|process)_\w+|\bup\b")


def analyzed(folder: Path, *command: str) -> str:
    """What systemd-analyze says of the unit. Its program and its file of secrets are not on this machine."""
    unit = folder / "fhircast-hub.service"
    text = re.sub(r"^ExecStart=.*", "ExecStart=/bin/true", titled(SYSTEMD, unit.name).text, flags=re.MULTILINE)
    unit.write_text(text, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", *command, unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_reads_the_unit_without_a_complaint(tmp_path: Path) -> None:
    assert analyzed(tmp_path, "verify").strip() == ""


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    (level,) = re.findall(r"Overall exposure level for .*?: ([\d.]+)", analyzed(tmp_path, "security", "--offline=true"))
    assert float(level) <= MOST_EXPOSED


def test_the_unit_starts_a_command_of_the_hub(tmp_path: Path) -> None:
    (command,) = re.findall(
        r"^ExecStart=/opt/fhircast-hub/bin/(.*)$", titled(SYSTEMD, "fhircast-hub.service").text, re.MULTILINE
    )
    check_shell(Block(SYSTEMD, 0, "sh", "", command), tmp_path)


def test_the_drop_in_for_tls_takes_the_place_of_the_units_command(tmp_path: Path) -> None:
    (of_unit,) = re.findall(r"^ExecStart=(.*)$", titled(SYSTEMD, "fhircast-hub.service").text, re.MULTILINE)
    drop_in = titled(PRODUCTION, "/etc/systemd/system/fhircast-hub.service.d/tls.conf")
    empty, command = re.findall(r"^ExecStart=(.*)$", drop_in.text, re.MULTILINE)
    assert (empty, command.startswith(f"{of_unit} --ssl-certfile /")) == ("", True)
    check_shell(Block(PRODUCTION, 0, "sh", "", command), tmp_path)


@pytest.mark.req("OPS-42")
def test_the_unit_starts_the_hub_again_unless_a_setting_is_wrong() -> None:
    """For as long as the database is away: without a limit of systemd's own."""
    text = titled(SYSTEMD, "fhircast-hub.service").text
    for line in ("StartLimitIntervalSec=0", "Restart=on-failure", f"RestartPreventExitStatus={SettingsError.code}"):
        assert f"\n{line}\n" in text
    assert NotNow.code == 1


def test_the_unit_waits_longer_than_the_hub_takes_to_end() -> None:
    """OPS-3: the hub exits within 10 s."""
    assert "\nTimeoutStopSec=15\n" in titled(SYSTEMD, "fhircast-hub.service").text


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(titled(ALERTS, "fhircast-hub.rules.yaml").text)["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def known() -> set[str]:
    """The samples of /metrics, of one process and of several workers."""
    text = (Metrics().render() + _UP + b"fhircast_worker_up 1").decode()
    labelled = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    return PROMETHEUS | labelled | set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_a_rule_is_whole_and_asks_for_metrics_of_the_hub(rule: dict[str, Any]) -> None:
    assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert re.fullmatch(r"FhircastHub[A-Z]\w+", rule["alert"])
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "action"}
    names = set(_NAME.findall(rule["expr"]))
    assert names
    assert names <= known()


def test_each_kind_of_loss_has_an_alert() -> None:
    """Each metric of the hub that should stay at 0."""
    asked = {name for rule in rules() for name in _NAME.findall(rule["expr"])}
    assert {
        "fhircast_audit_lost_total",
        "fhircast_rows_unreadable_total",
        "fhircast_refused_by_hub_bytes_total",
    } <= asked


@pytest.mark.req("AUD-2")
async def test_the_audit_file_is_rotated_by_a_rename(tmp_path: Path) -> None:
    """As docs/how-to/logs.md says: without a signal, and the new file is its owner's alone."""
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    sink = JsonLinesSink(path)
    await sink.write([b"one"])
    path.rename(old)
    await sink.write([b"two"])
    assert (old.read_text(), path.read_text()) == ("one\n", "two\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_metric_of_the_page_is_made_up() -> None:
    page = (ROOT / ALERTS).read_text(encoding="utf-8")
    assert set(re.findall(r"\bfhircast_[a-z_]+", page)) <= known()
