"""README.md: its commands by hand, and its program that follows, beside a dev hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import Block, of_page
from tests.docs.reader import Reader
from tests.process.hub_process import HubProcess, hub_process


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with hub_process(tmp_path, "dev", public_url=None) as hub:
        yield hub


@pytest.fixture
def reader(tmp_path: Path, hub: HubProcess) -> Iterator[Reader]:
    with Reader(tmp_path / "reader", hub) as reader:
        yield reader


def found(language: str) -> Block:
    """The page's only block in this language. The reader has the programs of `.venv/bin` on the PATH."""
    (block,) = [block for block in of_page("README.md") if block.language == language]
    return block_of(block.text.replace(".venv/bin/", ""), language, block.line)


def block_of(text: str, language: str = "sh", line: int = 0, title: str = "") -> Block:
    return Block("README.md", line, language, title, text)


def test_the_commands_by_hand_and_the_program_that_follows(reader: Reader) -> None:
    """The command that follows runs in a terminal of its own, as its comment says."""
    commands, program = found("sh"), found("python")
    before, follow, after = commands.text.partition("websockets ENDPOINT\n")
    assert follow
    reader.type(block_of(before))
    reader.save(block_of(program.text, "python", program.line, "chart.py"))
    reader.type(block_of(f"{before.splitlines()[0]}\npython chart.py # Ctrl-C\n", title="Terminal 2"))
    reader.type(block_of(f"{follow.strip()} # Ctrl-C\n", title="Terminal 3"))
    reader.expect(block_of('"hub.mode":"subscribe"', "text", title="Terminal 3 shows"))
    reader.type(block_of(after))
    reader.expect(block_of('HTTP/1.1 202 Accepted\n…"context.type":"Patient"…\n', "text"))
    reader.expect(block_of("now showing p1\n", "text", title="Terminal 2 shows"))
    reader.expect(block_of('"hub.event":"Patient-open"\n', "text", title="Terminal 3 shows"))
