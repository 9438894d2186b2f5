"""starting.py: what serves is imported only where something is served. A refusal and the small commands come at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: What only a serving hub needs, and what takes more than half of the time of a start.
HEAVY = "{'starlette', 'uvicorn'}"


@pytest.mark.parametrize("arguments", [["serve"], ["check-config"], ["token"]])
def test_a_command_that_serves_nothing_imports_nothing_that_serves(arguments: list[str]) -> None:
    program = (
        "import sys; from fhircast_hub.cli import app\n"
        f"try:\n    app({arguments!r})\n"
        f"finally:\n    print(sorted({HEAVY} & {{*sys.modules}}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
