"""The code blocks of the site's pages, and what a page says about each.

A block may have a title, which the reader sees, and a remark, which the reader does not see:

    ```sh title="Terminal 2"             the shell in which the reader types the commands
    ```python title="follow.py"          the name under which the reader saves the file
    ```ini title="/etc/x.conf"           a file of a server, which no test writes
    ```text title="Terminal 2 shows"     what the reader then sees there
    ```text title="Type in terminal 2"   what the reader types into the program that runs there
    <!-- not run: needs Docker -->       a comment directly before the block: the reason why no test runs the block
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tools.site import ROOT

_FENCE = re.compile(r'^( *)```(\S*)(?: title="([^"]*)")?(.*)$')
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
_FILE = re.compile(r"[\w./-]+\.\w+")


@dataclass(frozen=True)
class Block:
    """A fenced code block. `line` is that of its fence, and `not_run` the reason, or ""."""

    page: str
    line: int
    language: str
    title: str
    text: str
    not_run: str = ""

    @property
    def where(self) -> str:
        """For messages: `docs/tls.md:17`."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The name under which the reader saves the block in the folder of the page, or ""."""
        return self.title if _FILE.fullmatch(self.title) and not self.is_of_a_server else ""

    @property
    def is_of_a_server(self) -> bool:
        """Whether the title is a path such as /etc/hub.conf. No test writes there: the block is only checked."""
        return self.title.startswith("/")


def blocks(page: str, text: str) -> list[Block]:
    """The blocks of a page, in their order. Raises ValueError for a fence without an end."""
    found: list[Block] = []
    opened: tuple[int, re.Match[str]] | None = None
    body: list[str] = []
    remark = ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened, body = (number, fence), []
        elif opened and fence and not fence[2]:
            start, match = opened
            content = "".join(f"{each[len(match[1]) :]}\n" for each in body)
            found.append(Block(page, start, match[2], match[3] or "", content, remark))
            opened, remark = None, ""
        elif opened:
            body.append(line)
        elif line.strip():
            said = _NOT_RUN.fullmatch(line.strip())
            remark = said[1] if said else ""
    if opened:
        raise ValueError(f"{page}:{opened[0]}: the code block has no end")
    return found


def of_page(page: str) -> list[Block]:
    """The blocks of a page of the repository."""
    return blocks(page, (ROOT / page).read_text(encoding="utf-8"))


def titled(page: str, title: str) -> Block:
    """The only block of a page with this title."""
    (found,) = [block for block in of_page(page) if block.title == title]
    return found
