"""tools/site.py on small repositories: what it copies, and that whatever is wrong is named with its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.site import ROOT, build, config, glued_lists
from tools.site_links import problems_of_site

CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[0]


def repository(folder: Path, **pages: str) -> Path:
    """A repository whose pages are README.md and, under docs/, those given. Its stylesheets are empty."""
    texts = {"README.md": "# Home\n", **{f"docs/{name}.md": text for name, text in pages.items()}}
    nav = "".join(f"  - {path}\n" for path in texts)
    (folder / "mkdocs.yml").write_text(f"{CONFIG}\nnav:\n{nav}", encoding="utf-8")
    for path, text in [*texts.items(), *((style, "") for style in config()["extra_css"])]:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def copied(folder: Path, page: str) -> str:
    return (folder / "build" / "site-source" / page).read_text(encoding="utf-8")


def test_good_links_build_a_site(tmp_path: Path) -> None:
    one = "# One\n\nSee [two](two.md#the-end), [home](../README.md) and [elsewhere](https://example.org/).\n"
    root = repository(tmp_path, one=one, two="# Two\n\n## The end\n")
    assert build(root) == []
    assert 'href="two.html#the-end"' in (root / "build" / "site" / "docs" / "one.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# One\n\n[x](two.md#nowhere)\n", "docs/one.md:3:12: anchor does not exist: nowhere"),
        ("# One\n\n[x](#nowhere)\n", "docs/one.md:3:6: anchor does not exist: nowhere"),
        ("# One\n\n[x](lost.md)\n", "docs/one.md:3: lost.md is not there"),
        ("# One\n\n![x](lost.svg)\n", "docs/one.md:3: lost.svg is not there"),
        ("# One\n\nThese:\n- a\n", "docs/one.md:4: a list needs an empty line before it"),
        ("# One\n\n<a href='two.html#nowhere'>x</a>\n", "docs/one.html: two.html#nowhere leads to no anchor"),
        (
            "# One\n\n![x](https://example.org/x.png)\n",
            "docs/one.html: loads https://example.org/x.png from another host",
        ),
        (
            "# One\n\n```mermaid\nsequenceDiagram\n  loop daily\n```\n",
            "docs/one.md: a sequence diagram has a line that cannot be drawn: loop daily",
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_link(tmp_path: Path, text: str, problem: str) -> None:
    assert build(repository(tmp_path, one=text, two="# Two\n")) == [problem]


def test_a_page_of_the_navigation_must_be_there(tmp_path: Path) -> None:
    root = repository(tmp_path, one="# One\n")
    (root / "docs" / "one.md").unlink()
    assert build(root) == ["mkdocs.yml: nav: docs/one.md is not there"]


def test_links_to_files_that_the_site_does_not_have_become_text(tmp_path: Path) -> None:
    text = "# One\n\n[tool.py](../hub/tool.py), [the tool](../hub/tool.py), [an example](x.conf)\n\n```md\n[x](lost.md)\n```\n"
    root = repository(tmp_path, one=text)
    (root / "hub").mkdir()
    (root / "hub" / "tool.py").touch()
    (root / "docs" / "x.conf").write_text("listen 80;\n")
    assert build(root) == []
    assert "tool.py, the tool (`hub/tool.py`), [an example](x.conf)\n" in copied(root, "docs/one.md")
    assert "[x](lost.md)" in copied(root, "docs/one.md")
    assert (root / "build" / "site" / "docs" / "x.conf").is_file()


def test_a_sequence_diagram_becomes_a_picture(tmp_path: Path) -> None:
    root = repository(tmp_path, one="# One\n\n```mermaid\nsequenceDiagram\n  A->>B: hello\n```\n\nBehind.\n")
    assert build(root) == []
    page = (root / "build" / "site" / "docs" / "one.html").read_text(encoding="utf-8")
    assert ">hello</text>" in page
    assert "<p>Behind.</p>" in page
    assert "mermaid" not in page


def test_lists_that_need_an_empty_line() -> None:
    assert glued_lists("a\n- b\n\n- c\n- d\n  e\n- f\n") == [2]
    assert glued_lists("a\n500. b\n# c\n- d\n```\na\n- b\n```\n") == []


def test_stylesheets_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text('@import "//fonts.example/a.css"; b { background: url(data:image/png;base64,AA) }')
    assert problems_of_site(tmp_path) == ["a.css: loads //fonts.example/a.css from another host"]


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="preconnect" href="https://cdn.example/a.js">',
        '<img srcset="https://cdn.example/a.js 2x">',
        '<svg><use xlink:href="https://cdn.example/a.js"/></svg>',
        "<p style=\"background: url('https://cdn.example/a.js')\">",
        '<style>@import "https://cdn.example/a.js";</style>',
    ],
)
def test_every_way_to_load_is_seen(tmp_path: Path, html: str) -> None:
    (tmp_path / "a.html").write_text(html)
    (problem,) = problems_of_site(tmp_path)
    assert problem.startswith("a.html: loads https://cdn.example/a.js")
