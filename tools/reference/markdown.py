"""Markdown of the generated pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def head(title: str, tool: str) -> str:
    """Return the title of a generated page, and a comment that names the module behind the page.

    `tool`: path of that module, from the root of the repository.
    """
    return f"# {title}\n\n<!-- `make reference` makes this page. Change {tool}, and not this file. -->\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with an empty line before and behind."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n" + "".join(f"| {' | '.join(map(cell, line))} |\n" for line in lines) + "\n"


def cell(text: str) -> str:
    """The text in one line. A bar would end the cell."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def code(text: str) -> str:
    """The text as code, or nothing."""
    return f"`{text}`" if text else ""


def codes(texts: Iterable[str]) -> str:
    """Several texts as code."""
    return ", ".join(map(code, texts))
