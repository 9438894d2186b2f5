"""Every code block of the site's pages is run, or says why not. Blocks of settings are loaded by the hub's own code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import Block, of_page
from tests.docs.checks import CHECKS, DATA
from tests.docs.reader import Reader
from tests.process.hub_process import hub_process
from tools.site import ROOT, pages

#: Pages whose programs other tests run, by the file of these tests.
RUN_BY = {
    "README.md": "tests/docs/test_readme.py",
    "clients/python/README.md": "tests/clients/test_client_readme.py",
    "clients/javascript/README.md": "clients/javascript/test/readme.test.js",
    "clients/identity/python/README.md": "tests/clients/test_identity_guide.py",
    "clients/identity/javascript/README.md": "clients/identity/javascript/test/guide.test.js",
    "docs/from-ccow/login.md": "tests/docs/test_wire.py",
    "docs/from-ccow/wire.md": "tests/docs/test_wire.py",
    "docs/issuers.md": "",  # settings, and the claims of a token
}
BLOCKS = [block for page in pages() for block in of_page(page)]


def is_to_do(block: Block) -> bool:
    """Whether the reader saves, types or sees the block. Other blocks are checked, and no more."""
    if block.not_run or block.is_of_a_server:
        return False
    return bool(block.file) or block.language not in DATA


FOLLOWED = [page for page in pages() if page not in RUN_BY and any(b.page == page and is_to_do(b) for b in BLOCKS)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_the_block_is_well_formed(block: Block, tmp_path: Path) -> None:
    assert block.language in CHECKS, f"{block.where}: no test knows the language {block.language!r}"
    CHECKS[block.language](block, tmp_path)


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_reader_can_follow_the_page(page: str, tmp_path: Path) -> None:
    todo = [block for block in BLOCKS if block.page == page and is_to_do(block)]
    with hub_process(tmp_path, "dev", public_url=None) as hub, Reader(tmp_path / "reader", hub) as reader:
        for block in todo:
            if block.file:
                reader.save(block)
            elif block.language == "sh":
                reader.type(block)
            elif block.language == "text":
                reader.expect(block)
            else:
                raise AssertionError(f"{block.where}: give the block a title, or say why it is not run")


@pytest.mark.parametrize("page", [page for page, test in RUN_BY.items() if test])
def test_the_tests_of_the_other_pages_are_there(page: str) -> None:
    assert page in pages()
    test = (ROOT / RUN_BY[page]).read_text(encoding="utf-8")
    assert Path(page).name in test
