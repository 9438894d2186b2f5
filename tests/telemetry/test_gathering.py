"""The metrics of several workers as one text."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fhircast_hub.telemetry.gathering import KEPT_SECONDS, Gathering, merged
from fhircast_hub.telemetry.metrics import Metrics


def counted(number: int) -> Metrics:
    """The metrics of a worker that has accepted some events."""
    metrics = Metrics(number)
    metrics.events_in.inc(number + 1)
    metrics.answered("publish", 200 + number)
    metrics.accepted_to_written.observe(number / 10)
    return metrics


@pytest.mark.req("OPS-15")
def test_merged_metrics_are_those_of_each_worker() -> None:
    """Nothing is lost, nothing is added up, and each metric has one head."""
    all_metrics = [counted(number) for number in range(3)]
    text = merged(metrics.render() for metrics in all_metrics).decode()
    read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    values = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in read}
    assert len(values) == len(read)
    assert {sample.labels["worker"] for sample in read} == {"0", "1", "2"}
    accepted = [values["fhircast_events_received_total", frozenset({("worker", str(each))})] for each in range(3)]
    assert accepted == [1.0, 2.0, 3.0]
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert len(heads) == len(set(heads)) == 2 * len(list(text_string_to_metric_families(text)))
    assert merged([]) == b""


@pytest.mark.req("OPS-15")
async def test_who_does_not_answer_is_left_out(tmp_path: Path) -> None:
    """One that is not there, and one whose socket was left behind by a worker that died and is back."""
    (tmp_path / "0").touch()
    now = [0.0]
    gatherings = [Gathering(counted(number).render, tmp_path, number, 3, lambda: now[0]) for number in range(2)]
    for each in gatherings:
        await each.start()
    for each in gatherings:
        text = (await each.gather()).decode()
        assert 'fhircast_worker_up{worker="0"} 1.0\nfhircast_worker_up{worker="1"} 1.0\n' in text
        assert text.endswith('fhircast_worker_up{worker="2"} 0.0\n')
        assert 'fhircast_events_received_total{worker="0"} 1.0\n' in text
        assert 'fhircast_events_received_total{worker="1"} 2.0\n' in text
    gatherings[0].stop()
    now[0] += KEPT_SECONDS
    assert 'fhircast_worker_up{worker="0"} 0.0\n' in (await gatherings[1].gather()).decode()
    gatherings[1].stop()


@pytest.mark.req("OPS-15")
async def test_who_dies_amid_the_answer_is_left_out(tmp_path: Path) -> None:
    """However much of the text had come: half a number is a wrong one."""
    sent = [b""]

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent[0])
        writer.close()

    whole = counted(1).render() + b"# EOF\n"
    async with await asyncio.start_unix_server(answer, tmp_path / "1"):
        for length in (10, 200, len(whole) - 9, len(whole) - 1):
            sent[0] = whole[:length]
            text = (await Gathering(counted(0).render, tmp_path, 0, 2).gather()).decode()
            assert text.endswith('fhircast_worker_up{worker="0"} 1.0\nfhircast_worker_up{worker="1"} 0.0\n')
            assert 'worker="1"' not in text.replace('fhircast_worker_up{worker="1"} 0.0\n', "")
        sent[0] = whole
        text = (await Gathering(counted(0).render, tmp_path, 0, 2).gather()).decode()
        assert 'fhircast_worker_up{worker="1"} 1.0\n' in text
        assert "# EOF" not in text


@pytest.mark.req("OPS-15")
async def test_many_questions_are_one_gathering(tmp_path: Path) -> None:
    """Those at the same time, and those of the same second; one that is given up takes the text from no other."""
    now, rendered = [100.0], []

    def render() -> bytes:
        rendered.append(now[0])
        return counted(0).render()

    gathering = Gathering(render, tmp_path, 0, 2, lambda: now[0])
    given_up, *others = [asyncio.create_task(gathering.gather()) for _ in range(20)]
    await asyncio.sleep(0)
    given_up.cancel()
    texts = await asyncio.gather(*others)
    now[0] += KEPT_SECONDS - 0.01
    texts.append(await gathering.gather())
    assert b'fhircast_worker_up{worker="0"} 1.0\n' in texts[0]
    assert (len(set(texts)), rendered) == (1, [100.0])
    now[0] += 0.01
    await gathering.gather()
    assert rendered == [100.0, 101.0]
    await asyncio.gather(given_up, return_exceptions=True)


async def test_a_folder_that_is_gone_stops_no_worker(tmp_path: Path) -> None:
    gathering = Gathering(counted(0).render, tmp_path / "gone", 0, 2)
    await gathering.start()
    assert b'fhircast_worker_up{worker="0"} 1.0\n' in await gathering.gather()
    gathering.stop()
