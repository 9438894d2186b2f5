"""Where attacks are tried: a hub in a process of its own, its victim here, its attackers in a third process; and what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hardening.attacks.__main__ import NICE
from tests.hardening.attacks.attacker import NEVER
from tests.hardening.attacks.catalogue import ATTACKS
from tests.hardening.attacks.victim import LATE, Sample, Victim, percentile
from tests.process.hub_process import HubProcess
from tests.tokens import Idp

ROOT = Path(__file__).resolve().parents[3]
#: The victim's p99 is at most so many times its quiet p99, or so many seconds, whichever is more.
TIMES, SECONDS = 10, 0.25
#: Bytes to which memory returns, above what it was before and what the attackers may hold; and seconds that it may take.
NEAR, RETURN_SECONDS = 50 << 20, 30.0
#: Questions that a user's callbacks may be asked in a minute: ninety new ones, each of them three times.
MAX_ASKED = 300
#: What the attackers' tokens are good for.
SCOPES = {
    "all": "fhircast/*.*",
    "little": "openid fhircast/heartbeat.read",
    "none": "openid profile",
    "console": "fhircast-hub/console.read",
}
#: Seconds until the attackers are ready, or have stopped.
_PATIENCE = 60
_MIB = 1 << 20

Name = tuple[str, str]


def every() -> list[Name]:
    """All attacks: row and variant."""
    return [(row, variant) for row, variants in ATTACKS.items() for variant in variants]


def together() -> list[Name]:
    """One of each row."""
    return [(row, next(iter(variants))) for row, variants in ATTACKS.items()]


@dataclass
class Result:
    """What was measured: the victim's opens, the hub's memory in bytes, and how each attacker's connections ended."""

    names: list[Name]
    seconds: float
    quiet: float
    samples: list[Sample]
    before: int = 0
    peak: int = 0
    after: int = 0
    ends: list[dict[str, int]] = field(default_factory=list)

    @property
    def bound(self) -> float:
        """Seconds of the victim's p99 that are allowed."""
        return max(TIMES * self.quiet, SECONDS)

    @property
    def allowed(self) -> int:
        """Bytes of memory that are allowed once the attack is over."""
        return self.before + NEAR + sum(ATTACKS[row][variant].held for row, variant in self.names)

    @property
    def late(self) -> int:
        """Opens that arrived after more than LATE."""
        return sum(sample.seconds is not None and sample.seconds > LATE for sample in self.samples)

    @property
    def lost(self) -> int:
        """Opens that did not arrive."""
        return sum(sample.seconds is None for sample in self.samples)

    def complaints(self) -> list[str]:
        """What does not hold; empty when the hub withstood."""
        p99 = percentile(self.samples, 0.99)
        found = []
        if p99 > self.bound:
            found.append(f"the victim's p99 is {p99 * 1000:.0f} ms, at most {self.bound * 1000:.0f} ms are allowed")
        if self.late or self.lost:
            found.append(f"of {len(self.samples)} opens {self.late} were late, {self.lost} lost")
        if self.after > self.allowed:
            found.append(f"memory is {self.after // _MIB} MiB, at most {self.allowed // _MIB} MiB are allowed")
        for name, ends in zip(self.names, self.ends, strict=True):
            refused_after = ATTACKS[name[0]][name[1]].refused_after if len(self.names) == 1 else NEVER
            if self.seconds >= refused_after and not any(map(_is_refused, ends)):
                found.append(f"{': '.join(name)}: the attacker was neither told nor closed")
            if ends.get("asked a callback", 0) > MAX_ASKED * max(1.0, self.seconds / 60):
                found.append(
                    f"callbacks were asked {ends['asked a callback']} times, at most {MAX_ASKED} a minute are allowed"
                )
        return found

    def told(self) -> str:
        """All that was measured, in a few lines."""
        statuses = {str(sample.status) for sample in self.samples} - {"202"}
        milliseconds = [f"{percentile(self.samples, part) * 1000:.1f}" for part in (0.5, 0.99, 1)]
        return "\n".join(
            (
                f"{' + '.join(': '.join(name) for name in self.names)}, {self.seconds:g} s",
                f"victim: p50 {milliseconds[0]} ms, p99 {milliseconds[1]} ms, most {milliseconds[2]} ms, quiet p99 {self.quiet * 1000:.1f} ms",
                f"        {len(self.samples)} opens, {self.late} late, {self.lost} lost, answers other than 202: {sorted(statuses)}",
                f"memory: {self.before // _MIB} MiB before, {self.peak // _MIB} MiB at most, {self.after // _MIB} MiB after",
                *(f"ends:   {': '.join(name)}: {ends}" for name, ends in zip(self.names, self.ends, strict=True)),
            )
        )


def _is_refused(end: str) -> bool:
    """Whether a connection that ended so was refused or closed by the hub."""
    kind, _, code = end.partition(" ")
    return end == "cut off" or kind == "closed" or (kind in ("http", "handshake") and code >= "400")


class Range:
    """A hub under fire. `idp` signs what it trusts."""

    def __init__(self, hub: HubProcess, idp: Idp) -> None:
        self.hub, self._idp = hub, idp
        self._status = Path(f"/proc/{hub.process.pid}/status")

    async def quiet(self, seconds: float) -> float:
        """The victim's p99 in seconds when nobody attacks, and another process burns what it is left of the machine."""
        with burning():
            async with self._victim() as victim:
                return percentile(await victim.work(seconds), 0.99)

    async def attacked(self, names: list[Name], seconds: float, quiet: float) -> Result:
        """The same while these attack. A p99 over the bound is compared with what is quiet now, for machines are shared."""
        result = await self._attacked(names, seconds, quiet)
        if percentile(result.samples, 0.99) > result.bound:
            result.quiet = max(quiet, await self.quiet(1))
        return result

    async def _attacked(self, names: list[Name], seconds: float, quiet: float) -> Result:
        async with self._attackers(names) as attackers, self._victim() as victim:
            await victim.work(0.2)
            result = Result(names, seconds, quiet, [], before=self._memory("VmRSS"))
            self._forget_peak()
            await _say(attackers)
            result.samples = await victim.work(seconds)
            await _say(attackers, "stopped")
            result.peak = self._memory("VmHWM")
            result.after = await self._returned(result.allowed)
            result.ends = json.loads(await _say(attackers, "["))
        return result

    def _forget_peak(self) -> None:
        """VmHWM is counted from here."""
        self._status.with_name("clear_refs").write_text("5")

    def _memory(self, name: str) -> int:
        """Bytes, as /proc says."""
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

    async def _returned(self, allowed: int) -> int:
        """The memory once it is within what is allowed, or after RETURN_SECONDS. The attackers still hold their connections."""
        deadline = time.monotonic() + RETURN_SECONDS
        while (memory := self._memory("VmRSS")) > allowed and time.monotonic() < deadline:  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.1)
        return memory

    def _token(self, user: str, scope: str, **claims: Any) -> str:
        return self._idp.token(user, scope, exp=int(time.time()) + 86400, **claims)

    @asynccontextmanager
    async def _victim(self) -> AsyncIterator[Victim]:
        async with Victim(
            self.hub.port, [self._token("victim", SCOPES["all"], jti=f"{n}") for n in range(4)]
        ) as victim:
            yield victim

    @asynccontextmanager
    async def _attackers(self, names: list[Name]) -> AsyncIterator[Process]:
        """The attackers' process, ready; killed behind the block."""
        users = [f"{row}-{variant}".replace(" ", "-") for row, variant in names]
        attackers = [
            {"attack": name, "user": user, "tokens": {each: self._token(user, scope) for each, scope in SCOPES.items()}}
            for name, user in zip(names, users, strict=True)
        ]
        plan = json.dumps({"port": self.hub.port, "attackers": attackers})
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.hardening.attacks"),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=PIPE,
            stdout=PIPE,
        )
        try:
            await _say(process, "ready", plan)
            yield process
        finally:
            process.kill()
            await process.wait()


async def _say(process: Process, expected: str = "", line: str = "") -> str:
    """Write a line; the line that it answers, if one is expected."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n".encode())
    await process.stdin.drain()
    if not expected:
        return ""
    answer = (await asyncio.wait_for(process.stdout.readline(), _PATIENCE)).decode()
    assert answer.startswith(expected), answer
    return answer


@contextmanager
def burning() -> Iterator[None]:
    """A process that takes all the time it is left, as attackers do."""
    burner = subprocess.Popen([sys.executable, "-c", f"import os; os.nice({NICE})\nwhile True: pass"])
    try:
        yield
    finally:
        burner.kill()
        burner.wait()
