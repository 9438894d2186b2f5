"""Which behaviours of docs/behaviour.md have a test, and which have none.

    python -m tests.requirements            a table
    python -m tests.requirements --check    only what is wrong, and exit code 1 if anything is

A test names what it proves: `@pytest.mark.req("SUB-4")`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BEHAVIOUR = ROOT / "docs" / "behaviour.md"

# In the order of the page.
PREFIXES = (
    *("CFG", "SUB", "LEA", "UNS", "CTX", "EVT", "GET", "DER", "SYN", "CON", "LIM"),
    *("AUT", "WHK", "SES", "AUD", "RAT", "SEC", "OPS", "CLT", "IDM"),
)
ID = re.compile(rf"\b(?:{'|'.join(PREFIXES)})-[1-9][0-9]*\b")

#: The heading of what the page says no more.
RETIRED = "\n## Retired\n"

#: Prefixes and ids that no release has yet. A later issue takes its own out of here.
LATER: set[str] = set()


def prefix(behaviour: str) -> str:
    return behaviour.partition("-")[0]


def by_page(behaviour: str) -> tuple[int, int]:
    """Sorts ids as the page does, and 2 before 10."""
    return PREFIXES.index(prefix(behaviour)), int(behaviour.partition("-")[2])


def defined(page: str) -> list[str]:
    """The ids of the page. Each id it names is one it defines; tests/test_requirements.py sees that no number is left out."""
    rules, _, _ = page.partition(RETIRED)
    return sorted(set(ID.findall(rules)), key=by_page)


def retired(page: str) -> dict[str, str]:
    """The ids that said something else in a release before, and those that took over."""
    _, _, gone = page.partition(RETIRED)
    return dict(re.findall(rf"({ID.pattern}): ({ID.pattern})", gone))


def is_later(behaviour: str) -> bool:
    return behaviour in LATER or prefix(behaviour) in LATER


class Collector:
    """A pytest plugin: counts the tests of each id."""

    def __init__(self) -> None:
        self.tests: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.tests.update({name for mark in item.iter_markers("req") for name in mark.args})


def collect() -> Counter[str]:
    """Ids and their numbers of tests, as pytest collects them. Ends the program where it cannot."""
    collector, output = Collector(), io.StringIO()
    with contextlib.redirect_stdout(output):
        code = pytest.main(["--collect-only", "-qq", f"--rootdir={ROOT}", str(ROOT / "tests")], [collector])
    if code != pytest.ExitCode.OK:
        sys.exit(f"{output.getvalue()}\nrequirements: the tests cannot be collected")
    return collector.tests


def lines(title: str, behaviours: Iterable[str], tests: Counter[str]) -> list[str]:
    """A title, and a line for each prefix: `SUB   1: 3   2: 1   4: -`, with - where there is no test."""
    out = [title]
    for name, group in groupby(behaviours, key=prefix):
        out.append(f"  {name}  " + "  ".join(f"{b.partition('-')[2]:>2}: {tests[b] or '-':<3}" for b in group).rstrip())
    return [*out, ""]


def problems(known: list[str], tests: Counter[str]) -> dict[str, list[str]]:
    """What --check refuses: the ids, by what is wrong with them."""
    wrong = {
        "of this release, without a test": [b for b in known if not is_later(b) and not tests[b]],
        f"named by a test, and not in {BEHAVIOUR.relative_to(ROOT)}": sorted(set(tests) - set(known)),
    }
    return {what: ids for what, ids in wrong.items() if ids}


def report(known: list[str], tests: Counter[str]) -> list[str]:
    return [
        *lines("Of this release, each id with its number of tests:", [b for b in known if not is_later(b)], tests),
        *lines("Of later issues:", [b for b in known if is_later(b)], tests),
        f"of later issues, without a test: {' '.join(b for b in known if is_later(b) and not tests[b]) or 'none'}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="print only what is wrong; exit code 1 if anything is")
    check = parser.parse_args().check
    known, tests = defined(BEHAVIOUR.read_text(encoding="utf-8")), collect()
    wrong = problems(known, tests)
    if not check:
        print("\n".join(report(known, tests)))
    for what, ids in wrong.items():
        print(f"{what}: {' '.join(ids)}")
    if not wrong:
        print("requirements: each behaviour of this release has a test")
    return 1 if check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
