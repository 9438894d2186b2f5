"""Settings that are right each, and wrong together."""

from __future__ import annotations

from collections.abc import Iterator

from fhircast_hub.settings.database_url import parse
from fhircast_hub.settings.errors import PREFIX, Mistake, full_name, wrong
from fhircast_hub.settings.issuers import check_issuers
from fhircast_hub.settings.settings import Settings
from fhircast_hub.settings.types import is_safe

_ALLOWED = f"(or set {PREFIX}ALLOW_INSECURE=true)"


def check_combinations(settings: Settings) -> Iterator[Mistake]:
    """Mistakes between settings, which every command refuses. Reads no file."""
    if settings.default_lease > settings.max_lease:
        at_most = f"at most {PREFIX}MAX_LEASE ({settings.max_lease})"
        yield wrong("default_lease", settings.default_lease, at_most, "max_lease")
    if not settings.allow_insecure:
        yield from _check_ways(settings)
    yield from check_issuers(settings.issuers)
    yield from _check_audit(settings)


def _check_audit(settings: Settings) -> Iterator[Mistake]:
    """Credentials that the sink of the audit trail has no use for."""
    sink = settings.audit or ""
    if settings.audit_token_file is not None and not sink.startswith("http"):
        line = f"{PREFIX}AUDIT_TOKEN_FILE needs {PREFIX}AUDIT to be the URL of a FHIR server"
        yield Mistake(line, ("audit_token_file", "audit"))
    for field in ("audit_cert_file", "audit_key_file"):
        if getattr(settings, field) is not None and not sink.startswith("https:"):
            yield Mistake(f"{full_name(field)} needs {PREFIX}AUDIT to be an https URL", (field, "audit"))


def _check_ways(settings: Settings) -> Iterator[Mistake]:
    """URLs on whose way somebody could listen (SEC-4)."""
    for name, url in settings.trusted_urls():
        if not is_safe(url):
            yield wrong(name, url, f"an https URL, because the host is not loopback {_ALLOWED}", "allow_insecure")
    if settings.is_shared and not parse(settings.store).is_safe:
        expected = f"a URL with sslmode=verify-full, because a host is not loopback {_ALLOWED}"
        yield wrong("store", settings.store, expected, "allow_insecure")
