"""Why a part of the tests failed, in one line: the first failing test and its reason, from a JUnit report or from the output."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tools.libraries import missing_library

#: Characters of a reason; the output has the rest.
MOST = 240


@dataclass(frozen=True)
class Case:
    """A test that failed or was skipped: its name, such as `tests/core/test_x.py::test_y`, and what it says."""

    name: str
    complaint: str


@dataclass(frozen=True)
class Report:
    """What a JUnit report says, in the order of the tests."""

    failed: tuple[Case, ...] = ()
    skipped: tuple[Case, ...] = ()


def read(path: Path, folder: Path) -> Report:
    """A report that pytest or Node has written. An empty one where there is none, or where the run ended while it was written.

    Files are named relative to `folder`: Node's are absolute.
    """
    try:
        elements = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return Report()
    return Report(_cases(elements, folder, "failure", "error"), _cases(elements, folder, "skipped"))


def reason(report: Report, output: str, *, skips_forbidden: bool = False) -> str:
    """Why a part failed: its first failing test, else its first skipped test where these are forbidden, else a line of its output."""
    if report.failed:
        first = report.failed[0]
        error = _first_error(output) if first.complaint in _EMPTY else ""
        return _line(Case(first.name, error or first.complaint), len(report.failed), "failed")
    if report.skipped and skips_forbidden:
        return _line(report.skipped[0], len(report.skipped), "skipped")
    return missing_library(output) or textwrap.shorten(_of_output(output), MOST, placeholder=" ...")


#: Node's messages for a file that does not load, and for tests whose set-up failed: neither has the cause.
_EMPTY = {"test failed", "test did not finish before its parent and was cancelled"}


def _cases(elements: list[ElementTree.Element], folder: Path, *kinds: str) -> tuple[Case, ...]:
    """The tests that have a child of one of these kinds."""
    return tuple(
        Case(_name(element, folder), _complaint(child))
        for element in elements
        for child in element
        if child.tag in kinds
    )


def _name(element: ElementTree.Element, folder: Path) -> str:
    file = (element.get("file") or element.get("classname") or "").removeprefix(f"{folder}/")
    return f"{file}::{element.get('name')}" if file else str(element.get("name"))


def _complaint(element: ElementTree.Element) -> str:
    """A test's own words, without pytest's around them."""
    lines = (element.text or "").strip().splitlines() or ["no reason"]
    message = (element.get("message") or lines[0]).strip()
    if message == "collection failure":  # the error is the last line
        return lines[-1].removeprefix("E").strip()
    unwrapped = re.sub(r'\Afailed on (?:setup|teardown) with "(.*)"\Z', r"\1", message, flags=re.DOTALL)
    unwrapped = unwrapped.removeprefix("Failed: ")
    return missing_library(unwrapped) or unwrapped


def _line(case: Case, number: int, what: str) -> str:
    count = f" ({number} {what})" if number > 1 else ""
    return f"{case.name}: {textwrap.shorten(case.complaint, MOST, placeholder=' ...')}{count}"


def _first_error(output: str) -> str:
    return next((line.strip() for line in output.splitlines() if re.match(r"\s*(?:\[?\w*Error\b.*:|Error )", line)), "")


def _of_output(output: str) -> str:
    """The line that tells most.

    That is the first one of ruff, mypy and tsc. Of pytest it is an ERROR, else the last line between equals signs, else what make says.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    make = [line for line in lines if re.match(r"make(\[\d+\])?: ", line)]
    telling = [line for line in lines if line not in make]
    if any("test session starts" in line for line in telling):
        ends = [line.strip("= ") for line in telling if re.fullmatch(r"=+ .* =+", line) and " starts " not in line]
        telling = [line for line in telling if line.startswith("ERROR")] or ends[-1:]
    return (telling or make or lines[-1:] or ["no output"])[0]
