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
    """Of a part that failed: its first failing test, else the first skipped one where that is a failure, else the output's words."""
    if report.skipped and skips_forbidden and not report.failed:
        return _line(report.skipped[0], len(report.skipped), "skipped")
    if not report.failed:
        return missing_library(output) or textwrap.shorten(_of_output(output), MOST, placeholder=" ...")
    if report.failed[0].complaint in _EMPTY and (error := _first_error(output)):
        return _line(Case(report.failed[0].name, error), len(report.failed), "failed")
    return _line(report.failed[0], len(report.failed), "failed")


#: Node's messages for a file that does not load, and for tests whose set-up failed: neither has the cause.
_EMPTY = {"test failed", "test did not finish before its parent and was cancelled"}


def _cases(elements: list[ElementTree.Element], folder: Path, *kinds: str) -> tuple[Case, ...]:
    found = (
        (element, next((element.find(kind) for kind in kinds if element.find(kind) is not None), None))
        for element in elements
    )
    return tuple(Case(_name(element, folder), _complaint(why)) for element, why in found if why is not None)


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
