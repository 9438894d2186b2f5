"""The rules of docs/how-to/alerts.md by Prometheus' own promtool: each alert fires when it should, and not otherwise."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from fhircast_hub.telemetry.metrics import BOUNDS
from tests.docs.blocks import titled
from tools.unpacked import unpacked

HUB = "hub1:8080"
JOB = {"job": "fhircast-hub"}
#: Minutes after which promtool looks. Each alert has fired by then, or never will.
MINUTES = 30


class Case(NamedTuple):
    """Series by name, as promtool has them (`0+6x30`: thirty minutes of 6 more each), when the alert fires and when not."""

    fires: dict[str, str]
    quiet: dict[str, str]
    #: The labels of the alert, beside `instance` and `severity`.
    labels: Mapping[str, str] = JOB


FULL, NONE = "fhircast_max_session_bytes", "0x30"
#: Requests of one minute: so many more each minute.
OK, TOO_OLD, BROKEN = (f'fhircast_requests_total{{status="{status}"}}' for status in ("202", "401", "503"))
FAST, SLOW, ALL = (
    f'fhircast_accepted_to_written_seconds_bucket{{le="{bound}"}}' for bound in (*map(str, BOUNDS[-2:]), "+Inf")
)
CASES: Mapping[str, Case] = {
    "FhircastHubDown": Case({"up": NONE}, {"up": "1x30"}),
    "FhircastHubWorkerDown": Case(
        {'fhircast_worker_up{worker="2"}': NONE}, {'fhircast_worker_up{worker="2"}': "1x30"}, {**JOB, "worker": "2"}
    ),
    "FhircastHubRefusesWork": Case({OK: "0+600x30", BROKEN: "0+12x30"}, {OK: "0+600x30", BROKEN: "0+3x30"}, {}),
    "FhircastHubRefusesTokens": Case({OK: "0+10x30", TOO_OLD: "0+20x30"}, {OK: "0+40x30", TOO_OLD: "0+20x30"}, {}),
    "FhircastHubMemoryIsNearlyFull": Case(
        {"fhircast_session_bytes": "81x30", FULL: "100x30"}, {"fhircast_session_bytes": "79x30", FULL: "100x30"}
    ),
    "FhircastHubMemoryIsFull": Case(
        {"fhircast_refused_by_hub_bytes_total": "0x25 1x5"}, {"fhircast_refused_by_hub_bytes_total": "7x30"}
    ),
    "FhircastHubAuditIsLost": Case({"fhircast_audit_lost_total": "0x25 1x5"}, {"fhircast_audit_lost_total": "7x30"}),
    "FhircastHubIsSlow": Case(
        {FAST: "0+97x30", SLOW: "0+100x30", ALL: "0+100x30"},
        {FAST: "0+100x30", SLOW: "0+100x30", ALL: "0+100x30"},
        {},
    ),
    "FhircastHubLosesSockets": Case({"fhircast_sockets": "100x25 40x5"}, {"fhircast_sockets": "100x25 60x5"}),
    "FhircastHubPingsUnanswered": Case(
        {"fhircast_pings_unanswered_total": "0+12x30"}, {"fhircast_pings_unanswered_total": "0+3x30"}
    ),
    "FhircastHubSlowReaders": Case(
        {"fhircast_slow_readers_closed_total": "0+1x30"}, {"fhircast_slow_readers_closed_total": "3x30"}
    ),
    "FhircastHubCallbacksFail": Case(
        {"fhircast_posts_failed_total": "0+30x30", "fhircast_posts_total": "0+100x30"},
        {"fhircast_posts_failed_total": "0+10x30", "fhircast_posts_total": "0+100x30"},
    ),
    "FhircastHubRowsUnreadable": Case(
        {"fhircast_rows_unreadable_total": "0x20 1x10"}, {"fhircast_rows_unreadable_total": "7x30"}
    ),
    "FhircastHubDescriptorsAreNearlyUsedUp": Case(
        {"process_open_fds": "81x30", "process_max_fds": "100x30"},
        {"process_open_fds": "79x30", "process_max_fds": "100x30"},
    ),
}
#: Each alert with the series of its case, and with others that must be quiet too: five forgotten laptops at night.
ROUNDS = [
    *((alert, case.fires, True) for alert, case in CASES.items()),
    *((alert, case.quiet, False) for alert, case in CASES.items()),
    ("FhircastHubRefusesTokens", {TOO_OLD: "0+10x30"}, False),
]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The file of the page."""
    block = titled("docs/how-to/alerts.md", "fhircast-hub.rules.yaml")
    path = tmp_path / block.title
    path.write_text(block.text, encoding="utf-8")
    return path


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(unpacked("promtool")), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_promtool_takes_the_rules(rules: Path) -> None:
    done = promtool("check", "rules", rules)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CASES)} rules found" in done.stdout + done.stderr


def test_promtool_would_refuse_an_unknown_function(rules: Path) -> None:
    rules.write_text(rules.read_text(encoding="utf-8").replace("histogram_quantile(", "histogram_quantil("))
    assert promtool("check", "rules", rules).returncode != 0


def test_each_rule_has_a_case(rules: Path) -> None:
    assert list(rules_by_name(rules)) == list(CASES)


def rules_by_name(path: Path) -> dict[str, Any]:
    (group,) = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def series(name: str) -> str:
    """The series of the hub, as Prometheus labels it."""
    metric, _, labels = name.partition("{")
    given = [f'instance="{HUB}"', 'job="fhircast-hub"', *filter(None, [labels.rstrip("}")])]
    return f"{metric}{{{','.join(given)}}}"


@pytest.mark.parametrize(("alert", "given", "fires"), ROUNDS)
def test_the_alert_fires_when_it_should(alert: str, given: dict[str, str], *, fires: bool, rules: Path) -> None:
    rule, case = rules_by_name(rules)[alert], CASES[alert]
    labels = {"instance": HUB, **case.labels}
    expected = {
        "exp_labels": labels | rule["labels"],
        "exp_annotations": {
            name: re.sub(r"{{ \$labels\.(\w+) }}", lambda match: labels[match[1]], text)
            for name, text in rule["annotations"].items()
        },
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": series(name), "values": values} for name, values in given.items()],
        "alert_rule_test": [
            {"eval_time": f"{MINUTES}m", "alertname": alert, "exp_alerts": [expected] if fires else []}
        ],
    }
    path = rules.parent / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": "1m", "tests": [test]}))
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
