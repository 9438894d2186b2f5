"""clients/identity/python/README.md: its example says what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fhircast_identity import IdentityMap, NoMatch, System, Table
from tests.clients.identity_cases import patient

FOLDER = Path(__file__).parents[2] / "clients" / "identity" / "python"
#: Seconds until an example must be done.
PATIENCE = 20


def test_the_example_runs() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "local-17",
        "Birth date differs between the patient that was sent and the patient found here.",
        "[{'system': 'urn:oid:2.16.578.1.12.4.1.4.1', 'value': '13057000001'}]",
    ], done.stderr


async def test_the_csv_of_the_page_is_one(tmp_path: Path) -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"^```\n(local_id.*?)^```", page, re.DOTALL | re.MULTILINE)
    (call,) = re.findall(r"`Table\.from_csv\(path, (.*?)\)`", page)
    path = tmp_path / "patients.csv"
    path.write_text(rows, encoding="utf-8")
    table = eval(f"Table.from_csv(path, {call})", {"Table": Table, "System": System, "path": path})
    ids = IdentityMap({"Patient": [System("urn:oid:2.999.19.5")]}, [table])
    assert (await ids.find_resource(patient("4438001", "urn:oid:2.999.19.5"))).id == "local-17"


@pytest.mark.req("IDM-1")
@pytest.mark.parametrize(
    "rules", [{"Patient": "MR"}, {"Patient": System("urn:oid:1")}, {"Patient": ["MR"]}, {"Patient": []}]
)
def test_what_are_no_rules_is_an_error_at_once(rules: Any) -> None:
    with pytest.raises(TypeError, match="the rules for Patient must be a list"):
        IdentityMap(rules, [])


@pytest.mark.req("IDM-2", "IDM-4")
async def test_what_is_no_resolver_is_an_error_at_once_and_what_is_not_sent_is_refused() -> None:
    with pytest.raises(TypeError, match="must be an async function or have a method find"):
        IdentityMap({}, [7])  # type: ignore[list-item]
    with pytest.raises(NoMatch, match="The message has no patient or study to look up"):
        await IdentityMap({}, []).find_resource(None)
