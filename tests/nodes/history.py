"""The history of a run: what clients sent, were answered and saw, and what was done to the hub. checker.py reads it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class History:
    """Records in memory, and as JSON lines in a file. Times are monotonic, in seconds."""

    def __init__(self, path: Path) -> None:
        self.records: list[dict[str, Any]] = []
        self._file = path.open("w", encoding="utf-8")

    def write(self, operation: str, **record: Any) -> None:
        """One more record. It is finished: nobody changes it any more."""
        whole = {"op": operation, **record}
        self.records.append(whole)
        self._file.write(json.dumps(whole) + "\n")

    def close(self) -> None:
        """Write what waits to the file."""
        self._file.close()


def now() -> float:
    """The time of records."""
    return time.monotonic()
