"""How tests/bench starts servers on another Python, keeps results, and profiles. No test here measures anything."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.telemetry.metrics import Metrics
from tests.bench import bench, flame, growth, machine, rates, servers
from tests.bench.results import SHAPES
from tests.bench.servers import THIS, Hub, Interpreter, Issuer, drive

OTHER = Interpreter("/usr/bin/other", {"PYTHONPATH": "hub:packages"})
FACTS = {"processor": "Acme Z80", "kernel": "Linux 6", "hub": "commit abc", "Python": "3.11", "baselines": "uvicorn 1"}


# --- the interpreter -------------------------------------------------------------------------------------------------


def test_another_python_gets_the_hub_and_the_packages_of_this_one() -> None:
    found = servers.interpreter(sys.executable)
    assert json.loads(found.says("import json, fhircast_hub, uvicorn; print(json.dumps(fhircast_hub.__path__))")) == [
        str(servers.ROOT / "hub" / "fhircast_hub")
    ]


def test_a_python_of_another_version_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "python2.7"
    program.write_text("#!/bin/sh\necho 2 7\n")
    program.chmod(0o755)
    with pytest.raises(SystemExit, match="not 2 7"):
        servers.interpreter(str(program))


def test_a_python_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match="/no/such/python"):
        servers.interpreter("/no/such/python")


def test_baselines_in_python_run_on_the_chosen_one() -> None:
    spec: dict[str, Any] = servers.baseline("uvicorn-sansio", OTHER).spec
    assert spec["cmd"][:3] == [OTHER.path, "-m", "uvicorn"]
    assert spec["env"] == OTHER.env
    node = servers.baseline("node-ws", OTHER).spec
    assert node["cmd"][0] == "node"
    assert set(node["env"]) == {"NODE_PATH"}


def test_the_hub_runs_on_the_chosen_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive.Target, "start", lambda self: self)
    hub = Hub("hub", "sqlite", Issuer("[]", "token"), "info", python=OTHER).start()
    hub.stop()
    assert hub.spec["cmd"] == [OTHER.path, "-m", "fhircast_hub", "serve"]
    assert hub.spec["env"]["PYTHONPATH"] == OTHER.env["PYTHONPATH"]
    assert hub.spec["env"]["FHIRCAST_STORE"].startswith("sqlite:///")


# --- facts and results -----------------------------------------------------------------------------------------------


def test_facts_name_the_python_and_how_it_was_built() -> None:
    found = machine.facts(THIS, ["A"])
    assert found["Python"].startswith("{}.{}.{} (the one of `.venv`)".format(*sys.version_info))
    assert "PGO" in found["Python"]
    assert "database of shape N" not in found


def test_no_path_of_a_home_is_named() -> None:
    assert machine.name_of(Interpreter("/usr/bin/python3")) == "`/usr/bin/python3`"
    assert machine.name_of(Interpreter(str(Path.home() / "bin" / "python"))) == "another"


@pytest.mark.parametrize("name", machine.SAME)
def test_results_of_two_machines_or_versions_are_not_put_together(name: str) -> None:
    machine.refuse_others(FACTS, {**FACTS, "date": "2026-01-31"})
    with pytest.raises(SystemExit, match=f"--add: {name} was"):
        machine.refuse_others(FACTS, {**FACTS, name: "another"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bench.Folder:
    """A folder with results of two shapes."""
    monkeypatch.setattr(machine, "facts", lambda python, shapes: dict(FACTS))
    found = bench.Folder(tmp_path)
    found.results.write_text("".join(json.dumps({"server": "hub", "shape": shape}) + "\n" for shape in "AM"))
    found.facts.write_text(json.dumps({**FACTS, "quick": "", "database of shape N": "PostgreSQL"}))
    return found


def kept(folder: bench.Folder) -> list[str]:
    return [json.loads(line)["shape"] for line in folder.results.read_text().splitlines()]


def test_added_shapes_replace_their_own_results_alone(folder: bench.Folder) -> None:
    bench.prepare_results(folder, bench.arguments(["--shapes", "M", "--add"]), THIS)
    assert kept(folder) == ["A"]
    assert json.loads(folder.facts.read_text())["database of shape N"] == "PostgreSQL"


def test_a_run_begins_without_old_results(folder: bench.Folder) -> None:
    bench.prepare_results(folder, bench.arguments(["--shapes", "M"]), THIS)
    assert kept(folder) == []


def test_a_short_look_marks_all_that_it_is_added_to(folder: bench.Folder) -> None:
    bench.prepare_results(folder, bench.arguments(["--shapes", "M", "--add", "--quick"]), THIS)
    bench.prepare_results(folder, bench.arguments(["--shapes", "A", "--add"]), THIS)
    assert json.loads(folder.facts.read_text())["quick"] == "yes"


def test_progress_goes_to_stderr_and_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    bench.in_turn([lambda: print("one"), lambda: print("two")])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[:2] == ["one", "1 of 2; 0 min so far, about 0 min left"]


# --- shapes of several loads -----------------------------------------------------------------------------------------


def test_the_load_generator_ends_well_where_it_prints_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shape M reads a line after each tenth of the events, and looks at the server's memory then."""
    said = "".join(f"mark {number * 10}\n" for number in range(1, 11)) + '{"lost": 0}\n'

    class Target:
        def subscribe(self, *_: object) -> None: ...

        def command(self, endpoints: Path, *words: str) -> list[str]:
            assert words[-2:] == ("--max-events", "100")
            return ["printf", "%s", said]

        def pids(self) -> list[int]:
            return [os.getpid()]

    result = growth.shape_m(Target(), tmp_path, events=100)
    assert [look["events"] for look in result["looks"]] == list(range(10, 110, 10))
    assert all(look["rss_kb"] > 0 for look in result["looks"])
    assert result["lost"] == 0


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("echo mark 10; echo broken >&2; exit 2", "broken"),
        ("exit 3", "loadgen ended with 3"),
        ("true", "loadgen ended with 0"),
    ],
)
def test_a_load_generator_that_fails_is_a_result(script: str, failure: str) -> None:
    assert growth.watched(["sh", "-c", script], dict) == {"failed": failure}


def test_a_look_that_fails_costs_only_itself() -> None:
    """A busy hub may not answer in time."""
    late = iter([True, False])

    def look() -> dict[str, int]:
        if next(late):
            raise TimeoutError
        return {"rss_kb": 1}

    said = growth.watched(["printf", "mark 5\nmark 9\n{}\n"], look)
    assert said == {"looks": [{"events": 9, "rss_kb": 1}]}


def test_a_search_keeps_of_a_step_what_the_load_generator_said(tmp_path: Path) -> None:
    steps = drive.shape_a(Rated(1000), tmp_path)["steps"]
    assert steps
    assert all("failed" not in step for step in steps)


def test_big_bodies_differ_from_the_others_by_a_narrative_alone() -> None:
    big = growth.big_body()
    assert len(big.encode()) == growth.BIG_BODY
    assert big.count("{{ID}}") == 1
    patient = json.loads(big)["event"]["context"][0]["resource"]
    assert patient.pop("text")["status"] == "generated"
    body = json.loads((growth.HERE / "loadgen" / "body.json").read_text())
    assert patient == body["event"]["context"][0]["resource"]


def test_queues_are_read_from_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"# HELP {growth.QUEUED} x\n{growth.QUEUED} 12.0\n{growth.CLOSED} 3.0\nother 4\n".encode()
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(text)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert growth.queues(Rated(1)) == {growth.QUEUED: 12, growth.CLOSED: 3}
    assert asked == ["http://127.0.0.1:1/metrics"]


def test_the_numbers_of_queues_are_those_of_the_hub() -> None:
    text = Metrics().render().decode().splitlines()
    assert {f"{growth.QUEUED} 0.0", f"{growth.CLOSED} 0.0"} <= set(text)


class Rated:
    """A target whose loads go well up to this many events/s."""

    def __init__(self, most: float) -> None:
        self.most, self.rates, self.starts, self.commands = most, list[float](), 0, list[tuple[str, ...]]()
        self.subscribe_url = "http://127.0.0.1:1/api/hub"

    def start(self) -> None:
        self.starts += 1

    def stop(self) -> None: ...

    def subscribe(self, *_: object) -> None: ...

    def command(self, endpoints: Path, *words: str) -> list[str]:
        self.commands.append(words)
        return ["printf", "%s", 'mark 7600\n{"lost": 0}\n']

    def loadgen(self, endpoints: Path, *words: str) -> dict[str, Any]:
        rate = float(words[words.index("--rate") + 1]) if "--rate" in words else self.most
        self.rates.append(rate)
        late = rate > self.most
        counts = dict.fromkeys(("lost", "dead_connections", "http_errors", "steal"), 0)
        sizes = {
            "rate": rate,
            "published_per_s": 2 * self.most,
            "delivered_per_s": 4 * rate,
            "subscribers": 4,
            "topics": 1,
        }
        return {**counts, **sizes, "e2e_sched_us": {"p50": 900, "p99": 90_000 if late else 9000}}


def test_rates_end_with_the_first_that_is_too_high_twice(tmp_path: Path) -> None:
    target = Rated(1000)
    result = rates.shape_r(target, tmp_path)
    assert target.rates == [100, 250, 500, 1000, 1500, 1500]
    assert [step["offered"] for step in result["steps"]] == [100, 250, 500, 1000, 1500]


def test_one_core_carries_the_highest_share_that_goes_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Rated(1000)
    monkeypatch.setattr(growth, "queues", lambda of: {growth.QUEUED: 7} if of is target else {})
    result = growth.shape_g(target, tmp_path)
    assert result["carried"]["rate"] == 1000
    assert target.rates[-5:] == [1800, 1600, 1400, 1200, 1000]
    assert target.starts == len(target.rates) + len(target.commands), "each load has a new server"


def test_loads_without_and_beside_slow_readers_differ_in_these_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Rated(1000)
    monkeypatch.setattr(growth, "queues", lambda _: {growth.QUEUED: 7})
    result = growth.shape_g(target, tmp_path / "endpoints", shares=())
    assert result["slow"]["looks"] == [{"events": 7600, growth.QUEUED: 7}]
    without, slow = target.commands
    place = slow.index("--slow") + 1
    assert (without[place], slow[place]) == ("0", "1000")
    assert [*without[:place], *without[place + 1 :]] == [*slow[:place], *slow[place + 1 :]]
    mark, events = int(slow[slow.index("--mark") + 1]), growth.RATE * (growth.PING_SECONDS + 1)
    assert 2 * mark <= 0.9 * events < 3 * mark, "the second look is the last one, and during the load"


# --- profile ---------------------------------------------------------------------------------------------------------


def test_a_profile_samples_python_alone_unless_told(tmp_path: Path) -> None:
    plain = flame.recording(flame.arguments(["A"]), "py-spy", 42, tmp_path / "A.svg")
    assert plain[plain.index("--pid") + 1] == "42"
    assert plain[plain.index("--rate") + 1] == "100"
    assert "--native" not in plain
    assert "--native" in flame.recording(flame.arguments(["A", "--native"]), "py-spy", 42, tmp_path)


def test_the_loads_of_profiles_are_shapes() -> None:
    assert flame.LOADS.keys() <= SHAPES.keys()


def test_a_missing_py_spy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(SystemExit, match="py-spy is missing"):
        flame.program()


def test_what_py_spy_complains_of_is_the_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = tmp_path / "said"
    os.mkfifo(said)

    class Target:
        def subscribe(self, *_: object) -> None: ...

        def pids(self) -> list[int]:
            return [42]

        def loadgen(self, *_: object) -> dict[str, Any]:
            said.read_text()  # returns when it was said
            return {}

    monkeypatch.setattr(flame, "program", lambda: "py-spy")
    monkeypatch.setattr(flame, "recording", lambda *_: ["sh", "-c", f"echo 'Permission denied' >&2; echo > {said}"])
    found = flame.under_load(flame.arguments(["A"]), Target(), tmp_path / "A.svg")  # type: ignore[arg-type]
    assert found == {"failed": "Permission denied"}
