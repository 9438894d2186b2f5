"""An operator in front of the console: a window of a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Locator, Page, expect

from tests.browsing import PATIENCE
from tests.console.console_world import Operated
from tests.running import TOPIC


class ConsolePage:
    """The page. `problems` is what its own console complained of: an element that the policy forbids, a fault of a script."""

    def __init__(self, page: Page, console: Operated) -> None:
        self.page, self.console = page, console
        self.problems: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _note(self, kind: str, text: str) -> None:
        # A browser itself reports each request that fails.
        if kind in ("error", "warning") and "Failed to load resource" not in text:
            self.problems.append(text)

    def by(self, id_: str) -> Locator:
        """The element with this id."""
        return self.page.locator(f"#{id_}")

    def fact(self, key: str) -> Locator:
        """The value of a fact."""
        return self.page.locator(f'[data-fact="{key}"] .value')

    def row(self, topic: str = TOPIC) -> Locator:
        """The button of a session in the list."""
        return self.page.locator(f'#list tr[data-key="{self.console.hash(topic)}"] button')

    async def open(self, path: str = "", host: str = "127.0.0.1") -> None:
        """Load the page."""
        await self.page.goto(f"http://{host}:{self.console.hub.port}/console{path}")

    async def paste(self, token: str) -> None:
        """Load the page, and log in with a token."""
        await self.open()
        await self.by("token").fill(token)
        await self.by("token").press("Enter")
        await expect(self.by("shown")).to_be_visible()

    async def tab_to(self, id_: str, *, back: bool = False) -> None:
        """Press Tab until the element with this id has the focus."""
        for _ in range(60):
            await self.page.keyboard.press("Shift+Tab" if back else "Tab")
            if await self.page.evaluate("document.activeElement.id") == id_:
                return
        raise AssertionError(f"no key leads to {id_}")


@asynccontextmanager
async def console_page(browser: Browser, console: Operated, **options: Any) -> AsyncIterator[ConsolePage]:
    """A window of its own. Afterwards nothing was complained of."""
    settings = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", "reduced_motion": "reduce"} | options
    context = await browser.new_context(**settings)
    context.set_default_timeout(PATIENCE)
    found = ConsolePage(await context.new_page(), console)
    try:
        yield found
    finally:
        await context.close()
    assert not found.problems, found.problems
