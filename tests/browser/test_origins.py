"""A page of another origin, in a real browser, which asks the hub first what the page may send."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

from tests.running import TOPIC, event, running_hub

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

#: Posts an event, with headers that the page's libraries add, and reads the context; a refused preflight raises.
_SCRIPT = """async ([hub, topic, token, event]) => {
    const added = { "X-Medplum": "1", traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" };
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json", ...added };
    const posted = await fetch(hub, { method: "POST", headers, body: JSON.stringify(event) });
    const read = await fetch(`${hub}/${topic}`, { headers });
    return [posted.status, (await read.json())["context.type"]];
}"""


@pytest.mark.req("CFG-6", "CFG-7")
async def test_a_page_may_send_what_its_libraries_add(browser: Browser) -> None:
    """`localhost` and `127.0.0.1` are two origins to a browser: it asks before each request, and is let through."""
    async with running_hub() as hub, await browser.new_page() as page:
        await page.goto(f"http://localhost:{hub.port}/health/live")
        found = await page.evaluate(_SCRIPT, [hub.url, TOPIC, hub.token(), event("Patient-open")])
        assert found == [202, "Patient"]
