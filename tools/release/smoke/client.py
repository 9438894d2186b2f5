"""Tries an installed fhircast-client: its command line, its module and the marker of its types, without the hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fhircast_client

version = sys.argv[1]
program = Path(sys.executable).with_name("fhircast")
folder = Path(fhircast_client.__path__[0])


def printed(*words: str) -> str:
    """What `fhircast` prints."""
    return subprocess.run((program, *words), check=True, capture_output=True, text=True, timeout=60).stdout


assert folder.is_relative_to(sys.prefix), f"the module must be the installed one, not {folder}"
assert (folder / "py.typed").is_file(), "the marker of types must be there"
assert printed("--version") == f"fhircast {version}\n", printed("--version")
assert "listen" in printed("--help"), printed("--help")
client = fhircast_client.FHIRcastClient("http://127.0.0.1:9/api/hub", "demo", token="smoke", name="Smoke")
assert not client.status.in_sync, client.status
reason = ""
try:
    import fhircast_client.testing
except ImportError as error:
    reason = str(error)
assert "fhircast-client[testing]" in reason, "without the extra `testing`, the fake hub must name that extra"
