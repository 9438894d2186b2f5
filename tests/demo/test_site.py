"""The HTTP side of an application of the demo: what a browser may keep of it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from demo.site import PART_SECONDS, make_site

PAGES = Path(__file__).resolve().parents[2] / "demo" / "ehr" / "static"


@pytest.mark.parametrize("path", ["/main.js", "/ehr.css", "/shared/icons.svg", "/fhircast-client/index.js"])
async def test_a_login_asks_once_for_each_part_of_a_page(path: str) -> None:
    """A login loads a page three times within seconds. A new version of a part counts soon after."""
    site = httpx.ASGITransport(make_site(PAGES, {}))
    async with httpx.AsyncClient(transport=site, base_url="http://ehr") as browser:
        answer = await browser.get(path)
        again = await browser.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert [answer.status_code, again.status_code] == [200, 304]
    assert answer.headers["Cache-Control"] == again.headers["Cache-Control"] == f"max-age={PART_SECONDS}"


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/index.html", 200), ("/config.json", 200), ("/missing.js", 404)]
)
async def test_a_page_its_configuration_and_an_error_are_asked_for_each_time(path: str, status: int) -> None:
    site = httpx.ASGITransport(make_site(PAGES, {}))
    async with httpx.AsyncClient(transport=site, base_url="http://ehr") as browser:
        answer = await browser.get(path)
    assert answer.status_code == status
    assert answer.headers["Cache-Control"] == "no-cache"
