"""Plays random sequences to the engines of both languages: whatever can be seen of them must be the same after every step.

    python -m tests.clients.fuzz 2000 [--first SEED]

A sequence that they play differently is printed, with as few steps as show it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.clients.engine_driver import Driver
from tests.node import NODE

_PLAYER = Path(__file__).parents[2] / "clients" / "javascript" / "test" / "engine-player.js"
_MOST_STEPS = 24
#: Differences that are printed.
_MOST_SHOWN = 5

Step = dict[str, Any]
Sequence = dict[str, Any]


def random_sequence(seed: int) -> Sequence:
    """The sequence of a seed: always the same."""
    return _Maker(random.Random(seed)).sequence()  # not for secrets


class _Maker:
    """Makes a sequence. What a step refers to may be there or not: the drivers pass over what cannot be."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._count = 0
        self._told: list[Step] = []  # what came and what was sent
        self._own: list[str] = []
        self._on_its_way = ""  # the own event that was sent and not answered
        self._is_slow = False  # whether a handler may be at work

    def sequence(self) -> Sequence:
        chance = self._chance
        sequence: Sequence = {"clock": chance.choice([3600, 3600, 8, 0])}
        if chance.random() < 0.3:
            sequence["handled"] = chance.sample(["Patient-open", "ImagingStudy-open", "Patient-close", "Home-open"], 3)
        if chance.random() < 0.3:
            sequence["granted"] = ["Patient-open", "Patient-close", "SyncError"]
        ordered = chance.random() < 0.5
        steps = [self._connected(ordered)]
        while len(steps) < _MOST_STEPS:
            steps.extend(self._steps(ordered))
        return {**sequence, "steps": steps[: chance.randint(3, _MOST_STEPS)]}

    def _steps(self, ordered: bool) -> list[Step]:
        if self._on_its_way and self._chance.random() < 0.5:
            return [self._answered()]
        if self._is_slow and self._chance.random() < 0.4:
            return [self._handler()]
        makers = (
            *((self._comes, 9), (self._repeats, 3), (self._publishes, 5), (self._answered, 5), (self._sync_error, 4)),
            *((self._asks, 3), (self._handler, 2), (self._resends, 2), (self._content, 3), (self._clock, 1)),
        )
        if self._chance.random() < 0.08:
            steps: list[Step] = [{"lost": "The connection was lost"}, self._connected(ordered)]
            return steps if self._chance.random() < 0.7 else [*steps, {"settles": True}]
        if self._chance.random() < 0.02:
            return [{"unread": True}]
        (make,) = self._chance.choices([make for make, _ in makers], [weight for _, weight in makers])
        return [make()]

    def _connected(self, ordered: bool) -> Step:
        return {"connected": ordered}

    def _change(self) -> str:
        patient, study = self._chance.choice(["p1", "p1", "p1", "p2", "p1*"]), self._chance.choice(["s1", "s1", "s2"])
        return self._chance.choice(
            [
                *[f"Patient-open {patient}"] * 4,
                *[f"ImagingStudy-open {study} {patient}"] * 3,
                *[f"Patient-close {patient}"] * 2,
                *[f"ImagingStudy-close {study}"] * 2,
                *("Home-open", "patient-OPEN p2", "UserLogout", "DiagnosticReport-open r1 p1"),
            ]
        )

    def _at(self) -> Any:
        return self._chance.choice([*range(12), *range(12), 70, 100, None, "2026-11-22T11:00:03.5+01:00"])

    def _new(self, verb: str, text: str) -> Step:
        self._count += 1
        step = {verb: text, "id": f"e{self._count}", "at": self._at()}
        if text.startswith("DiagnosticReport-open"):
            step["version"] = f"v{self._chance.randint(0, 2)}"
        if verb == "comes" and self._chance.random() < 0.3:
            step["handler"] = self._chance.choice(["refuse", "slow"])
            self._is_slow |= step["handler"] == "slow"
        self._told.append(step)
        return step

    def _comes(self) -> Step:
        return self._new("comes", self._change())

    def _repeats(self) -> Step:
        """Something comes again: what came before, or what was published here."""
        if not self._told:
            return self._comes()
        before = self._chance.choice(self._told[-8:])
        text = next(iter(before.values()))
        step = {**{"comes": text}, **{name: value for name, value in before.items() if name in ("id", "at", "version")}}
        return {**step, "handler": "refuse"} if self._chance.random() < 0.2 else step

    def _publishes(self) -> Step:
        step = self._new(self._chance.choice(["sends", "opens"]), self._change())
        if "opens" in step and not step["opens"].lower().partition(" ")[0].endswith("-open"):
            step = {"sends" if name == "opens" else name: value for name, value in step.items()}
            self._told[-1] = step
        self._own.append(step["id"])
        self._on_its_way = step["id"]
        return step

    def _answered(self) -> Step:
        if not self._own:
            return self._publishes()
        if self._on_its_way:
            id_, self._on_its_way = self._on_its_way, ""
            return {self._chance.choice(["accepted", "accepted", "accepted", "accepted", "refused", "fails"]): id_}
        return {self._chance.choice(["late", "late", "fails", "refused"]): self._chance.choice(self._own[-2:])}

    def _sync_error(self) -> Step:
        about = self._chance.choice(self._told[-6:]) if self._told else {"id": "unknown"}
        self._count += 1
        return {
            "sync error": self._chance.choice(["chart", "viewer", "me"]),
            "about": about["id"],
            "id": f"e{self._count}",
            "at": self._at(),
            "event": self._chance.choice(["Patient-open p1", "ImagingStudy-open s1"]),
        }

    def _asks(self) -> Step:
        answer = self._chance.choice(
            [
                *[None] * 2,
                404,
                503,
                "Patient-open p1",
                "Patient-open p2",
                "ImagingStudy-open s1 p1",
                "DiagnosticReport-open r1",
            ]
        )
        step: Step = {"asks": answer}
        if answer is None and self._chance.random() < 0.5:
            step["version"] = "0"
        elif isinstance(answer, str) and self._chance.random() < 0.5:
            step |= {"version": f"v{self._chance.randint(0, 3)}", "content": self._chance.sample(["o1", "o2", "o3"], 2)}
        return {**step, "handler": "refuse"} if self._chance.random() < 0.15 else step

    def _handler(self) -> Step:
        if self._is_slow and self._chance.random() < 0.7:
            if self._chance.random() < 0.15:
                return {"gives up": True}
            self._is_slow = False
            return {
                "ends": self._chance.choice(["ok", "ok", "refuse", "fail"]),
                "again": self._chance.choice(["ok", "slow"]),
            }
        return self._chance.choice([{"found": True}, {"catches up": "ok"}, {"catches up": "refuse"}])

    def _resends(self) -> Step:
        return {self._chance.choice(["again", "quiet"]): self._chance.choice(self._own or ["unknown"])}

    def _content(self) -> Step:
        number = self._chance.randint(0, 3)
        change = self._chance.choice(["+o1", "+o2", "-o1", "+o1 -o2", "-o3"])
        step = self._new("comes", f"DiagnosticReport-update r1 {change}")
        return {**step, "version": f"v{number + 1}", "prior": f"v{number}"}

    def _clock(self) -> Step:
        return {"clock is": self._chance.choice([0, 4, 8, 3600])}


def played_here(sequence: Sequence) -> list[Step]:
    """What Python's engine makes of a sequence, step by step."""
    driver = Driver(sequence)
    return [driver.step(step) for step in sequence["steps"]]


class JavaScript:
    """The engine of JavaScript, in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [NODE, _PLAYER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def __enter__(self) -> JavaScript:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def played(self, sequence: Sequence) -> list[Step]:
        """What its engine makes of a sequence, step by step."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(sequence) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        found: list[Step] = answer["seen"]
        return found


def difference(sequence: Sequence, javascript: JavaScript) -> str:
    """Where the two engines part, "" where they do not."""
    for step, ours, theirs in zip(sequence["steps"], played_here(sequence), javascript.played(sequence), strict=True):
        if ours != theirs:
            names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
            told = "".join(
                f"\n    {name}: Python {ours.get(name)!r}, JavaScript {theirs.get(name)!r}" for name in names
            )
            return f"  after {json.dumps(step)}{told}"
    return ""


def shrunk(sequence: Sequence, javascript: JavaScript) -> Sequence:
    """The sequence without the steps that the difference does not need."""
    index = 0
    while index < len(sequence["steps"]):
        fewer = {**sequence, "steps": sequence["steps"][:index] + sequence["steps"][index + 1 :]}
        if difference(fewer, javascript):
            sequence = fewer
        else:
            index += 1
    return sequence


def differences(seeds: range) -> list[str]:
    """Of the sequences of these seeds those that the engines play differently, as texts."""
    found = []
    with JavaScript() as javascript:
        for seed in seeds:
            if difference(random_sequence(seed), javascript):
                fewest = shrunk(random_sequence(seed), javascript)
                steps = "".join(f"\n    {json.dumps(step)}" for step in fewest["steps"])
                others = {name: value for name, value in fewest.items() if name != "steps"}
                found.append(f"seed {seed}: {others}{steps}\n{difference(fewest, javascript)}")
    return found


def main() -> int:
    """Print the differences; 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="how many sequences are played")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    options = parser.parse_args()
    found = differences(range(options.first, options.first + options.count))
    for text in found[:_MOST_SHOWN]:
        print(text)
    print(f"{options.count} sequences, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
