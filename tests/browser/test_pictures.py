"""The pictures of the README: the story's windows at a moment when there is something to see in each (`make pictures`)."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, expect

from browser.test_story import AASE, HEAD, HEAD_UID, IRIS, REPORT, measure
from browsing import ROOT, RunningDemo, Window, clinician

#: Where they are written to.
PICTURES = Path(os.environ.get("PICTURES") or ROOT / "build" / "pictures")


async def test_the_four_windows(browser: Browser, demo: RunningDemo) -> None:
    """The record with the chart in it, both viewers, and the report that has what was measured in one of them."""
    async with clinician(browser, demo, locale="en-GB") as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        pacs, second = await ingrid.launch(ehr, "pacs"), await ingrid.launch(ehr, "second-opinion")
        reporting = await ingrid.launch(ehr, "reporting")
        await ehr.open_part(HEAD)
        await ehr.open_part(REPORT)
        windows = [ehr, pacs, second, reporting]
        for viewer in (pacs, second):
            await expect(viewer.by("image")).to_have_attribute("data-ready", HEAD_UID)
        await measure(pacs)
        await expect(second.by("measurement")).to_have_count(1)
        await reporting.by("measurement-select").first.click()
        await reporting.by("findings").fill("No bleeding.")
        await ehr.chart().sees("local-number", "ANE-20407")
        for window in windows:
            await window.in_step()
        write(grid([await shot(window) for window in windows]), "windows")
        await second.by("wire-toggle").click()
        write(await shot(second), "messages")
        await ehr.chart().by("notes").fill("Slow wake-up")
        await ehr.open_patient(IRIS)
        await ehr.sees("refusals", "unsaved notes")
        write(await shot(ehr), "refusal")
        await ehr.chart().by("moved-discard").click()
        await ehr.in_step()


async def shot(window: Window) -> Image.Image:
    return Image.open(io.BytesIO(await window.page.screenshot()))


def grid(images: list[Image.Image], gap: int = 16) -> Image.Image:
    """Four windows, two by two."""
    width, height = images[0].size
    whole = Image.new("RGB", (2 * width + gap, 2 * height + gap), "white")
    for index, image in enumerate(images):
        whole.paste(image, (index % 2 * (width + gap), index // 2 * (height + gap)))
    return whole


def write(image: Image.Image, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    image.convert("RGB").save(PICTURES / f"{name}.jpg", quality=82, optimize=True)
