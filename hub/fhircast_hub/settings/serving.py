"""What `serve` needs beside settings that are right: issuers, keys, and files that settings name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fhircast_hub.settings.errors import PREFIX, Mistake, SettingsError
from fhircast_hub.settings.places import check_places
from fhircast_hub.settings.settings import Settings
from fhircast_hub.settings.tls_files import check_pair
from fhircast_hub.settings.types import mask

#: The options of `serve` for the hub's own certificate.
TLS_OPTIONS = ("--ssl-certfile", "--ssl-keyfile")


#: How an operator makes the key, and where the key may be.
_MAKE_KEY = f"make a key by openssl rand -hex 32, and put the key there or into the file of {PREFIX}SECRET_KEY_FILE"


def require_all(settings: Settings) -> None:
    """Raise SettingsError with all reasons for which `serve` could not work."""
    if lines := [mistake.line for mistake in check_serving(settings)]:
        raise SettingsError(*lines)


def check_serving(settings: Settings) -> Iterator[Mistake]:
    """Reasons for which `serve` could not work: what is required is missing, or a named file is unusable."""
    if not settings.issuers:  # no token would be accepted (AUT-17)
        needed = f"at least one issuer of tokens{settings.hint('issuers')}; to try the hub out: fhircast-hub dev"
        yield Mistake(f"{PREFIX}ISSUERS is required: {needed}", ("issuers",))
    yield from check_secret_key(settings)
    if settings.console_issuer not in (None, *(each.issuer for each in settings.issuers)):
        line = f"{PREFIX}CONSOLE_ISSUER must be an issuer of {PREFIX}ISSUERS, not {settings.console_issuer!r}"
        yield Mistake(line, ("console_issuer", "issuers"))  # its tokens would not count
    yield from check_places(settings)


def check_secret_key(settings: Settings) -> Iterator[Mistake]:
    """Why nodes would seal the secrets of webhooks by different keys."""
    if settings.is_shared and settings.webhooks and settings.secret_key is None:
        hint = settings.hint("secret_key", "secret_key_file")
        why = f"{PREFIX}STORE is shared and {PREFIX}WEBHOOKS is on{hint}; {_MAKE_KEY}"
        line = f"{PREFIX}SECRET_KEY is required, the same on every node: {why}"
        yield Mistake(line, ("secret_key", "secret_key_file", "store", "webhooks"))


def check_tls(settings: Settings, certificate: Path | None, key: Path | None) -> Iterator[Mistake]:
    """Why the hub could not serve TLS with these files. Without both nothing is wrong."""
    mistakes = list(check_pair(TLS_OPTIONS, certificate, key))
    yield from mistakes
    url = settings.public_url
    if certificate is not None and not mistakes and not settings.allow_insecure and url.startswith("http:"):
        line = f"{PREFIX}PUBLIC_URL must be an https URL, because the hub serves TLS, not {url!r}"
        yield Mistake(line, ("public_url", "allow_insecure"))


def check_workers(settings: Settings, workers: int) -> Iterator[Mistake]:
    """Reasons for which so many processes of one machine could not share the port, the store and the audit trail."""
    if workers < 1:
        yield Mistake(f"--workers must be a number of processes from 1 on, not {workers}")
    if workers <= 1:
        return
    if not settings.is_shared:
        line = f"--workers needs {PREFIX}STORE to be a postgresql:// URL, not {mask(settings.store)!r}{settings.hint('store')}"
        yield Mistake(line, ("store",))
    if settings.audit == "-":  # a pipe cuts long writes, and an entry may be long
        why = "on stdout the workers' lines could mix"
        line = f"--workers needs {PREFIX}AUDIT to be file:///path or a URL, not '-': {why}"
        yield Mistake(line, ("audit",))


def needs_proxy(settings: Settings, certificate: Path | None) -> bool:
    """Whether a proxy must end TLS before the hub: applications use https, and the hub has no certificate."""
    return certificate is None and settings.public_url.startswith("https:")
