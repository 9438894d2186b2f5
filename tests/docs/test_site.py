"""The documentation site as `make docs` builds it: nothing is broken, and the first page is the README."""

from __future__ import annotations

from tools.site import ROOT, build, pages
from tools.site import config as site_config

#: Markdown that the site leaves out, and why.
NOT_ON_THE_SITE = {
    "hub/README.md": "the package's page at the registry",
    "tests/bench/README.md": "for whoever measures in a clone",
    "tests/bench/loadgen/README.md": "likewise",
    "tests/bench/why.md": "a part of docs/benchmarks.md",
}


def test_the_site_builds_and_the_readme_is_its_first_page() -> None:
    """Each link of a page leads somewhere, or `build` says which one does not."""
    assert build() == []
    assert pages()[0] == "README.md"
    assert "fhircast-hub" in (ROOT / "build" / "site" / "index.html").read_text(encoding="utf-8")


def test_every_page_of_the_repository_is_on_the_site_once() -> None:
    folders = [path for path in ROOT.iterdir() if path.name in {"clients", "demo", "docs", "hub", "tests"}]
    found = [*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))]
    names = {path.relative_to(ROOT).as_posix() for path in found if "node_modules" not in path.parts}
    assert sorted(pages()) == sorted(names - NOT_ON_THE_SITE.keys())


def test_no_setting_of_the_site_loads_from_elsewhere() -> None:
    config = site_config()
    assert config["theme"]["font"] is False
    assert not {"repo_url", "extra_javascript"} & config.keys()
    assert config["extra_css"] == ["docs/site.css"]
    assert config["plugins"] == ["search"]
