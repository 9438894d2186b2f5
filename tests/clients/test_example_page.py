"""clients/javascript/example/index.html: a page of a few lines, without a build, follows a session in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.async_api import Page, WebSocketRoute, expect

from tests.browsing import launch_browser, playing
from tests.clients.fakes import patient
from tests.clients.places import DevHub, RealPlace
from tests.static_server import served

LIBRARY = Path(__file__).parents[2] / "clients" / "javascript"
#: Closes a WebSocket as a hub that fails would.
_BROKEN = 1011


@pytest.fixture(scope="module")
def library() -> Iterator[str]:
    """The address at which the library's files are, as they are in the repository."""
    with served(LIBRARY) as address:
        yield address


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A page of a browser of its own, which has not complained at the end."""
    problems: list[str] = []
    async with playing() as playwright:
        browser = await launch_browser(playwright)
        page = await browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        yield page
        await browser.close()
    assert problems == []


async def shows(page: Page, id_: str, text: str) -> None:
    """Wait until an element has this text."""
    await expect(page.locator(f"#{id_}")).to_have_text(text)


class Network:
    """What the page's WebSockets go through; `whole` is False while they break."""

    def __init__(self) -> None:
        self.whole = True
        self._open: list[WebSocketRoute] = []

    async def take(self, socket: WebSocketRoute) -> None:
        """A new socket of the page."""
        if self.whole:
            socket.connect_to_server()
            self._open.append(socket)
        else:
            await socket.close(code=_BROKEN)

    async def cut(self) -> None:
        """Break every socket, and those to come."""
        self.whole = False
        for socket in self._open:
            await socket.close(code=_BROKEN)


@pytest.mark.req("CLT-1", "CLT-5", "CLT-9", "CLT-13")
async def test_the_page_follows_says_when_it_cannot_and_catches_up(hub: DevHub, library: str, page: Page) -> None:
    network = Network()
    await page.route_web_socket("**", network.take)
    async with RealPlace(hub) as place:
        ehr = await place.client("ehr")
        await ehr.open(patient("p1"))
        where = {"hub": f"http://127.0.0.1:{hub.process.port}/api/hub", "topic": place.topic, "token": hub.token}
        await page.goto(f"{library}/example/index.html#{urlencode(where)}")
        await shows(page, "status", "In sync")
        await shows(page, "patient", "Patient/p1")
        await ehr.open(patient("p2"))
        await shows(page, "patient", "Patient/p2")
        await ehr.close(patient("p2"))
        await shows(page, "patient", "Nobody")
        await network.cut()
        await expect(page.locator("#status")).to_contain_text("Not in sync: ")
        await ehr.open(patient("p3"))
        await shows(page, "patient", "Nobody")
        network.whole = True
        await shows(page, "status", "In sync")
        await shows(page, "patient", "Patient/p3")
        await ehr.stop()


async def test_the_page_says_what_the_hub_says(hub: DevHub, library: str, page: Page) -> None:
    where = {"hub": f"http://127.0.0.1:{hub.process.port}/api/hub", "topic": "t", "token": "a-bad-token"}
    await page.goto(f"{library}/example/index.html#{urlencode(where)}")
    await expect(page.locator("#status")).to_contain_text("The hub answered 401")
    assert "a-bad-token" not in await page.locator("body").inner_text()
