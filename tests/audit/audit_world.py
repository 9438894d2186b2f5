"""A hub with an audit trail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fhir.resources.R4B.auditevent import AuditEvent

from fhircast_hub.audit.event import Act, AuditEntry
from tests.running import RunningHub, running_hub, until


def entry(number: int) -> AuditEntry:
    """One of many."""
    return AuditEntry(Act.PUBLISH, 1_800_000_000.0, event=f"org.example.{number}")


def number(line: bytes | str) -> int:
    """Which of them."""
    return int(json.loads(line)["subtype"][2]["code"].rpartition(".")[2])


class Asked:
    """What the audit trail of a hub says so far, by the hub's own name of what was done."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines so far, each of which is valid. The hub may be writing the last one."""
        text = self._path.read_text() if self._path.exists() else ""
        lines = text.split("\n")[:-1]
        for line in lines:
            AuditEvent.model_validate_json(line)
        return [json.loads(line) for line in lines]

    async def of(self, act: str, count: int = 1) -> list[dict[str, Any]]:
        """The entries of this kind, once there are so many."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines() if line["subtype"][1]["code"] == act]

        await until(lambda: len(found()) >= count)
        assert len(found()) == count
        return found()


@asynccontextmanager
async def audited(folder: Path, **settings: Any) -> AsyncIterator[tuple[RunningHub, Asked]]:
    """A hub that writes its trail to a file."""
    path = folder / "trail.jsonl"
    async with running_hub(audit=path.as_uri(), **settings) as hub:
        yield hub, Asked(path)
