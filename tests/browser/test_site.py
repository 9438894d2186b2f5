"""The documentation site in a browser: the search finds, and no request leaves the site's own host."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.static_server import served
from tools.site import ROOT, build, pages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, in a folder of its own: other tests may build the site of the repository meanwhile."""
    root = tmp_path_factory.mktemp("repository")
    for path in ROOT.iterdir():
        if path.name not in {"build", "mkdocs.yml"} and not path.name.startswith("."):
            (root / path.name).symlink_to(path)
    shutil.copy(ROOT / "mkdocs.yml", root)
    assert build(root) == []
    return root / "build" / "site"


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """The address of the site."""
    with served(folder) as address:
        yield address


@pytest.mark.asyncio(loop_scope="session")
async def test_the_search_finds_a_setting(browser: Browser, site: str) -> None:
    page = await browser.new_page()
    await page.goto(f"{site}/index.html", wait_until="networkidle")
    await page.keyboard.press("/")
    await expect(page.get_by_role("combobox").first).to_be_focused()
    await page.keyboard.type("FHIRCAST_PING_SECONDS")
    await page.get_by_role("option", name="All settings").first.click()
    await page.wait_for_url("**/docs/settings.html*")
    await page.close()


def address(page: str) -> str:
    """Of a Markdown page, in the site."""
    folder, _, name = page.rpartition("/")
    return f"{folder}/{'index' if name == 'README.md' else name.removesuffix('.md')}.html".lstrip("/")


@pytest.mark.asyncio(loop_scope="session")
async def test_no_script_of_a_page_asks_another_host(browser: Browser, site: str, folder: Path) -> None:
    """A page of each folder, and each page with a diagram or a gallery: for these alone the scripts load more.

    The addresses in the pages themselves were checked when the site was built.
    """
    asked: list[str] = []
    page = await browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    some = {path.rpartition("/")[0]: address(path) for path in pages()}.values()
    more = [
        each for each in map(address, pages()) if re.search("mermaid|glightbox", (folder / each).read_text("utf-8"))
    ]
    for each in dict.fromkeys((*some, *more)):
        answer = await page.goto(f"{site}/{each}", wait_until="networkidle")
        assert answer
        assert answer.status == 200, each
    await page.close()
    assert asked
    assert [url for url in asked if not url.startswith((site, "data:", "blob:"))] == []
