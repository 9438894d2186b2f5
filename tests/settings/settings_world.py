"""Settings from an environment or a file, and the text of a refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fhircast_hub.settings.reading import load, read
from fhircast_hub.settings.serving import check_serving, check_workers
from fhircast_hub.settings.settings import Settings

ISSUER = {"issuer": "https://login.example", "audience": "hub"}


def variables(values: Mapping[str, Any]) -> dict[str, str]:
    """These FHIRCAST_ variables; what is not text becomes JSON."""
    return {f"FHIRCAST_{k}": v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


def from_env(**values: Any) -> Settings:
    """The settings of these FHIRCAST_ variables."""
    return load(None, variables(values))


def refusals(values: Mapping[str, Any], file: Path | None = None, workers: int = 1) -> list[str]:
    """All that `serve` refuses of these FHIRCAST_ variables and the file. No line has the secret "hunter2"."""
    reading = read(file, variables(values))
    lines = reading.also(check_serving(reading.settings)).also(check_workers(reading.settings, workers)).lines
    assert not [line for line in lines if "hunter2" in line or not line.isprintable()]
    return list(lines)


def from_file(path: Path, text: str, **environ: str) -> Settings:
    file = path / "hub.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ)


def issuers(*members: dict[str, Any]) -> list[dict[str, Any]]:
    """Issuers that differ from ISSUER in these members; None leaves one out."""
    return [{name: value for name, value in (ISSUER | given).items() if value is not None} for given in members]
