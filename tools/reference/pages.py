"""The generated pages by path, and whether the files are as the code is."""

from __future__ import annotations

from collections.abc import Callable

from tools.architecture import ROOT
from tools.reference import commands, log_events, metrics, refusals, rooms, routes, versions

#: By path, what writes the page.
PAGES: dict[str, Callable[[], str]] = {
    "docs/pictures/rooms.svg": rooms.picture,
    "docs/reference/cli.md": commands.page,
    "docs/reference/errors.md": refusals.page,
    "docs/reference/log-events.md": log_events.page,
    "docs/reference/metrics.md": metrics.page,
    "docs/reference/openapi.json": routes.as_file,
    "docs/reference/openapi.md": routes.page,
    "docs/reference/versions.md": versions.page,
}


def stale() -> list[str]:
    """The paths of pages that are missing, or not as the code is."""
    return [path for path, page in PAGES.items() if not is_todays(path, page())]


def is_todays(path: str, text: str) -> bool:
    """Whether the file of the repository has exactly this text."""
    file = ROOT / path
    return file.is_file() and file.read_text(encoding="utf-8") == text


def write_all() -> None:
    """Write all pages."""
    for path, page in PAGES.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(page(), encoding="utf-8")
