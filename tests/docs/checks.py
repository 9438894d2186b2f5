"""Checks of blocks that no test runs: the syntax, our own command lines, and settings, which the hub's own code loads."""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import subprocess
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
import yaml

from fhircast_client.cli import _parser
from fhircast_hub.cli import app
from fhircast_hub.settings.reading import load
from tests.docs.blocks import Block, of_page
from tests.node import NODE
from tools.sequence import drawn
from tools.site import ROOT

#: A JSON block may leave parts out: this member or item stands for the others.
_LEFT_OUT = re.compile(r",?\s*…\s*(?=[}\]])")

#: Our programs and their arguments, where a shell takes a word for a command, and behind `-- ` of another program.
_OURS = re.compile(r"(?:^|[|;&(]|-- (?:env )?)\s*(?:\w+=\S*\s+)*(?:[\w./-]*/)?(fhircast-hub|fhircast) ([^|>&;)#]*)")

#: A command that may end before the one it reads from: that one is told of a broken pipe, or not, by chance.
_ENDS_EARLY = re.compile(r"\|\s*(?:head|grep\s+(?:-\w*[qm]|--quiet|--max-count)|sed\s+\d*q)\b")

MODULES = ROOT / "clients" / "node_modules"
#: Reads TypeScript for React as a bundler would.
TSC = (
    *(str(NODE), str(MODULES / "typescript" / "bin" / "tsc"), "--module", "esnext", "--moduleResolution", "bundler"),
    *("--target", "es2022", "--jsx", "react-jsx"),
)


def check_shell(block: Block, folder: Path) -> None:
    """bash reads the commands, and those of the hub and of the client exist, with their options.

    No command stops reading another one's output: the reader of the page would see an error now and then.
    """
    done = subprocess.run(
        ["bash", "-n"], input=block.text.replace("<clone>", "/clone"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block.where}: {done.stderr}"
    early = [match[0] for match in _ENDS_EARLY.finditer(block.text)]
    assert not early, f"{block.where}: {early} may end before its input does"
    for line in block.text.replace("\\\n", " ").splitlines():
        for command in _OURS.findall(line.partition(" # ")[0]):
            _check_command(block, *command)


def _check_command(block: Block, program: str, rest: str) -> None:
    words = shlex.split(rest)
    if program == "fhircast":
        assert _parser().parse_args(words).command == words[0], block.where
        return
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"{block.where}: fhircast-hub has no command {name}"
        command = command.commands[name]
    options = {option for each in command.params for option in each.opts} | {"--help"}
    for word in words:
        assert not word.startswith("-") or word.partition("=")[0] in options, f"{block.where}: {program} has no {word}"


def check_python(block: Block, folder: Path) -> None:
    """The code compiles, and the modules that the code imports are there."""
    code = compile(block.text, block.where, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, ast.Module)
    for node in ast.walk(code):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert all(find_spec(name) for name in names), f"{block.where}: {names}"


def check_javascript(block: Block, folder: Path) -> None:
    """Node reads the code, as a module."""
    path = folder / "block.mjs"
    path.write_text(block.text, encoding="utf-8")
    done = subprocess.run([NODE, "--check", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.where}: {done.stderr}"


def settings_file(text: str, folder: Path) -> Path:
    """A file in `folder` with these settings of a page. Each secret that they have from a file is in a file of the test."""
    secret = folder / "secret"
    secret.write_text("0123456789abcdef" * 2)
    secret.chmod(0o600)
    path = folder / "hub.toml"
    found = re.sub(r'"/(?:run/secrets|etc/fhircast-hub)/[^"]*"', json.dumps(str(secret)), text)
    path.write_text(found, encoding="utf-8")
    return path


def check_toml(block: Block, folder: Path) -> None:
    """A file of the hub's settings, which the hub loads."""
    assert tomllib.loads(block.text)
    load(settings_file(block.text, folder), {})


def check_json(block: Block, folder: Path) -> None:
    """JSON, where `…` stands for what is left out."""
    json.loads(_LEFT_OUT.sub("", block.text))


def check_yaml(block: Block, folder: Path) -> None:
    """One YAML document, or several."""
    assert all(document is not None for document in yaml.safe_load_all(block.text)), block.where


def check_ini(block: Block, folder: Path) -> None:
    """Lines of `name = value`, with or without sections."""
    text = block.text if block.text.lstrip().startswith("[") else f"[settings]\n{block.text}"
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    assert parser.sections(), block.where


def check_mermaid(block: Block, folder: Path) -> None:
    """A sequence diagram, which the site draws. The flowchart of the rooms is made by tools/architecture.py."""
    if block.text.startswith("sequenceDiagram"):
        drawn(block.text)
    else:
        assert block.text.startswith("flowchart"), block.where


def check_tsx(block: Block, folder: Path) -> None:
    """The code is TypeScript for React, by the strict rules of tsc."""
    path = folder / (block.file or "block.tsx")
    for other in [*of_page(block.page), block]:
        if other.file.endswith(".tsx") or other == block:  # the page's files import each other
            (folder / (other.file or path.name)).write_text(other.text, encoding="utf-8")
    (folder / "node_modules").symlink_to(MODULES)
    paths = {"fhircast-client": [str(ROOT / "clients" / "javascript" / "src" / "index.js")]}
    config = {"compilerOptions": {"strict": True, "noEmit": True, "allowJs": True, "paths": paths}}
    (folder / "tsconfig.json").write_text(json.dumps({**config, "files": [path.name]}), encoding="utf-8")
    done = subprocess.run([*TSC, "--project", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.where}: {done.stdout}"


def check_html(block: Block, folder: Path) -> None:
    """A page whose own scripts are well-formed."""
    for script in re.findall(r"<script type=.module.>(.*?)</script>", block.text, re.DOTALL):
        check_javascript(replace(block, text=script), folder)


def check_http(block: Block, folder: Path) -> None:
    """A request or an answer, as HTTP/1.1 has it. A long line goes on in the next ones, which are indented."""
    head = re.sub(r"\n\s+", "", block.text.partition("\n\n")[0])
    first, *headers = head.splitlines()
    assert re.fullmatch(r"[A-Z]+ /\S* HTTP/1\.1|HTTP/1\.1 \d{3} [A-Za-z ]+", first), f"{block.where}: {first}"
    assert all(re.fullmatch(r"[A-Za-z-]+: \S.*", line) for line in headers), block.where


def check_nothing(block: Block, folder: Path) -> None:
    """Text for people, and languages of which this machine has no reader."""
    assert block.text.strip(), block.where


#: By language. A block of another language fails the test.
CHECKS = {
    "sh": check_shell,
    "python": check_python,
    "js": check_javascript,
    "tsx": check_tsx,
    "html": check_html,
    "http": check_http,
    "mermaid": check_mermaid,
    "toml": check_toml,
    "json": check_json,
    "yaml": check_yaml,
    "ini": check_ini,
    "csv": check_nothing,
    "sql": check_nothing,
    "text": check_nothing,
    "": check_nothing,
}
#: Languages whose check is all that a block can need. The others are commands and programs, which a test runs.
DATA = {"toml", "json", "yaml", "ini", "mermaid"}
