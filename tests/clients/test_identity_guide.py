"""clients/identity/python/README.md: its example says what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
