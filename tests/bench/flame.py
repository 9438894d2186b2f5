"""A flame graph of the hub under the load of one shape, by py-spy: build/profile/A.svg.

    python tests/bench/flame.py A                   100 samples a second, of Python's frames
    python tests/bench/flame.py B --native          of C's frames too; the hub stands still while each sample is taken

The width of a frame is its share of the samples. py-spy attaches to the running hub: where the system forbids this to users, run as root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.bench.servers import LOAD_CPU, ROOT, STORES, THIS, Hub, interpreter, issuer  # noqa: E402  # found by the line above

FOLDER = ROOT / "build" / "profile"
WARMUP = 1.0  # seconds of the load before the samples count for anything; they are taken, too


class Load(NamedTuple):
    """Topics, subscribers of each, and how the load generator posts events."""

    topics: int
    subscribers: int
    words: tuple[str, ...]


#: The loads of bench.py's shapes that say where the time goes.
LOADS = {
    "A": Load(250, 4, ("--mode", "closed", "--window", "32")),
    "B": Load(1, 1000, ("--mode", "closed", "--window", "4")),
    "D": Load(250, 4, ("--rate", "100", "--poisson")),
    "R": Load(250, 4, ("--rate", "500")),
    "G": Load(2500, 4, ("--rate", "500")),
}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line, unless words are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=LOADS)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=100, help="samples a second")
    parser.add_argument("--native", action="store_true", help="frames of C too")
    parser.add_argument("--idle", action="store_true", help="samples too in which the hub waits")
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--python", help="runs the hub, with the packages of this one; its version must be the same")
    return parser.parse_args(words)


def program() -> str:
    """py-spy: the environment's, or else the one on the PATH. Ends the program where neither is there."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("py-spy", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    return found or sys.exit("profile: py-spy is missing; `make profile` installs it")


def recording(args: argparse.Namespace, py_spy: str, pid: int, picture: Path) -> list[str]:
    """The command that records this process until an interrupt. The command leaves the hub's CPU to the hub."""
    options = [word for word in ("native", "idle") if getattr(args, word)]
    return [
        *("taskset", "-c", str(LOAD_CPU), py_spy, "record", "--pid", str(pid), "--output", str(picture)),
        *("--rate", str(args.rate), "--duration", "unlimited"),
        *(f"--{option}" for option in options),
    ]


def under_load(args: argparse.Namespace, hub: Hub, picture: Path) -> dict[str, Any]:
    """Record the hub under its load. The load generator's result; or `failed`, with the words of py-spy or of the load generator."""
    topics, subscribers, words = LOADS[args.shape]
    with tempfile.TemporaryDirectory() as folder:
        endpoints = Path(folder) / "endpoints"
        hub.subscribe(topics, subscribers, endpoints)
        command = recording(args, program(), hub.pids()[0], picture)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as spy:
            try:
                load = hub.loadgen(endpoints, *words, "--warmup", str(WARMUP), "--duration", str(args.seconds))
            finally:
                spy.send_signal(signal.SIGINT)
                _, said = spy.communicate(timeout=60)
    return dict(load) if picture.exists() else {"failed": said.strip() or "py-spy wrote no picture"}


def main() -> None:
    args = arguments()
    FOLDER.mkdir(parents=True, exist_ok=True)
    picture = FOLDER / f"{args.shape}.svg"
    picture.unlink(missing_ok=True)
    program()
    with issuer() as made:
        hub = Hub("hub", args.store, made, "info", python=interpreter(args.python) if args.python else THIS)
        hub.check()
        hub.start()
        try:
            load = under_load(args, hub, picture)
        finally:
            hub.stop()
    if "failed" in load:
        sys.exit(f"profile: {load['failed']}")
    delivered, used = load["delivered_per_s"], load["server_cpu"]
    print(f"{picture.relative_to(ROOT)}: {delivered:,.0f} deliveries/s while sampled, {used:.2f} CPUs in use")


if __name__ == "__main__":
    main()
