"""The parts of `make test`, in their order, and the summary at its end.

    python -m tools.checks           all parts
    python -m tools.checks --some    the quick ones, and the tests that ARGS of `make test` names

The quick parts come first. Where one of them fails, the other parts do not run. Four parts run at a time, the longest first:
a part often waits, and three parts leave two processors idle for a third of the time. Measuring tests run last, alone.
The output of a part comes at its end; until then, build/checks has the output.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from tools.reports import read, reason

#: Outputs and JUnit reports; the Makefile's targets write the latter.
FOLDER = Path("build/checks")
AT_ONCE = 4


@dataclass(frozen=True)
class Part:
    """A part, as the summary calls it, and its target in the Makefile. What it measures may need a machine that does nothing else."""

    name: str
    target: str
    undisturbed: bool = False

    @property
    def log(self) -> Path:
        return FOLDER / f"{self.target}.log"

    @property
    def report(self) -> Path:
        return FOLDER / f"{self.target}.xml"


QUICK = (Part("lint", "lint"), Part("types", "types"), Part("requirements", "requirements-check"))
REST = (
    Part("clients", "test-clients"),
    Part("tests", "test-others"),
    Part("pages and models", "test-pages"),
    Part("browser", "test-browser"),
    Part("demo and logins", "test-demo"),
    Part("nodes", "test-nodes"),
    Part("JavaScript", "javascript"),
    Part("attacks", "test-attacks", undisturbed=True),
)
SOME = (Part("tests", "test-some"),)


@dataclass(frozen=True)
class Result:
    """How a part ended. `reason` says why it failed or was not run; `seconds` is how long it ran, None where it did not."""

    part: Part
    outcome: Literal["passed", "failed", "not run"]
    reason: str = ""
    seconds: float | None = None
    skipped: int = 0

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{self.outcome}: {self.reason}"
        took = duration(self.seconds)
        if self.outcome == "failed":
            return f"failed after {took}: {self.reason}"
        return f"passed in {took}" + (f" ({self.skipped} skipped)" if self.skipped else "")


class Checks:
    """Runs parts in child processes, and keeps how they ended."""

    def __init__(self, *, skips_forbidden: bool) -> None:
        self._skips_forbidden = skips_forbidden
        # The parts get the variables that `make test` was given, and not its number of jobs.
        flags, dashes, variables = os.environ.get("MAKEFLAGS", "").partition("-- ")
        kept = " ".join(word for word in flags.split(" ") if not re.match(r"-j|--jobserver", word))
        self._environment = os.environ | {"MAKEFLAGS": f"{kept}{dashes}{variables}"}
        self._prints = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()
        self.results: dict[Part, Result] = {}

    def run_all(self, quick: Sequence[Part], rest: Sequence[Part]) -> None:
        """The quick parts; then the rest, where all of these passed."""
        with ThreadPoolExecutor(AT_ONCE) as executor:
            list(executor.map(self._run, quick))
        if failed := [part.name for part in quick if self.results[part].outcome == "failed"]:
            why = "stopped" if self._stopped.is_set() else f"{' and '.join(failed)} failed"
            self.results |= {part: Result(part, "not run", why) for part in rest}
            return
        if len(rest) == 1:
            self._run(rest[0], alone=True)
            return
        names = ", ".join(part.name for part in rest)
        print(f"running {names}; their output is in {FOLDER} until they end", flush=True)
        with ThreadPoolExecutor(AT_ONCE) as executor:
            list(executor.map(self._run, [part for part in rest if not part.undisturbed]))
        for part in rest:
            if part.undisturbed:
                self._run(part)

    def stop(self, *, terminate: bool) -> None:
        """Starts nothing more. What runs is ended, or ends by itself: a terminal sends its Ctrl-C to all."""
        self._stopped.set()
        for process in list(self._running) if terminate else ():
            process.terminate()

    def _run(self, part: Part, *, alone: bool = False) -> None:
        """A part that runs alone gets the terminal, so that its user can debug."""
        if self._stopped.is_set():
            self.results[part] = Result(part, "not run", "stopped")
            return
        started = time.monotonic()
        with part.log.open("wb") as file:
            command = ("make", "--no-print-directory", part.target)
            output = None if alone else file
            process = subprocess.Popen(command, env=self._environment, stdout=output, stderr=output)
            self._running.add(process)
            if self._stopped.is_set():  # meanwhile
                process.terminate()
            code = process.wait()
            self._running.discard(process)
        result = self._result(part, code, time.monotonic() - started)
        self.results[part] = result
        with self._prints:
            print(f"--- {part.name}: {result.outcome}", flush=True)
            sys.stdout.buffer.write(part.log.read_bytes())
            sys.stdout.flush()

    def _result(self, part: Part, code: int, seconds: float) -> Result:
        if code and self._stopped.is_set():
            return Result(part, "failed", "stopped", seconds)
        found = read(part.report, Path.cwd())
        if code or (found.skipped and self._skips_forbidden):
            output = part.log.read_text(encoding="utf-8", errors="replace") or f"exit code {code}"
            return Result(part, "failed", reason(found, output, skips_forbidden=self._skips_forbidden), seconds)
        return Result(part, "passed", "", seconds, len(found.skipped))


def summary(results: Sequence[Result], seconds: float) -> list[str]:
    """A line for each part, and one for all."""
    lines = ["", "--- summary", *(f"{result.part.name:<18}{result}" for result in results)]
    wrong = [result.part.name for result in results if result.outcome != "passed"]
    verdict = f"not passed: {', '.join(wrong)}" if wrong else "all passed"
    return [*lines, f"{verdict}, {duration(seconds)}"]


def duration(seconds: float) -> str:
    """`12 min 3 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 where every part passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--some", action="store_true", help="only the tests that the Makefile's ARGS names")
    rest = SOME if parser.parse_args(arguments).some else REST
    try:
        if FOLDER.exists():
            shutil.rmtree(FOLDER)  # of an earlier run
        FOLDER.mkdir(parents=True)
    except OSError as error:
        sys.exit(f"this user must be able to make the folder {FOLDER} anew: {error}")
    checks = Checks(skips_forbidden=os.environ.get("FORBID_SKIPS", "0") not in {"", "0"})

    def stop(number: int, frame: FrameType | None) -> None:
        checks.stop(terminate=number == signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    started = time.monotonic()
    checks.run_all(QUICK, rest)
    results = [checks.results[part] for part in (*QUICK, *rest)]
    print("\n".join(summary(results, time.monotonic() - started)), flush=True)
    return int(any(result.outcome != "passed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
