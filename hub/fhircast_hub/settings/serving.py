"""What `serve` needs beside settings that are right each: issuers, keys, and files that settings name."""

from __future__ import annotations

from pathlib import Path

from fhircast_hub.settings.database_url import parse
from fhircast_hub.settings.settings import PREFIX, Settings, SettingsError
from fhircast_hub.settings.types import mask


def require_all(settings: Settings) -> None:
    """Raise SettingsError where `serve` could not work: what is required is missing, or a named file is unusable."""
    require_issuers(settings)
    require_secret_key(settings)
    store_password(settings)


def require_issuers(settings: Settings) -> None:
    """Raise SettingsError without any issuer: no token would be accepted (AUT-17)."""
    if not settings.issuers:
        name = f"{PREFIX}ISSUERS"
        raise SettingsError(f"{name} is required: at least one issuer of tokens; to try the hub out: fhircast-hub dev")


def require_secret_key(settings: Settings) -> None:
    """Raise SettingsError where nodes would seal the secrets of webhooks by different keys."""
    if settings.is_shared and settings.webhooks and settings.secret_key is None:
        raise SettingsError(
            f"{PREFIX}SECRET_KEY is required, the same on every node: {PREFIX}STORE is shared and {PREFIX}WEBHOOKS is on"
        )


def require_workers(settings: Settings) -> None:
    """Raise SettingsError where several processes of one machine could not share the store, or the audit trail."""
    if not settings.is_shared:
        raise SettingsError(f"--workers needs {PREFIX}STORE to be a postgresql:// URL, not {mask(settings.store)!r}")
    if settings.audit == "-":  # a pipe cuts long writes, and an entry may be long
        raise SettingsError(
            f"--workers needs {PREFIX}AUDIT to be file:///path or a URL, not '-': on stdout the workers' lines could mix"
        )


def store_password(settings: Settings) -> str | None:
    """The database's password, from the password file or else from the URL. None: neither has one. Raises SettingsError."""
    if not settings.is_shared:
        return None
    name = f"{PREFIX}STORE_PASSWORD_FILE"
    in_url = parse(settings.store).password
    if settings.store_password_file is None:
        return in_url
    if in_url is not None:
        raise SettingsError(f"{PREFIX}STORE must be a URL without a password, because {name} is set")
    try:
        password = Path(settings.store_password_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise SettingsError(f"{name} cannot be read: {reason}") from None
    password = password.removesuffix("\n").removesuffix("\r")
    if not password or not password.isprintable():
        found = f"{len(password)} characters with control characters" if password else "an empty one"
        raise SettingsError(f"{name} must be a file with one line, the password, not {found}")
    return password
