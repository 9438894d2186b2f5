"""The process of the attackers, which waits for nobody's turn but its own: `python -m tests.hardening.attacks`, from tests/.

One line on stdin says what to do: `{"port": ..., "attackers": [{"attack": ["row", "variant"], "user", "tokens"}]}`. It prints
`ready` once all are prepared. Each further line lets it go on: to attack, to stop but keep its connections, and to end. Then it
prints how its connections ended, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import traceback

import uvloop

from tests.hardening.attacks.attacker import Attacker
from tests.hardening.attacks.catalogue import ATTACKS

#: How much this process gives way to the hub and the victim.
NICE = 15


async def _line(reader: asyncio.StreamReader) -> str:
    return (await reader.readline()).decode()


async def attack(reader: asyncio.StreamReader) -> None:
    """All of it, as stdin says."""
    plan = json.loads(await _line(reader))
    start = asyncio.Event()
    waiting = asyncio.Semaphore(0)

    async def begin() -> None:
        waiting.release()
        await start.wait()

    attackers, tasks = [], []
    for each in plan["attackers"]:
        attacker = Attacker(each["user"], plan["port"], each["tokens"], begin)
        row, variant = each["attack"]
        attackers.append(attacker)
        tasks.append(asyncio.ensure_future(ATTACKS[row][variant].run(attacker)))
    prepared = asyncio.ensure_future(_all(waiting, len(tasks)))
    await asyncio.wait((prepared, *tasks), return_when=asyncio.FIRST_COMPLETED)
    if prepared.done():
        print("ready", flush=True)
        await _line(reader)
        start.set()
        await _line(reader)
    for task in tasks:
        task.cancel()
    failures = [each for each in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(each, Exception)]
    for failure in failures:
        traceback.print_exception(failure)
    if prepared.done():
        print("stopped", flush=True)
        await _line(reader)
        print(json.dumps([attacker.settle() for attacker in attackers]), flush=True)


async def _all(waiting: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        await waiting.acquire()


async def main() -> None:
    """Read stdin as it comes."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await attack(reader)


if __name__ == "__main__":
    os.nice(NICE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(main())
