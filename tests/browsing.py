"""A clinician in front of the demo: windows of a real browser, and what is done and seen in them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.async_api import (
    Browser,
    BrowserContext,
    FrameLocator,
    Locator,
    Page,
    Playwright,
    async_playwright,
    expect,
)

from demo.places import PORTS
from tests.ports import free_ports
from tools.fresh import page_of
from tools.libraries import missing_library
from tools.packages import CHROMIUM

ROOT = Path(__file__).resolve().parents[1]
#: Without what would look for the internet.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
)
#: Milliseconds that a window has to show what is expected, on a machine that does much else.
PATIENCE = 90_000

#: Where pictures go, and the pixels between those of one file.
PICTURES, GAP = Path(os.environ.get("PICTURES") or ROOT / "build" / "pictures"), 16

expect.set_options(timeout=PATIENCE)


class RunningDemo:
    """`python -m demo`: its process, its front door, and where its parts are."""

    def __init__(self, process: subprocess.Popen[str], front: str, apps: dict[str, str]) -> None:
        self.process, self.front, self.apps = process, front, apps

    def hub_pid(self) -> int:
        """The process of the hub that runs now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = (int(child) for child in children if "fhircast_hub" in Path(f"/proc/{child}/cmdline").read_text())
        return pid

    def kill_hub(self) -> None:
        """As a power failure would; the demo starts it again."""
        os.kill(self.hub_pid(), signal.SIGKILL)


@contextmanager
def running_demo(*arguments: str) -> Iterator[RunningDemo]:
    """The demo within the block; after it, it has ended by itself with exit code 0."""
    command = [sys.executable, "-m", "demo", "--first-port", str(free_ports(len(PORTS))[0]), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    started = threading.Event()

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                started.set()
        started.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert started.wait(60), lines
        front = page_of("".join(lines))
        assert front, lines
        apps = httpx.get(f"{front}/config.json", timeout=PATIENCE / 1000, trust_env=False).json()["apps"]
        yield RunningDemo(process, front, apps)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout
        process.stdout.close()


@cache
def what_is_missing() -> str:
    """Why no browser starts on this machine; "" where one does."""
    driver = [sys.executable, "-m", "playwright"]
    for name, program in {"the browser's driver": driver, "the browser": [CHROMIUM]}.items():
        try:
            done = subprocess.run([*program, "--version"], capture_output=True, text=True)
        except OSError as error:
            return f"{name} does not start: {error}"
        if done.returncode:
            return missing_library(done.stderr) or f"{name} does not start: {done.stderr}"
    return ""


@asynccontextmanager
async def playing() -> AsyncIterator[Playwright]:
    """Playwright within the block. Where it does not start here, the test fails in one line, not in its traceback."""
    if missing := what_is_missing():
        pytest.fail(missing, pytrace=False)
    async with async_playwright() as playwright:
        yield playwright


async def launch_browser(playwright: Playwright) -> Browser:
    """A new one, with a profile of its own."""
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)


@asynccontextmanager
async def asleep(browser: Browser) -> AsyncIterator[None]:
    """All processes of a browser are stopped within the block, as those of a laptop whose lid is closed."""
    devtools = await browser.new_browser_cdp_session()
    processes = [process["id"] for process in (await devtools.send("SystemInfo.getProcessInfo"))["processInfo"]]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    await devtools.detach()


class Window:
    """One application's window, or its frame in another's."""

    def __init__(self, page: Page, within: FrameLocator | None = None) -> None:
        self.page = page
        self._within = within or page

    def by(self, test: str, **attributes: str) -> Locator:
        """What carries this data-test, and these data-attributes."""
        more = "".join(f'[data-{name}="{value}"]' for name, value in attributes.items())
        return self._within.locator(f'[data-test="{test}"]{more}')

    async def sees(self, test: str, text: str) -> None:
        """Until the text is there."""
        await expect(self.by(test)).to_contain_text(text)

    async def in_step(self) -> None:
        """Until the page says that it shows what the session shows, and that so do the others."""
        await expect(self.by("sync-status")).to_have_attribute("data-state", "ok")

    async def consent(self) -> None:
        """Where it is asked for; then until the page is in step."""
        allow, step = self.page.locator("button[value=allow]"), self.by("sync-status", state="ok")
        await expect(allow.or_(step)).to_be_visible()
        if await allow.is_visible():
            await allow.click()
        await self.in_step()


class Record(Window):
    """The hospital record's window."""

    async def open_patient(self, patient: str) -> None:
        """Of the list, by id."""
        await self.by("patient", patient=patient).click()

    async def open_part(self, reference: str) -> None:
        """A study, a report or an encounter of the patient, for everybody."""
        part = self.by("part", reference=reference)
        await part.locator('[data-test="open-part"]').click()
        await expect(self.by("part", reference=reference, open="true")).to_be_visible()

    async def close_patient(self) -> None:
        """And all else that is open; until the hub has accepted each close, after which the search has the focus."""
        await self.by("close-patient").click()
        await expect(self.by("search")).to_be_focused()

    async def participant(self, name: str, state: str) -> None:
        """Until the strip says so."""
        await expect(self.by("participant", name=name, state=state)).to_be_visible()

    def chart(self) -> Window:
        """The anaesthesia chart in its frame."""
        return Window(self.page, self.page.frame_locator('[data-test="chart-frame"]'))


class Clinician:
    """A browser profile in which one clinician is logged in. `problems` is what the consoles of all windows complained of;
    where `may_complain`, that is expected."""

    may_complain = False

    def __init__(self, context: BrowserContext, demo: RunningDemo) -> None:
        self.context, self.demo = context, demo
        self.problems: list[str] = []
        context.on("console", lambda message: self._note(message.type, message.text))
        context.on("weberror", lambda error: self.problems.append(str(error.error)))

    def _note(self, kind: str, text: str) -> None:
        # A browser itself reports each request that fails, and the client each connection that it makes anew.
        expected = ("Failed to load resource", "WebSocket connection", "Trying again.")
        if kind in ("error", "warning") and not any(words in text for words in expected):
            self.problems.append(text)

    async def log_in(self, name: str = "Ingrid Nygård") -> Record:
        """To the record, the demo's front door."""
        page = await self.context.new_page()
        await page.goto(self.demo.apps["ehr"])
        await page.get_by_role("button", name=name).click()
        window = Record(page)
        await window.sees("user", name)
        return window

    async def launch(self, ehr: Record, name: str) -> Window:
        """From the record, into a window of its own, with the user's consent, which is asked for once."""
        async with self.context.expect_page() as opening:
            await ehr.by(f"launch-{name}").click()
        window = Window(await opening.value)
        await window.consent()
        return window


async def take_picture(name: str, *windows: Window) -> None:
    """Of one window, or of four, two by two; to the folder PICTURES, for the README (`make pictures`)."""
    save_picture(name, [await window.page.screenshot() for window in windows])


def save_picture(name: str, shots: Sequence[bytes]) -> None:
    """One picture, or four in one."""
    images = [Image.open(io.BytesIO(shot)) for shot in shots]
    width, height = images[0].size
    whole = Image.new("RGB", (width, height) if len(images) == 1 else (2 * width + GAP, 2 * height + GAP), "white")
    for index, image in enumerate(images):
        whole.paste(image, (index % 2 * (width + GAP), index // 2 * (height + GAP)))
    PICTURES.mkdir(parents=True, exist_ok=True)
    whole.save(PICTURES / f"{name}.jpg", quality=80, optimize=True)


@asynccontextmanager
async def clinician(browser: Browser, demo: RunningDemo, **options: Any) -> AsyncIterator[Clinician]:
    """In a profile of their own; afterwards no window has complained."""
    settings = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", "reduced_motion": "reduce"} | options
    context = await browser.new_context(**settings)
    context.set_default_timeout(PATIENCE)
    found = Clinician(context, demo)
    try:
        yield found
    finally:
        await context.close()
    assert found.may_complain or not found.problems, found.problems
