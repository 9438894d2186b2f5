"""The shapes of a short look: --quick of bench.py."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tests.bench import growth, nodes, rates
from tests.bench.servers import drive


def quick_a(target: drive.Target, endpoints: Path) -> dict[str, Any]:
    closed = ["--mode", "closed", "--window", "32", "--warmup", "1", "--duration", "2"]
    return {"closed": drive.measure(target, endpoints, 250, 4, *closed), "best": None, "at500": None}


def quick_b(target: drive.Target, endpoints: Path) -> dict[str, Any]:
    closed = ["--mode", "closed", "--warmup", "1", "--duration", "2", "--window"]
    return {f"w{window}": drive.measure(target, endpoints, 1, 1000, *closed, str(window)) for window in (4, 1)}


def quick_d(target: drive.Target, endpoints: Path) -> dict[str, Any]:
    paced = ["--rate", "100", "--poisson", "--warmup", "1", "--duration", "3"]
    result: dict[str, Any] = drive.measure(target, endpoints, 250, 4, *paced)
    return result


SHAPES = {
    "A": quick_a,
    "B": quick_b,
    "C": functools.partial(drive.shape_c, n=1000),
    "D": quick_d,
    "R": functools.partial(rates.shape_r, rates=rates.QUICK_RATES, seconds=2),
    "G": functools.partial(growth.shape_g, many=500, slow=50, seconds=3, shares=(0.5,)),
    "M": functools.partial(growth.shape_m, events=20_000),
    "N": nodes.quick_n,
}
