"""Which behaviours of docs/behaviour.md have a test, and whether the page is as it should be.

    python -m tests.requirements            each id, its number of tests, and the link to it
    python -m tests.requirements --check    only what is wrong, and exit code 1 if anything is

A test names the behaviours that it proves: `@pytest.mark.req("SUB-4")`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections import Counter
from itertools import groupby

import pytest

from tests import behaviour_page as page_of
from tests.behaviour_page import BEHAVIOUR, PAGE, ROOT, Behaviour, prefix

#: Prefixes and ids that no release has yet. The change that builds a behaviour removes it from here.
LATER: set[str] = set()


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
    """Ids and their numbers of tests, as pytest collects them. Ends the program if pytest cannot."""
    collector, output = Collector(), io.StringIO()
    with contextlib.redirect_stdout(output):
        code = pytest.main(["--collect-only", "-qq", f"--rootdir={ROOT}", str(ROOT / "tests")], [collector])
    if code != pytest.ExitCode.OK:
        sys.exit(f"{output.getvalue()}\nrequirements: the tests cannot be collected")
    return collector.tests


def problems(known: list[str], tests: Counter[str]) -> dict[str, list[str]]:
    """The ids that --check refuses for their tests, by the reason."""
    wrong = {
        "of this release, without a test": [b for b in known if not is_later(b) and not tests[b]],
        f"named by a test, and not in {PAGE}": sorted(set(tests) - set(known)),
    }
    return {reason: ids for reason, ids in wrong.items() if ids}


def page_problems(page: str) -> dict[str, list[str]]:
    """The ids and links that --check refuses for the page and the repository's Markdown, by the reason."""
    wrong = {
        **page_of.heading_problems(page),
        **page_of.prose_problems(page),
        f"links to {PAGE} without an anchor there": page_of.link_problems(page, page_of.markdown()),
    }
    return {reason: ids for reason, ids in wrong.items() if ids}


def clickable(link: str, *, terminal: bool) -> str:
    """A link to a file of the repository. A terminal gets the escape sequence of hyperlinks (OSC 8) around the text."""
    return f"\033]8;;{ROOT.as_uri()}/{link}\033\\{link}\033]8;;\033\\" if terminal else link


def line(behaviour: Behaviour, tests: int, *, terminal: bool = False) -> str:
    """`SUB-4   24 tests  docs/behaviour.md#sub-4    Missing parameters`, with - where there is no test."""
    id_, count = behaviour.heading, f"{tests or '-'} {'test ' if tests == 1 else 'tests'}"
    link = page_of.link(id_)
    gap = " " * (len(PAGE) + 9 - len(link))
    later = " (later)" if is_later(id_) else ""
    return f"{id_:<8}{count:>9}  {clickable(link, terminal=terminal)}{gap}{behaviour.title}{later}"


def report(page: str, tests: Counter[str], *, terminal: bool = False) -> list[str]:
    """A line for each behaviour, in the order of the page, with an empty line between prefixes."""
    groups = groupby(page_of.behaviours(page), key=lambda each: prefix(each.heading))
    blocks = ["\n".join(line(each, tests[each.heading], terminal=terminal) for each in group) for _, group in groups]
    return ["\n\n".join(blocks), ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="print only what is wrong; exit code 1 if anything is")
    check = parser.parse_args().check
    page, tests = BEHAVIOUR.read_text(encoding="utf-8"), collect()
    wrong = problems(page_of.defined(page), tests) | page_problems(page)
    if not check:
        print("\n".join(report(page, tests, terminal=sys.stdout.isatty() and os.environ.get("TERM") != "dumb")))
    for reason, ids in wrong.items():
        print(f"{reason}: {' '.join(ids)}")
    if not wrong:
        print("requirements: each behaviour of this release has a heading and a test; each link to one leads there")
    return 1 if check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
