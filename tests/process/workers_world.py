"""A hub of several workers: `fhircast-hub serve --workers`, and what its first process says of them in the log."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.postgresql.programs import is_alive
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, hub_process

SECRET_KEY = "a-secret-key-of-all-workers-of-this-hub"


def settings_of(database: str, issuer: IssuerThread) -> dict[str, Any]:
    """What several workers need. Rates are without limit."""
    rates = {"rate_limit_token": 0, "rate_limit_address": 0}
    return {"issuers": issuer.settings, "store": database, "secret_key": SECRET_KEY, **rates}


class WorkersProcess:
    """A hub with so many workers; all serve within a `with` block, and all are gone after it."""

    def __init__(self, folder: Path, count: int, *more: str, **settings: Any) -> None:
        self.count = count
        self.hub: HubProcess = hub_process(folder, "serve", "--workers", str(count), *more, **settings)

    def __enter__(self) -> WorkersProcess:
        try:
            self.hub.wait_until_ready()
            wait(lambda: len(self.up()) == self.count)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        pids = [line["pid"] for line in self.hub.lines("worker started")]
        self.hub.__exit__()
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGCONT)
        wait(lambda: not any(map(is_alive, pids)))

    def pids(self) -> list[int]:
        """The process of each worker now, by number."""
        return list({line["worker"]: line["pid"] for line in self.hub.lines("worker started")}.values())

    def kill(self, number: int, by: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process of a worker."""
        os.kill(self.pids()[number], by)

    def events(self, name: str) -> list[int]:
        """The numbers of the workers of which the log says this, in order."""
        return [line["worker"] for line in self.hub.lines(name)]

    def metrics(self) -> str:
        """The text of /metrics, by a new connection."""
        answer = httpx.get(f"{self.hub.origin}/metrics", trust_env=False, timeout=PATIENCE)
        assert answer.status_code == 200
        return answer.text

    def numbers(self, name: str, text: str | None = None) -> dict[int, float]:
        """A number of each worker at /metrics."""
        families = text_string_to_metric_families(text or self.metrics())
        found = (sample for family in families for sample in family.samples if sample.name == name)
        return {int(sample.labels["worker"]): sample.value for sample in found}

    def up(self) -> list[int]:
        """The workers that answer."""
        return [number for number, is_up in self.numbers("fhircast_worker_up").items() if is_up]

    def metrics_of(self, up: list[int]) -> str:
        """The text of /metrics, as soon as these workers answer, and no other. Each worker shows a text for a second."""
        texts: list[str] = []

        def are_up() -> bool:
            texts.append(self.metrics())
            return [number for number, is_up in self.numbers("fhircast_worker_up", texts[-1]).items() if is_up] == up

        wait(are_up)
        return texts[-1]

    def sockets(self, count: int) -> dict[int, float]:
        """The sockets of each worker, as soon as there are so many."""
        numbers: list[dict[int, float]] = []

        def are_all() -> bool:
            numbers.append(self.numbers("fhircast_sockets"))
            return sum(numbers[-1].values()) == count

        wait(are_all)
        return numbers[-1]


def wait(condition: Any) -> None:
    """Until this holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.02)
