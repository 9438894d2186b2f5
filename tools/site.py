"""The documentation site: `make docs` builds build/site, and checks all that the pages link to.

    python -m tools.site

The pages are Markdown files of the repository, at their own paths. `nav` in mkdocs.yml names each page. The pages are
copied into build/site-source first, with the stylesheet, and the files under docs/ and pictures that they link to. A link to another
file of the repository becomes text, because the site does not have that file. Sequence diagrams become pictures.

Zensical builds the copy, and refuses a link to a page or an anchor that is not there. tools/site_links.py then checks
the built pages. Each problem is a line: the file, its line where known, and the link. Exit code 1 if there is any.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

import yaml

from tools.sequence import drawn
from tools.site_links import problems_of_site

ROOT = Path(__file__).resolve().parents[1]
#: Files beside the pages that the site has, if a page links to them.
_PICTURES = (".jpg", ".png", ".svg")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def nav_pages(nav: Any) -> Iterator[str]:
    """The paths of the pages, in the order of the navigation."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, Mapping):
        for entry in nav.values():
            yield from nav_pages(entry)
    else:
        for entry in nav:
            yield from nav_pages(entry)


def config(root: Path = ROOT) -> dict[str, Any]:
    """What mkdocs.yml under `root` says."""
    found: dict[str, Any] = yaml.safe_load((root / "mkdocs.yml").read_text(encoding="utf-8"))
    return found


def pages(root: Path = ROOT) -> list[str]:
    """The paths of the site's pages, as mkdocs.yml under `root` has them."""
    return list(nav_pages(config(root)["nav"]))


class Copy:
    """A copy of the pages and their pictures under `target`; `problems` has a line for each thing that is wrong."""

    def __init__(self, root: Path, target: Path) -> None:
        self._root, self._target = root, target
        self._pages = set(pages(root))
        self.problems: list[str] = []

    def make(self) -> None:
        """Write the copy anew."""
        shutil.rmtree(self._target, ignore_errors=True)
        for style in config(self._root).get("extra_css", []):
            self._write(style, (self._root / style).read_bytes())
        for page in sorted(self._pages):
            source = self._root / page
            if not source.is_file():
                self.problems.append(f"mkdocs.yml: nav: {page} is not there")
                continue
            text = self.page(page, source.read_text(encoding="utf-8"))
            self._write(page, text.encode())

    def page(self, page: str, text: str) -> str:
        """The Markdown of a page, as the site has it."""
        self.problems += [f"{page}:{line}: a list needs an empty line before it" for line in glued_lists(text)]

        def outside(line: int, piece: str) -> str:
            return _LINK.sub(lambda match: self._link(page, line, match), piece)

        try:
            return with_diagrams(outside_fences(text, outside))
        except ValueError as error:
            self.problems.append(f"{page}: {error}")
            return text

    def _link(self, page: str, line: int, match: re.Match[str]) -> str:
        picture, label, link = match.groups()
        if _ELSEWHERE.match(link):
            return match[0]
        path = normpath((PurePosixPath(page).parent / link.partition("#")[0]).as_posix())
        if path in self._pages:
            return match[0]
        source = self._root / path
        if not source.exists():
            self.problems.append(f"{page}:{line}: {link} is not there")
        elif source.is_file() and (source.suffix in _PICTURES or path.startswith("docs/")) and source.suffix != ".md":
            self._write(path, source.read_bytes())
            return match[0]
        elif picture:
            self.problems.append(f"{page}:{line}: {link} is no picture")
        return label if path.endswith(label.strip("`")) else f"{label} (`{path}`)"

    def _write(self, path: str, content: bytes) -> None:
        (self._target / path).parent.mkdir(parents=True, exist_ok=True)
        (self._target / path).write_bytes(content)


def outside_fences(text: str, change: Callable[[int, str], str]) -> str:
    """The text, with `change(number, line)` in place of each line that is in no code block."""
    return "".join(line if is_code else change(number, line) for number, line, is_code in _lines(text))


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are in no code block, with their numbers from 1 on."""
    return ((number, line) for number, line, is_code in _lines(text) if not is_code)


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Each line with its number, and whether a code block has the line. Fences are of their block."""
    fenced = False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        fence = line.lstrip().startswith("```")
        yield number, line, fenced or fence
        fenced ^= fence


def glued_lists(text: str) -> list[int]:
    """Lines where a list follows a paragraph without an empty line. GitHub shows a list there, and the site would not."""
    found: list[int] = []
    previous = ""
    for number, line in prose(text):
        if re.match(r"([-*]|1\.) ", line) and re.match(r"[^\s\-*#<|0-9]", previous):
            found.append(number)
        previous = line
    return found


def with_diagrams(text: str) -> str:
    """The text with a picture in place of each Mermaid sequence diagram. Raises ValueError for one that cannot be drawn."""
    return re.sub(
        r"^```mermaid\n(sequenceDiagram\n.*?)^```\n",
        lambda match: f'<div class="sequence">\n{drawn(match[1])}\n</div>\n',
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


def zensical(root: Path) -> list[str]:
    """Build the site. What Zensical finds wrong, a line each."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(root / "mkdocs.yml")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    said = _ESCAPES.sub("", done.stdout + done.stderr)
    found = re.findall(r"Warning: (.*)\n\s*╭─\[ (\S+) \]\n.*\n.*│ (.*)", said)
    lines = [f"{where}: {what}: {quoted(where, line)}" for what, where, line in found]
    return lines or [f"zensical ended with exit code {done.returncode}: {said.strip()}"]


def quoted(where: str, line: str) -> str:
    """The link of a line that begins at the column of `where`, or the line if none is there."""
    column = int(where.rpartition(":")[2])
    match = re.search(r"[^)\s]*", line[column - 1 :])
    return match[0] if match and match[0] else line.strip()


def build(root: Path = ROOT) -> list[str]:
    """Build the site of the repository `root` into its folder build/site. What is wrong, a line each."""
    copy = Copy(root, root / "build" / "site-source")
    copy.make()
    if copy.problems:
        return copy.problems
    return zensical(root) or problems_of_site(root / "build" / "site")


def main() -> int:
    """See the module."""
    problems = build()
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("build/site/index.html is the first page. Serve it: python -m http.server --directory build/site")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
