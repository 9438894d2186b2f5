"""Files and folders that settings name: whether the hub can write there, and read what it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fhircast_hub.settings.database_url import file_faults, parse
from fhircast_hub.settings.errors import PREFIX, Mistake
from fhircast_hub.settings.outbound_proxies import UnusableCertificates, trusted_certificates
from fhircast_hub.settings.settings import Settings


def check_places(settings: Settings) -> Iterator[Mistake]:
    """Places where the hub could not write or read what `serve` needs. Nothing is made or changed."""
    if settings.store_path is not None and (fault := store_fault(settings.store_path)):
        yield Mistake(f"{PREFIX}STORE: {str(settings.store_path)!r} cannot be opened: {fault}", ("store",))
    if settings.is_shared:
        for fault in file_faults(parse(settings.store).parameters):
            yield Mistake(f"{PREFIX}STORE: {fault}", ("store",))
    if (path := audit_file(settings)) is not None and (fault := append_fault(path)):
        yield Mistake(f"{PREFIX}AUDIT: {str(path)!r} cannot be written: {fault}", ("audit",))
    if settings.asks_over_tls and os.environ.get("SSL_CERT_FILE"):  # others take time to read, and are never missing
        try:
            trusted_certificates()
        except UnusableCertificates as error:
            yield Mistake(str(error), ("issuers", "audit"))


def audit_file(settings: Settings) -> Path | None:
    """The file of the audit trail. None: the trail goes elsewhere, or there is none."""
    is_file = settings.audit is not None and settings.audit.startswith("file:")
    return Path(unquote(urlsplit(settings.audit or "").path)) if is_file else None


def store_fault(path: Path) -> str:
    """Why SQLite could not use this file. "": it could, as far as modes tell. SQLite makes files beside its own."""
    return _fault(path, os.R_OK | os.W_OK, "read and write it") or _folder_fault(path.parent)


def append_fault(path: Path) -> str:
    """Why this process could not append to this file. "": it could, as far as modes tell. Nothing is read of the file."""
    return _fault(path, os.W_OK, "write it")


def _fault(path: Path, rights: int, what: str) -> str:
    try:
        if path.is_dir():
            return "it is a folder"
        if path.exists():
            return "" if os.access(path, rights) else f"the hub's user may not {what}"
        return _folder_fault(path.parent)
    except OSError as error:  # of a folder above that may not be entered, or a name that is too long
        return error.strerror or type(error).__name__


def _folder_fault(folder: Path) -> str:
    """Why no file could be made in the folder."""
    if not folder.is_dir():
        return f"{str(folder)!r} is no folder" if folder.exists() else f"its folder {str(folder)!r} does not exist"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"the hub's user may not write in {str(folder)!r}"
