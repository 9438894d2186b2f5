"""The page, the picture and the sentence that tests/bench makes of results. No test here measures anything."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.bench import bench, curve, growth, page, rates
from tests.bench.results import GOALS, SHAPES, Results, flatten, read
from tests.hardening.attacks.plot import plot
from tests.hardening.attacks.range import Result
from tests.hardening.attacks.victim import Sample

ROOT = Path(__file__).resolve().parents[2]
FACTS = {"date": "2026-01-31", "processor": "Acme Z80, 2 CPUs", "hub": "0.1.0, commit abc"}
SVG = "{http://www.w3.org/2000/svg}"


def load(rate: float, p50: float, **more: float) -> dict[str, Any]:
    """What the load generator says of one load that went well."""
    spread = {"p50": p50, "p90": 2 * p50, "p99": 10 * p50, "p999": 20 * p50}
    latencies = dict.fromkeys(("e2e_us", "e2e_sched_us", "fanout_us", "http_us"), spread)
    counts = dict.fromkeys(("lost", "duplicates", "order_violations", "http_errors", "dead_connections", "unsent"), 0)
    cpu = {"server_cpu": 0.5, "settle_cpu": 0.1, "loadgen_cpu": 0.1, "steal": 0.0}
    sizes = {"rate": rate, "published_per_s": rate, "delivered_per_s": 4 * rate, "topics": 250, "subscribers": 1000}
    return {**sizes, **latencies, **counts, **cpu, "slow": 0, **more}


def results_of(speed: float) -> dict[str, dict[str, Any]]:
    """A result of each shape, of a server with this speed: 1 is the hub's."""
    slow = 1 / speed
    idle = {"confirmed": 5000, "dead": 0, "rss_before_kb": 51200, "kb_per_connection": 12 * slow, "setup_s": 1.0}
    many = load(500, 1000 * slow)
    looks = [{"events": 100_000 * number, "rss_kb": 100_000 + number} for number in range(1, 11)]
    growing = {"topics": 2500, "few": many, "many": many, "without": beside(many, 0, 0), "slow": beside(many, 1200, 3)}
    return {
        "A": {"closed": load(1000 * speed, 900), "best": load(900 * speed, 900), "at500": load(500, 500 * slow)},
        "B": {"w4": load(100 * speed, 900), "w1": load(50 * speed, 900)},
        "C": idle,
        "D": load(100, 400 * slow),
        "R": {"steps": [{"offered": rate, **load(rate, rate * slow)} for rate in rates.RATES]},
        "G": {**growing, "carried": load(1234.5, 2000)},
        "M": {**load(2000, 900), "looks": looks},
    }


def beside(many: dict[str, Any], queued: int, closed: int) -> dict[str, Any]:
    """A load beside slow readers, for which the hub queued so many frames, or which the hub closed."""
    return {**many, "slow": 1000, "looks": [{"events": 7600, growth.QUEUED: queued, growth.CLOSED: closed}]}


def lines(servers: dict[str, float], runs: int = 1, without: str = "") -> list[str]:
    """The lines of a file of results; speeds by server."""
    return [
        json.dumps({"server": server, "shape": shape, "run": run, "result": result})
        for run in range(1, runs + 1)
        for server, speed in servers.items()
        for shape, result in results_of(speed * run).items()
        if shape not in without and (server == "hub" or shape not in "GM")
    ]


SERVERS = {"hub": 1.0, "uvicorn-sansio": 1.6, "node-ws": 2.0}


def found(**more: Any) -> Results:
    return read(lines(SERVERS, **more))


def rows(text: str) -> list[list[str]]:
    """The cells of all lines of tables."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]


def row(text: str, *start: str) -> list[str]:
    """The one line of a table that starts with these cells."""
    (only,) = (cells for cells in rows(text) if cells[: len(start)] == list(start))
    return only[len(start) :]


# --- the page --------------------------------------------------------------------------------------------------------


def test_a_figure_stands_beside_its_ratios_and_its_goal() -> None:
    cells = row(page.make(found(), FACTS).text, "A", "the same per server-CPU-second")
    assert cells == ["8,000", "12,800", "16,000", "0.62", "0.50", "at least 0.70: missed"]


def test_a_goal_of_a_latency_is_an_upper_bound() -> None:
    text = page.make(found(), FACTS).text
    assert row(text, "A", "at 500 events/s: p50, us")[-2:] == ["2.00", "at most 2.50: met"]
    assert row(text, "D", "p50, us")[-2:] == ["2.00", "at most 1.50: missed"]


def test_several_runs_are_shown_by_median_least_and_most() -> None:
    cells = row(page.make(found(runs=3), FACTS).text, "A", "deliveries/s, highest rate with p99 <= 50 ms")
    assert cells[0] == "7,200 (3,600-10,800)"
    assert "| runs | 3 |" in page.make(found(runs=3), FACTS).text


def test_each_goal_is_of_a_figure_on_the_page() -> None:
    goals = [cells[-1] for cells in rows(page.make(found(), FACTS).text) if re.match("at (least|most) .*: ", cells[-1])]
    assert len(goals) == len(GOALS)


def test_growth_is_judged_by_its_bounds() -> None:
    text = page.make(found(), FACTS).text
    assert row(text, "CPU of an event, 2,500 topics / 250 topics") == ["at most 1.10", "1: 800 / 800 us", "yes"]
    assert row(text, "p99 beside 1,000 slow readers / without")[-1] == "yes"
    assert row(text, "memory in the end / after a tenth of the events")[-1] == "yes"


def test_growth_over_its_bound_does_not_hold() -> None:
    result = results_of(1)["G"]
    result["many"] = {**result["many"], "server_cpu": 0.6}
    line = json.dumps({"server": "hub", "shape": "G", "run": 1, "result": result})
    text = page.make(read([line]), FACTS).text
    assert row(text, "CPU of an event, 2,500 topics / 250 topics")[1:] == ["1.25: 1,000 / 800 us", "no"]


def test_slow_readers_are_compared_with_the_same_load_without_them() -> None:
    result = results_of(1)["G"]
    result["without"] = beside(load(500, 500), 0, 0)
    text = page.make(read([json.dumps({"server": "hub", "shape": "G", "run": 1, "result": result})]), FACTS).text
    assert row(text, "p99 beside 1,000 slow readers / without")[1:] == ["2: 10,000 / 5,000 us", "yes"]
    assert "Up to 1,200 frames waited in the hub for slow readers, and 3 slow readers were closed." in text


def test_the_text_under_the_curve_names_the_highest_rate() -> None:
    assert "or at the highest rate offered, 16,000 events/s." in page.make(found(), FACTS).text
    assert rates.RATES[-1] == 16_000


def test_the_section_of_reasons_stands_before_the_machine_with_links_of_the_page(tmp_path: Path) -> None:
    folder = page.WHY.parent
    links = "[a](README.md#profile) [b](../../docs/behaviour.md) [c](#here) [d](https://example.org/x.md)"
    why = tmp_path / "why.md"
    why.write_text(
        f"## Where the time goes\n{links}\n".replace("](README", f"]({folder}/README").replace("](..", f"]({folder}/..")
    )
    text = page.make(found(), FACTS, why).text
    between = text[text.index("## Growth") : text.index("## Machine and versions")]
    seen = "[a](../tests/bench/README.md#profile) [b](behaviour.md) [c](#here) [d](https://example.org/x.md)"
    assert f"\n\n## Where the time goes\n{seen}\n\n" in text
    assert "## Where the time goes" in between
    assert "Where the time" not in page.make(found(), FACTS, tmp_path / "missing.md").text


def test_the_file_of_reasons_is_on_the_page() -> None:
    assert page.WHY.read_text(encoding="utf-8").startswith("## Where the time goes\n")
    assert "\n## Where the time goes\n" in page.make(found(), FACTS).text


def test_the_sentence_is_what_one_core_carried_rounded_down() -> None:
    made = page.make(found(), FACTS)
    words = "One core (Acme Z80) carries 2,500 sessions with 10,000 sockets, and 1,200 events a second."
    assert made.sentence == words
    assert f"**{words}** Each event goes to 4 subscribers; 99 of 100 deliveries arrived within 20 ms." in made.text


def test_the_page_says_how_many_runs_behind_the_sentence_were_disturbed() -> None:
    """By the hypervisor. A run of another shape is none of these."""
    runs = [*lines(SERVERS), *(line.replace('"steal": 0.0', '"steal": 0.1') for line in lines(SERVERS, runs=3))]
    disturbed = "The hypervisor took CPU from 3 of the runs behind this sentence, as the [remarks](#remarks) say."
    assert disturbed in page.make(read(runs), FACTS).text
    assert "behind this sentence" not in page.make(found(), FACTS).text


def test_faults_are_remarks_of_the_page() -> None:
    broken = results_of(1)["D"] | {"lost": 7}
    text = page.make(read([json.dumps({"server": "hub", "shape": "D", "run": 2, "result": broken})]), FACTS).text
    assert "- hub, shape D, run 2: lost 7" in text.splitlines()


def test_machine_and_versions_are_named() -> None:
    text = page.make(found(), FACTS).text
    assert [row(text, name) for name in FACTS] == [[fact] for fact in FACTS.values()]


def test_nodes_are_on_the_page_where_they_were_measured() -> None:
    line = json.dumps(
        {"server": "postgresql x1", "shape": "N", "run": 1, "result": {"nodes": 1, "at500": load(500, 900)}}
    )
    assert "## One and two nodes" in page.make(read([line]), FACTS).text
    assert "## One and two nodes" not in page.make(found(), FACTS).text


# --- whole or not at all ---------------------------------------------------------------------------------------------


def test_a_whole_run_lacks_nothing() -> None:
    assert page.lacking(found(), FACTS) == []


@pytest.mark.parametrize("shape", [*page.COMPARED, *page.ALONE])
def test_a_page_lacks_each_shape_that_was_not_measured(shape: str) -> None:
    assert f"shape {shape} of hub is missing" in page.lacking(found(without=shape), FACTS)


def test_a_page_lacks_a_baseline_that_was_not_measured() -> None:
    assert "shape A of node-ws is missing" in page.lacking(read(lines({"hub": 1, "uvicorn-sansio": 1})), FACTS)


def test_a_page_lacks_a_goal_whose_figure_nobody_measured() -> None:
    shortened = [line.replace('"best": {', '"best": null, "other": {') for line in lines(SERVERS)]
    assert page.lacking(read(shortened), FACTS) == ["A of hub has no sat", "A of node-ws has no sat"]


def test_a_page_lacks_a_million_events() -> None:
    shortened = [line.replace('"events": 1000000', '"events": 999999') for line in lines(SERVERS)]
    wanted = ["M of hub ended after 999,999 events, and the page needs 1,000,000"]
    assert page.lacking(read(shortened), FACTS) == wanted
    assert bench.arguments(["--page"]).events == page.MEMORY_EVENTS
    assert bench.arguments([]).events == growth.EVENTS
    assert bench.arguments(["--page", "--events", "7"]).events == 7


@pytest.mark.parametrize(
    ("queued", "late", "closed", "slowed"), [(0, 0, 0, False), (5, 5, 0, False), (5, 4, 0, True), (0, 0, 5, True)]
)
def test_a_page_lacks_slow_readers_for_which_the_hub_never_waited(
    queued: int, late: int, closed: int, slowed: bool
) -> None:
    """Frames that wait for normal readers, as they do without slow ones, are no proof."""
    result = {
        **results_of(1)["G"],
        "slow": beside(load(500, 1000), queued, closed),
        "without": beside(load(500, 1000), late, 0),
    }
    slow = json.dumps({"server": "hub", "shape": "G", "run": 2, "result": result})
    results = read([*lines(SERVERS), slow])
    assert results.remarks == ([] if slowed else [f"hub, shape G, run 2: {growth.NEVER_SLOW}"])
    assert page.lacking(results, FACTS) == ([] if slowed else [growth.NEVER_SLOW])


def test_a_short_look_is_no_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert page.lacking(found(), {**FACTS, "quick": "yes"}) == ["a short look is no measurement"]
    with pytest.raises(SystemExit):
        bench.arguments(["--quick", "--page"])
    assert "--page needs a whole run" in capsys.readouterr().err


def test_a_short_look_claims_nothing() -> None:
    made = page.make(found(), {**FACTS, "quick": "yes"})
    assert made.sentence == ""
    assert "One core" not in made.text
    assert "This was a short look" in made.text
    assert (
        page.in_readme("")
        == f"{page.BEGIN}\n[docs/benchmarks.md](docs/benchmarks.md) has the measurements.\n{page.END}"
    )


def test_publishing_writes_page_picture_and_readme(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    made = page.make(found(), FACTS)
    made.publish(tmp_path)
    assert (tmp_path / page.PAGE).read_text() == made.text
    assert (tmp_path / page.PICTURE).read_text() == made.picture
    readme = (tmp_path / "README.md").read_text()
    assert readme == f"before\n{page.in_readme(made.sentence)}\nafter\n"


def test_nothing_is_written_where_the_readme_has_no_place(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="README"):
        page.make(found(), FACTS).publish(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_readme_and_page_agree() -> None:
    text = (ROOT / page.PAGE).read_text(encoding="utf-8")
    words = re.findall(r"^\*\*(One core .*?)\*\*", text, flags=re.MULTILINE)
    assert page.in_readme("".join(words)) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_picture_of_the_page_is_there() -> None:
    ET.parse(ROOT / page.PICTURE)


def test_kept_results_are_shown_without_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.jsonl").write_text("\n".join(lines(SERVERS)))
    (tmp_path / "facts.json").write_text(json.dumps(FACTS))
    monkeypatch.setattr("sys.argv", ["bench.py", "--show", "--folder", str(tmp_path)])
    bench.main()
    assert "### A: 250 topics x 4 subscribers" in capsys.readouterr().out
    assert (tmp_path / "benchmarks.md").read_text() == page.make(found(), FACTS).text


# --- pictures --------------------------------------------------------------------------------------------------------


def test_the_curve_has_both_latencies_of_each_server() -> None:
    picture = ET.fromstring(curve.curve(found().cells, {**page.NAMES, "hub": "<hub>"}))
    drawn = picture.findall(f".//{SVG}polyline")
    assert len(drawn) == 2 * len(SERVERS)
    assert {len(each.attrib["points"].split()) for each in drawn} == {len(rates.RATES)}
    assert "<hub>" in [text.text for text in picture.iter(f"{SVG}text")]


def test_the_higher_latency_is_drawn_higher() -> None:
    slow, fast = curve.line([(100, 9000)], "#000", ""), curve.line([(100, 900)], "#000", "")
    heights = [float(re.findall(r'cy="([\d.]+)"', each)[0]) for each in (slow, fast)]
    assert heights[0] < heights[1]


def test_a_curve_of_nothing_is_a_picture_too() -> None:
    assert not ET.fromstring(curve.curve({}, page.NAMES)).findall(f".//{SVG}polyline")


def test_the_plot_of_attacks_has_a_dot_for_each_open() -> None:
    samples = [Sample(number, 202, seconds) for number, seconds in enumerate((0.01, 2.0, None))]
    picture = ET.fromstring(plot([("rooms & tokens", Result([], 60, 0.01, samples))] * 4))
    colors = [dot.attrib["fill"] for dot in picture.iter(f"{SVG}circle")]
    assert colors == ["#247", "#c22", "#c22"] * 4


# --- figures ---------------------------------------------------------------------------------------------------------


def test_a_loss_counts_as_a_fault_where_the_server_kept_up() -> None:
    kept_up, overloaded = load(100, 900, lost=3), load(4000, 900_000, lost=50)
    steps = [{"offered": 100, **kept_up}, {"offered": 4000, **overloaded}]
    assert flatten("R", {"steps": steps})["lost"] == 3


def test_what_was_not_measured_is_a_remark_and_no_figure() -> None:
    result = {"w4": load(0, 0, http_errors=2), "w1": load(50, 900)}
    found = read([json.dumps({"server": "hub", "shape": "B", "run": 1, "result": result})])
    assert found.remarks == ["hub, shape B, run 1: http_errors 2", "hub, shape B, run 1: no event in the measured time"]
    assert ("B", "w4", "hub") not in found.cells
    assert found.cells["B", "w1", "hub"] == [200]


def test_a_step_of_a_search_that_went_well_is_no_remark() -> None:
    searched = {**results_of(1)["A"], "steps": [{"rate": 500.0, "failed": None, "good": True}]}
    assert read([json.dumps({"server": "hub", "shape": "A", "run": 1, "result": searched})]).remarks == []


def test_a_failure_without_words_is_remarked_in_words() -> None:
    line = json.dumps({"server": "hub", "shape": "C", "run": 1, "result": {"failed": ""}})
    assert read([line]).remarks == ["hub, shape C, run 1: failed, and said nothing"]


def test_a_step_that_failed_is_remarked() -> None:
    steps = [{"offered": 100, "failed": "no answer"}]
    line = json.dumps({"server": "hub", "shape": "R", "run": 1, "result": {"steps": steps}})
    assert read([line]).remarks == ["hub, shape R, run 1: no answer"]


def test_the_cost_of_an_event_is_without_that_of_idle_sockets() -> None:
    assert growth.cost(load(500, 900, server_cpu=0.5, settle_cpu=0.1)) == pytest.approx(800)


def test_a_load_of_growth_that_failed_leaves_the_others() -> None:
    figures = flatten("G", {**results_of(1)["G"], "slow": {"failed": "no answer"}, "carried": None})
    assert figures["us_ratio"] == 1
    assert not {"p99_ratio", "carried"} & figures.keys()


def test_memory_is_that_of_the_first_and_the_last_tenth() -> None:
    figures = flatten("M", results_of(1)["M"])
    assert (figures["first"], figures["last"]) == (100_000, 1_000_000)
    assert figures["mb_ratio"] == pytest.approx(100_010 / 100_001)


def test_all_shapes_have_their_place_on_the_page() -> None:
    assert {*page.COMPARED, *page.ALONE, "N", "W"} == SHAPES.keys()
