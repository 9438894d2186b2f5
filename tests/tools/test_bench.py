"""tests/bench/bench.py and its shape N: options, figures and tables. No test here measures anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import bench, nodes, quick
from tests.bench.nodes import APART, ELSEWHERE, LAYOUTS, ONE, SQLITE, TWO, Nodes
from tests.bench.results import SHAPES, flatten, read, report
from tests.bench.servers import Hub, Issuer, drive
from tools.packages import NEEDED

ISSUER = Issuer("[]", "token")


def load(delivered: float, p50: float, **more: float) -> dict[str, Any]:
    """What the load generator says of one load."""
    spread = {"p50": p50, "p99": 10 * p50}
    faults = dict.fromkeys(nodes.FAULTS, 0)
    cpu = {"server_cpu": 0.8, "other_cpu": 0.2, "loadgen_cpu": 0.1, "steal": 0.0}
    return {"delivered_per_s": delivered, "e2e_us": spread, "http_us": spread, **faults, **cpu, **more}


def result(delivered: float, p50: float, count: int, **more: float) -> dict[str, Any]:
    """A result of shape N."""
    return {"nodes": count, "closed": load(delivered, p50, **more), "at500": load(2000, p50)}


def line(server: str, found: dict[str, Any]) -> str:
    return json.dumps({"server": server, "shape": "N", "run": 1, "result": found})


def rows(report: str) -> dict[str, list[str]]:
    """The cells of a table by the text of their line."""
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in report.splitlines() if "|" in row]
    return {row[0]: row[1:] for row in cells}


def test_all_shapes_are_measured_unless_some_are_chosen() -> None:
    assert bench.arguments([]).shapes == list("ABCDRGMWN")
    assert bench.arguments(["--shapes", "N"]).shapes == ["N"]


def test_an_unknown_shape_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.arguments(["--shapes", "N,X"])
    assert "X is none of A, B, C, D, R, G, M, W, N" in capsys.readouterr().err


def test_each_shape_that_is_measured_has_a_short_look_or_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "SHAPES", dict(drive.SHAPES))
    bench.prepare_shapes(bench.arguments(["--quick"]))
    assert set(SHAPES) == set(drive.SHAPES) == {*quick.SHAPES, "W"}


def test_the_benchmark_needs_the_database() -> None:
    assert "postgresql" in NEEDED["bench"]


def test_figures_say_what_each_part_costs() -> None:
    found = flatten("N", result(10_000, 900, 2))
    assert found["closed"] == 10_000
    assert (found["node_us"], found["database_us"], found["load_us"]) == pytest.approx((80, 20, 10))
    assert (found["at500_p50"], found["at500_p99"]) == (900, 9000)


def test_the_computed_rate_is_that_of_busy_processors() -> None:
    """The nodes deliver 10,000 with 0.8 of a processor: two whole ones would deliver 25,000."""
    assert flatten("N", result(10_000, 900, 2))["computed"] == pytest.approx(25_000)


def test_a_load_that_failed_leaves_the_others() -> None:
    found = flatten("N", {**result(10_000, 900, 1), "closed": {"failed": "no answer"}})
    assert "closed" not in found
    assert found["at500_p50"] == 900


def test_the_table_of_nodes_has_their_ratios_and_no_baseline() -> None:
    lines = [
        line(SQLITE, result(10_000, 1000, 1)),
        line(ONE, result(8_000, 2000, 1)),
        line(TWO, result(12_000, 3000, 2)),
        line(ELSEWHERE, result(9_000, 3500, 2)),
    ]
    table = rows(report(read(lines), ["N"], ["hub"], ["node-ws"]))
    assert table[""] == [
        "better",
        *LAYOUTS,
        f"{ONE} / {SQLITE}",
        f"{APART} / {ONE}",
        f"{TWO} / {ONE}",
        f"{ELSEWHERE} / {SQLITE}",
    ]
    assert table["deliveries/s, 32 events in flight"][-4:] == ["0.80", "-", "1.50", "0.90"]
    assert table["at 500 events/s: p50, us"][-1] == "3.50"
    assert "at 100 events/s: p50, us" not in table


def test_other_shapes_have_their_hubs_and_baselines() -> None:
    lines = [
        json.dumps({"server": name, "shape": "W", "run": 1, "result": {"ratio": 1.5}}) for name in ("hub", "node-ws")
    ]
    table = rows(report(read(lines), ["W"], ["hub"], ["node-ws"]))
    assert table[""] == ["better", "hub", "node-ws", "hub / node-ws"]


@pytest.mark.parametrize("fault", nodes.FAULTS)
def test_a_fault_is_remarked(fault: str) -> None:
    text = report(read([line(TWO, result(10_000, 900, 2, **{fault: 3}))]), ["N"], [], [])
    assert f"- {TWO}, shape N, run 1: {fault} 3" in text.splitlines()


class Started(Nodes):
    """The nodes of a layout that only look started."""

    def __init__(self, name: str) -> None:
        super().__init__(name, ISSUER, "info", database=None)  # type: ignore[arg-type]  # nothing is started
        for number, cpus in enumerate(self.layout.cpus):
            hub = Hub(name, "memory", ISSUER, "info", cpus)
            hub.subscribe_url = hub.publish_url = f"http://127.0.0.1:{number}"
            self.hubs.append(hub)


@pytest.mark.parametrize(
    ("name", "subscribe", "publish"), [(SQLITE, "0", "0"), (ONE, "0", "0"), (TWO, "01", "01"), (ELSEWHERE, "1", "0")]
)
def test_subscribers_and_events_go_to_the_nodes_of_the_layout(name: str, subscribe: str, publish: str) -> None:
    target = Started(name)
    assert [url[-1] for url in target.subscribe_urls()] == list(subscribe)
    assert [url[-1] for url in target.publish_urls()] == list(publish)


def test_a_topic_apart_has_its_subscribers_where_it_is_published() -> None:
    """A publisher's connection takes turns of nodes, and topics take turns of 32 connections."""
    assert [Started(APART).place(topic, 3) % 2 for topic in (0, 1, 2, 33)] == [0, 1, 0, 1]
    assert [Started(TWO).place(0, number) % 2 for number in range(4)] == [0, 1, 0, 1]


def test_the_load_generator_is_told_of_all_nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words: list[str] = []

    class Done:
        returncode, stdout = 0, "{}"

    def run(command: list[str], **_: object) -> Done:
        words.extend(command)
        return Done()

    monkeypatch.setattr(drive.subprocess, "run", run)
    monkeypatch.setattr(Started, "other_pids", lambda _: [77])
    Started(TWO).loadgen(tmp_path)
    text = " ".join(words)
    assert "--publish http://127.0.0.1:0 --publish http://127.0.0.1:1" in text
    assert "--other-pid 77" in text
