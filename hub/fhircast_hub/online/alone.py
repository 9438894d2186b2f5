"""Findings of `check-config` for which no server is asked."""

from __future__ import annotations

from pathlib import Path

from fhircast_hub.online.certificates import check_certificates
from fhircast_hub.online.finding import NOTE, WARNING, Finding
from fhircast_hub.online.realms import check_realms
from fhircast_hub.settings.secret_files import open_to_all
from fhircast_hub.settings.serving import needs_proxy
from fhircast_hub.settings.settings import Settings


def check_alone(settings: Settings, certificate: Path | None, key: Path | None) -> list[Finding]:
    """Findings of certificates, of the way to the hub, of realms, and of secret files. The options' files are usable."""
    return [
        *check_certificates(settings, certificate),
        *_way(settings, certificate),
        *check_realms(settings),
        *(_open_file(name, path) for name, path in open_to_all(settings, key)),
    ]


def _way(settings: Settings, certificate: Path | None) -> list[Finding]:
    if not needs_proxy(settings, certificate):
        return []
    said = f"without --ssl-certfile the hub speaks plain http, at {settings.host} port {settings.port}"
    advice = "a proxy before the hub must end TLS, or give --ssl-certfile and --ssl-keyfile"
    return [Finding(True, f"FHIRCAST_PUBLIC_URL {settings.public_url}", said, advice, NOTE)]


def _open_file(name: str, path: str) -> Finding:
    said = "every user of this machine can read this secret"
    return Finding(True, f"{name} {path}", said, "run chmod o-r on the file, and renew the secret", WARNING)
