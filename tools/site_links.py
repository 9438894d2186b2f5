"""Checks the pages of a built site: every link leads to a file and an anchor, and no page loads anything from another host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from posixpath import normpath
from urllib.parse import unquote

_OTHER_HOST = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_CSS_URL = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s]+)""")
#: Attributes whose target a browser loads with the page. Of `link`, all do but the one for search engines.
_LOADED = {"src", "srcset", "poster", "data", "background", "xlink:href"}
_NOT_LOADED = {"canonical", "prev", "next", "alternate"}


class Page(HTMLParser):
    """A page: its anchors, its links, and the addresses that it loads."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self._styles = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self._styles = tag == "style"
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif "href" in values and values.get("rel") not in _NOT_LOADED:  # link, and use of SVG
            self.loads.append(values["href"])
        self.loads += [values[name] for name in _LOADED & values.keys()]
        self.loads += _CSS_URL.findall(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._styles:
            self.loads += _CSS_URL.findall(data)


def problems_of_site(site: Path) -> list[str]:
    """What is wrong with the pages and stylesheets under `site`: a line each, with the file and the address."""
    pages = {
        path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }
    found = [
        f"{name}: {problem}"
        for name, page in pages.items()
        for problem in [*_lost(site, pages, name), *_foreign(page.loads)]
    ]
    for path in sorted(site.rglob("*.css")):
        styles = _CSS_URL.findall(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)}: {problem}" for problem in _foreign(styles)]
    return found


def _lost(site: Path, pages: dict[str, Page], name: str) -> Iterator[str]:
    """Links and loads of a page that lead to no file, or to no anchor."""
    page = pages[name]
    for link in [*page.links, *page.loads]:
        if _SCHEME.match(link) or _OTHER_HOST.match(link):
            continue
        path, _, anchor = unquote(link).partition("#")
        path = path.partition("?")[0]
        target = normpath(f"{Path(name).parent.as_posix()}/{path}") if not path.startswith("/") else path[1:]
        if not path:
            target = name
        if not (site / target).is_file():
            yield f"{link} leads to no file"
        elif anchor and target in pages and anchor not in pages[target].anchors:
            yield f"{link} leads to no anchor"


def _foreign(loads: list[str]) -> Iterator[str]:
    yield from (f"loads {load} from another host" for load in loads if _OTHER_HOST.match(load))
