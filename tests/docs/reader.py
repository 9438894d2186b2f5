"""A reader who follows a page: saves its files, types its commands into terminals, and compares what each shows.

The reader works in an empty folder, beside a real `fhircast-hub dev`. Only these placeholders are replaced:

- `localhost:8080`, by the address of the test's hub; `localhost:8000` by a free port
- `ENDPOINT`, by the WebSocket endpoint that a terminal showed last
- `token=TOKEN` in the address of a page, by a token of the hub

The browser opens the block "The address", and must come to show the lines of a block "The browser shows".

A command that ends with a comment about Ctrl-C runs until the page ends. All other commands must end with exit code 0.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from playwright.sync_api import sync_playwright

from tests.docs.blocks import Block
from tests.ports import free_port
from tests.process.hub_process import HubProcess, command, environment
from tools.packages import CHROMIUM

ROOT = Path(__file__).resolve().parents[2]
#: Seconds until a command has ended, or has shown what the page says, on a machine that does much else.
PATIENCE = 60
_CODE = [ROOT / "hub", ROOT / "clients" / "python", ROOT / "clients" / "identity" / "python"]
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[78DEHM]|\r")
_ENDPOINT = re.compile(r"wss?://[^\s\"']+/ws/[\w-]+")
_DEV = re.compile(r"fhircast-hub dev\s*(?:#.*)?")
_WAY_HOME = "set -eu -o pipefail\n"


class Terminal:
    """A shell that keeps its variables from one block to the next."""

    def __init__(self, name: str, folder: Path, environ: dict[str, str]) -> None:
        self.name = name
        self._output = folder / f".{name}.output"
        self._seen = 0
        self._told = 0  # lines of what is shown that a page has told already
        self._count = 0
        with self._output.open("wb") as output:
            self._shell = subprocess.Popen(
                ["bash", "--norc"],
                cwd=folder,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._type(_WAY_HOME)

    def shown(self) -> str:
        """What the terminal has shown since the last block was typed."""
        text = self._output.read_bytes()[self._seen :].decode(errors="replace")
        return re.sub(r"@@done \d+\n", "", _ESCAPE.sub("", text))

    def run(self, block: Block) -> None:
        """Type the block, and wait for its end, unless the block says that Ctrl-C ends it."""
        self._look_from_here()
        if "Ctrl-C" in block.text:
            self._type(block.text)
            return
        self._count += 1
        self._type(f"{block.text}\necho @@done {self._count}\n")
        done = f"@@done {self._count}\n".encode()
        if not self._within(lambda: done in self._output.read_bytes()):
            raise AssertionError(f"{block.where}: these commands failed, or did not end: {self.shown()}")

    def answer(self, text: str) -> None:
        """Type into the program that runs."""
        self._look_from_here()
        self._type(text)

    def expect(self, block: Block) -> None:
        """Wait until the lines of the block have come, in their order, behind those of the blocks before.

        `…` stands for any text within a line.
        """
        missing: list[str] = []

        def lines() -> list[str]:
            return self.shown().splitlines()[self._told :]

        def came() -> bool:
            missing[:], passed = _missing(block.text, lines())
            if not missing:
                self._told += passed
            return not missing

        if not self._within(came, ended=False):
            raise AssertionError(f"{block.where}: {self.name} did not show {missing[0]!r}, but: {lines()}")

    def close(self) -> None:
        """End all programs of the terminal."""
        try:
            os.killpg(self._shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._shell.communicate()

    def _look_from_here(self) -> None:
        self._seen, self._told = self._output.stat().st_size, 0

    def _type(self, text: str) -> None:
        assert self._shell.stdin
        try:
            self._shell.stdin.write(text.encode())
            self._shell.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"{self.name} ended: {self.shown()}") from None

    def _within(self, condition: object, *, ended: bool = True) -> bool:
        assert callable(condition)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if condition():
                return True
            if ended and self._shell.poll() is not None:
                return bool(condition())
            time.sleep(0.02)
        return False


class Browser:
    """A browser that shows one page."""

    def __init__(self, address: str) -> None:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        self._page = self._browser.new_page()
        self._page.goto(address)

    def expect(self, block: Block) -> None:
        """Wait until the page shows the lines of the block."""
        deadline = time.monotonic() + PATIENCE
        while missing := _missing(block.text, self._page.inner_text("body").splitlines())[0]:
            shown = self._page.inner_text("body")
            assert time.monotonic() < deadline, f"{block.where}: the page did not show {missing[0]!r}, but: {shown}"
            self._page.wait_for_timeout(50)

    def close(self) -> None:
        """Close the browser."""
        self._browser.close()
        self._playwright.stop()


def _missing(wanted: str, shown: list[str]) -> tuple[list[str], int]:
    """The lines of `wanted` from the first on that `shown` does not have, in this order, and how many lines were passed."""
    passed = 0
    left = [line.strip() for line in wanted.splitlines() if line.strip()]
    for line in shown:
        if not left:
            break
        passed += 1
        if re.search(".*".join(map(re.escape, left[0].split("…"))), line):
            left.pop(0)
    return left, passed


class Reader:
    """Follows one page. Use it with `with`: the programs end with the block."""

    def __init__(self, folder: Path, hub: HubProcess) -> None:
        self._folder, self._hub = folder, hub
        self._web = free_port()
        self._terminals: dict[str, Terminal] = {}
        self._hub_shows = False
        self._last = ""
        self._browser: Browser | None = None

    def __enter__(self) -> Self:
        _link_packages(self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        for terminal in self._terminals.values():
            terminal.close()
        if self._browser:
            self._browser.close()

    def replaced(self, text: str) -> str:
        """The text with its placeholders replaced."""
        text = text.replace("localhost:8080", f"localhost:{self._hub.port}").replace("8000", str(self._web))
        if re.search(r"\bENDPOINT\b", text):  # and not within a name such as OTEL_EXPORTER_OTLP_ENDPOINT
            text = re.sub(r"\bENDPOINT\b", self._endpoint(), text)
        return text

    def _endpoint(self) -> str:
        """The last endpoint that a terminal shows. The command that shows one may still run."""
        deadline = time.monotonic() + PATIENCE
        while not (found := [url for each in self._terminals.values() for url in _ENDPOINT.findall(each.shown())]):
            assert time.monotonic() < deadline, "no terminal showed an endpoint"
            time.sleep(0.02)
        return str(found[-1])

    def save(self, block: Block) -> None:
        """Save a file of the page. Raises AssertionError for a file outside of the reader's folder."""
        path = (self._folder / block.file).resolve()
        assert block.file, f"{block.where}: no file of the reader"
        assert path.is_relative_to(self._folder.resolve()), f"{block.where}: {path} is outside of the reader's folder"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.replaced(block.text), encoding="utf-8")

    def type(self, block: Block) -> None:
        """Type commands. The test has started the hub: `fhircast-hub dev` shows what that hub printed."""
        self._last = block.title or "Terminal 1"
        self._hub_shows = bool(_DEV.fullmatch(block.text.strip()))
        if not self._hub_shows:
            self._terminal(self._last).run(self._with_replaced(block))

    def expect(self, block: Block) -> None:
        """Compare what a terminal shows: the one of the title, or the last one."""
        name = block.title.removesuffix(" shows") or self._last
        if block.title.startswith("Type in "):
            self._terminal(block.title.removeprefix("Type in ").capitalize()).answer(self.replaced(block.text))
        elif block.title == "The address":
            token = command(self._folder, "token", environ=self._hub.environ).stdout.strip()
            self._browser = Browser(self.replaced(block.text).strip().replace("token=TOKEN", f"token={token}"))
        elif name == "The browser":
            assert self._browser, f"{block.where}: no page is open"
            self._browser.expect(block)
        elif self._hub_shows and name == self._last:
            missing, _ = _missing(self.replaced(block.text), self._hub.stdout.splitlines())
            assert not missing, f"{block.where}: the hub did not show {missing[0]!r}, but: {self._hub.stdout}"
        else:
            self._terminal(name).expect(self._with_replaced(block))

    def _with_replaced(self, block: Block) -> Block:
        return Block(block.page, block.line, block.language, block.title, self.replaced(block.text))

    def _terminal(self, name: str) -> Terminal:
        if name not in self._terminals:
            own = {"HOME": str(self._folder)}  # what a page writes to its home stays in the folder
            self._terminals[name] = Terminal(name, self._folder, environ(self._hub) | own)
        return self._terminals[name]


def environ(hub: HubProcess) -> dict[str, str]:
    """The environment of a reader who has installed all packages, and sees each line when a program prints the line."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    code = os.pathsep.join(map(str, _CODE))
    own = {"PATH": path, "PYTHONPATH": code, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    return environment(Path(hub.environ["XDG_RUNTIME_DIR"])) | own


def _link_packages(folder: Path) -> None:
    """The JavaScript packages, as `npm install` would bring them."""
    for name, place in {"fhircast-client": "javascript", "fhircast-identity": "identity/javascript"}.items():
        package = folder / "node_modules" / name
        shutil.copytree(ROOT / "clients" / place / "src", package / "src")
        shutil.copy(ROOT / "clients" / place / "package.json", package)
