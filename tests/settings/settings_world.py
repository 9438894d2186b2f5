"""Settings from an environment or a file, and the text of a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fhircast_hub.settings.reading import load
from fhircast_hub.settings.settings import Settings

ISSUER = {"issuer": "https://login.example", "audience": "hub"}


def from_env(**values: Any) -> Settings:
    """The settings of these FHIRCAST_ variables; what is not text becomes JSON."""
    return load(None, {f"FHIRCAST_{k}": v if isinstance(v, str) else json.dumps(v) for k, v in values.items()})


def from_file(path: Path, text: str, **environ: str) -> Settings:
    file = path / "hub.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ)


def issuers(*members: dict[str, Any]) -> list[dict[str, Any]]:
    """Issuers that differ from ISSUER in these members; None leaves one out."""
    return [{name: value for name, value in (ISSUER | given).items() if value is not None} for given in members]
