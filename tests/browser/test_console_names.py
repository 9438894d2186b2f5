"""What an operator's page makes of hostile names, and how its users lead to their sessions."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.browser.console_page import console_page
from tests.console.console_world import operated
from tests.running import TOPIC

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
BACKWARDS = "\N{RIGHT-TO-LEFT OVERRIDE}"
LONG = "W" * 1024
#: Marks above a letter, many of them.
TOWER = "a" + "\N{COMBINING DIAERESIS}" * 255


@pytest.mark.req("CSL-20", "CSL-14")
@pytest.mark.parametrize("width", [1280, 390])
async def test_hostile_names_are_text_and_break_nothing(browser: Browser, width: int) -> None:
    """Markup is text, a text that turns the direction of others does not, and the longest makes no row of a screen's height."""
    viewport = {"width": width, "height": 800}
    async with operated() as console, console_page(browser, console, viewport=viewport) as page:
        for topic in (MARKUP, f"{BACKWARDS}evil", LONG, TOWER, TOPIC):
            await console.hub.form(hub__topic=topic, subscriber__name=topic[:256], hub__events="Patient-open")
        await page.paste(console.operator)
        await expect(page.row(MARKUP)).to_be_visible()
        await page.row(MARKUP).click()
        await expect(page.by("session-facts")).to_contain_text(MARKUP)
        await expect(page.by("participants")).to_contain_text("<img")
        await page.row(f"{BACKWARDS}evil").click()
        await expect(page.by("session-facts")).to_contain_text("evil")
        shown = await page.page.evaluate("document.body.textContent")
        assert BACKWARDS not in shown
        assert await page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        heights = await page.page.evaluate(
            "[...document.querySelectorAll('#list tbody tr')].map((row) => row.clientHeight)"
        )
        assert (len(heights), max(heights) < 250) == (5, True), heights
        assert await page.page.title() == "FHIRcast hub: console"
        await page.row(LONG).click()
        await expect(page.by("session-facts")).to_contain_text(LONG)
        await page.by("end").click()  # the topic that ends is the one that came, whatever is shown
        await page.by("reason").fill("too long")
        await page.by("ending-sure").click()
        await expect(page.by("ending")).to_be_hidden()
        await expect(page.row(LONG)).to_have_count(0)


@pytest.mark.req("CSL-20")
async def test_a_session_whose_topic_is_not_shown_as_it_is_can_be_ended(browser: Browser) -> None:
    async with operated() as console, console_page(browser, console) as page:
        await console.open(topic=f"{BACKWARDS}evil")
        await page.paste(console.operator)
        await page.row(f"{BACKWARDS}evil").click()
        await page.by("end").click()
        await page.by("reason").fill("misleading")
        await page.by("ending-sure").click()
        await expect(page.row(f"{BACKWARDS}evil")).to_have_count(0)


@pytest.mark.req("CSL-18")
async def test_a_large_user_leads_to_the_users_sessions(browser: Browser) -> None:
    """By keyboard too. A user of another realm is text."""
    async with operated() as console, console_page(browser, console) as page:
        await console.open()
        await console.hub.subscribe("Patient-open", console.hub.token("user-2"), **{"hub.topic": "theirs"})
        console.hub.hub.accounts.of_user("another realm", "user:user-1").queued = 60 << 20
        await page.paste(console.reader)
        user = page.by("largest").get_by_role("button", name=f"{console.user_hash('user-1')}: show the sessions")
        await expect(page.by("largest")).to_contain_text(console.hub.idp.issuer)
        await expect(page.by("busy")).to_contain_text("another realm")
        await expect(page.by("busy").get_by_role("button")).to_have_count(0)
        await user.focus()
        await page.page.keyboard.press("Enter")
        await expect(page.by("count")).to_have_text("1 session")
        await expect(page.row()).to_be_visible()
        await expect(page.by("search")).to_have_value(console.user_hash("user-1"))
        await expect(page.by("sessions")).to_be_focused()
