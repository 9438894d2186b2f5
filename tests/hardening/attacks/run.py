"""`make attack`: each attack for a minute, then all at once, with the default rate limits and without; a table and a plot in build/attack."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.hardening.attacks.plot import plot
from tests.hardening.attacks.range import Name, Range, Result, every, together
from tests.hardening.attacks.victim import percentile
from tests.process.hub_process import IssuerThread, hub_process, issuer_thread

#: The hub's settings beside the defaults, by what they are called in the table. Callbacks lead to this machine.
LIMITS: dict[str, dict[str, int]] = {
    "budgets alone": {"rate_limit_token": 0, "rate_limit_address": 0},
    "rate limits too": {},
}
SETTINGS = {"webhook_allowed_networks": ["127.0.0.0/8"], "console": True}
#: Seconds of a hub that nobody attacks, for comparison.
QUIET_SECONDS = 5
_COLUMNS = (
    "attack",
    "limits",
    "p50 ms",
    "p99 ms",
    "most ms",
    "quiet p99 ms",
    "opens",
    "late",
    "lost",
    "MiB before",
    "most",
    "after",
    "ends",
    "holds",
)


def row(result: Result, limits: str) -> list[str]:
    """A line of the table."""
    times = [percentile(result.samples, part) for part in (0.5, 0.99, 1)] + [result.quiet]
    memory = [result.before, result.peak, result.after]
    return [
        title(result.names),
        limits,
        *(f"{seconds * 1000:.1f}" for seconds in times),
        *(str(count) for count in (len(result.samples), result.late, result.lost)),
        *(str(size >> 20) for size in memory),
        "; ".join(", ".join(f"{end} {count}" for end, count in sorted(ends.items())) for ends in result.ends),
        "; ".join(result.complaints()) or "yes",
    ]


def title(names: list[Name]) -> str:
    """What the attack is called."""
    return ": ".join(names[0]) if len(names) == 1 else f"{len(names)} at once"


def table(lines: list[list[str]]) -> str:
    """Markdown."""
    rows = [list(_COLUMNS), ["---"] * len(_COLUMNS), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def one(names: list[Name], limits: str, seconds: float, issuer: IssuerThread) -> Result:
    """One attack on a hub of its own."""

    async def run() -> Result:
        target = Range(hub, issuer.idp)
        return await target.attacked(names, seconds, await target.quiet(QUIET_SECONDS))

    settings = {**SETTINGS, **LIMITS[limits]}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        hub_process(Path(folder), issuers=issuer.settings, **settings) as hub,
    ):
        return asyncio.run(run())


def main() -> int:
    """Exit code 1 if an attack did more than it may."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default="", help="attacks whose name holds this; `at once` for all together")
    parser.add_argument("--limits", choices=LIMITS, help="one of the two settings")
    parser.add_argument("--to", type=Path, default=Path("build/attack"))
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    chosen = [names for names in [*([name] for name in every()), together()] if options.only in title(names)]
    results: list[tuple[str, Result]] = []
    with issuer_thread() as issuer:
        for limits in [options.limits] if options.limits else LIMITS:
            for names in chosen:
                print(f"{title(names)}, {limits}", file=sys.stderr)
                results.append((limits, one(names, limits, options.seconds, issuer)))
                print(results[-1][1].told(), "", sep="\n", file=sys.stderr)
                (options.to / "table.md").write_text(table([row(result, limits) for limits, result in results]))
                (options.to / "latency.svg").write_text(
                    plot([(f"{title(r.names)}, {limits}", r) for limits, r in results])
                )
    print((options.to / "table.md").read_text(), end="")
    return 1 if any(result.complaints() for _, result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
