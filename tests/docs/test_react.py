"""docs/tutorials/viewer.md: its component of React, rendered without a browser, follows a session of a real hub."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.docs.blocks import Block, of_page
from tests.docs.checks import MODULES, TSC
from tests.docs.reader import Reader
from tests.process.hub_process import hub_process

PAGE = "docs/tutorials/viewer.md"
#: Renders the page's App, and prints its text whenever the text changes.
DRIVER = """
import { Window } from "happy-dom";
const window = new Window({ url: "http://localhost/" });
const { document, sessionStorage } = window;
Object.assign(globalThis, { window, document, sessionStorage });
sessionStorage.setItem("token", process.env.FHIRCAST_TOKEN);
const { createElement, StrictMode } = await import("react");
const { createRoot } = await import("react-dom/client");
const { App } = await import("./App.js");
createRoot(document.body).render(createElement(StrictMode, null, createElement(App)));
let shown = "";
setInterval(() => {
  const text = [...document.querySelectorAll("p, h1")].map((each) => each.textContent).join(" | ");
  if (text !== shown) console.log((shown = text));
}, 20);
"""


def block(text: str, title: str, language: str = "sh") -> Block:
    return Block(PAGE, 0, language, title, text)


def compiled(folder: Path) -> None:
    """The page's components as JavaScript. Node wants the extension of a module, and a bundler does not."""
    subprocess.run([*TSC, "App.tsx", "Viewer.tsx", "--ignoreConfig", "--noCheck"], cwd=folder, check=True)
    app = folder / "App.js"
    app.write_text(app.read_text().replace('"./Viewer"', '"./Viewer.js"'), encoding="utf-8")


@pytest.mark.req("CLT-13")
def test_the_component_follows_also_where_effects_run_twice(tmp_path: Path) -> None:
    with hub_process(tmp_path, "dev", public_url=None) as hub, Reader(tmp_path / "reader", hub) as reader:
        files = [each for each in of_page(PAGE) if each.file.endswith((".tsx", ".json"))]
        for file in [*files, block(DRIVER, "driver.mjs"), block(json.dumps({"type": "module"}), "package.json")]:
            reader.save(file)
        for name in (
            "react",
            "react-dom",
            "scheduler",
            "happy-dom",
            "entities",
            "whatwg-mimetype",
            "buffer-image-size",
        ):
            (tmp_path / "reader" / "node_modules" / name).symlink_to(MODULES / name)
        compiled(tmp_path / "reader")
        export = "export FHIRCAST_TOKEN=$(fhircast-hub token)\n"
        reader.type(block(f"{export}node driver.mjs # until Ctrl-C\n", "Page"))
        reader.expect(block("In sync | No images\n", "Page shows", "text"))
        hub_url = "export FHIRCAST_HUB=http://localhost:8080/api/hub FHIRCAST_TOPIC=demo\n"
        reader.type(block(f"{hub_url}{export}fhircast open study.json patient.json\n", "Record"))
        reader.expect(block("In sync | Images of s1\n", "Page shows", "text"))
        reader.type(block("fhircast close study.json patient.json\n", "Record"))
        reader.expect(block("In sync | No images\n", "Page shows", "text"))
