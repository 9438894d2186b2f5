"""Checks of the store and of the audit trail, which write nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol

import httpx
import msgspec

from fhircast_hub.online.finding import OK, WARNING, Failed, Finding, found, quoted
from fhircast_hub.settings.database_url import parse
from fhircast_hub.settings.places import audit_file
from fhircast_hub.settings.secret_files import SecretFileError, read_token
from fhircast_hub.settings.settings import Settings
from fhircast_hub.settings.types import mask
from fhircast_hub.storage.sqlite import SCHEMA_VERSION
from fhircast_hub.storage.upgrade import OLDEST_VERSION

#: Bytes of a CapabilityStatement that are read. A longer one is not looked into.
MAX_STATEMENT = 4 << 20
#: The header of a SQLite file, and where its user_version is (https://www.sqlite.org/fileformat.html section 1.3).
_MAGIC, _HEADER_BYTES, _VERSION = b"SQLite format 3\0", 100, slice(60, 64)


class Look(Protocol):
    """What was seen of a database."""

    @property
    def tables(self) -> str:
        """Which tables are there, or will be made; or why `serve` refuses."""

    @property
    def is_usable(self) -> bool:
        """Whether `serve` can work with the tables."""

    @property
    def promise(self) -> str:
        """Which failures accepted events survive."""

    @property
    def is_whole(self) -> bool:
        """Whether no single failure loses an event."""


#: Looks at the database of a shared store. Raises ValueError, for the operator.
LookAt = Callable[[], Awaitable[Look]]


async def check_store(settings: Settings, look: LookAt | None) -> list[Finding]:
    """The store's file can be opened. Or `look` finds usable tables in its database, and a promise."""
    if look is not None:
        return await check_database(settings, look)
    what = f"FHIRCAST_STORE {settings.store}"
    if settings.store_path is None:
        return [Finding(True, what, "sessions are forgotten when the hub ends")]
    return [await found(what, asyncio.to_thread(_store_file, settings.store_path))]


async def check_database(settings: Settings, look: LookAt) -> list[Finding]:
    """One of the tables and one of the promise; only one where the database does not answer."""
    what = f"FHIRCAST_STORE {mask(settings.store)}"
    url = parse(settings.store)
    seen: list[Look] = []
    reached = await found(what, _look(look, seen), url.connect_seconds * len(url.hosts) + 6.0)
    if not seen:
        return [reached]
    (kept,) = seen
    tables = Finding(kept.is_usable, f"{what} tables", kept.tables)
    return [tables, Finding(True, f"{what} promise", kept.promise, word=OK if kept.is_whole else WARNING)]


async def check_audit(settings: Settings, client: httpx.AsyncClient) -> list[Finding]:
    """The audit trail's file can be appended to, or its FHIR server answers. Without a trail there is no finding."""
    if settings.audit is None:
        return []
    what = f"FHIRCAST_AUDIT {settings.audit}"
    if settings.audit == "-":
        return [Finding(True, what, "entries go to stdout")]
    if (path := audit_file(settings)) is not None:
        return [await found(what, asyncio.to_thread(_audit_file, path))]
    return [await found(what, _fhir_server(settings, client))]


async def _look(look: LookAt, seen: list[Look]) -> str:
    """Put what `look` sees into `seen`. Raises Failed."""
    try:
        seen.append(await look())
    except ValueError as error:
        raise Failed(str(error)) from None
    return ""


def _store_file(path: Path) -> str:
    """What is in the place of the store's file. Makes no file, and takes no lock, which a running hub may hold."""
    _try_folder(path)
    if not path.exists():
        return "the file can be made"
    try:
        with path.open("r+b") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise Failed(f"the file cannot be opened: {error.strerror}", "give the file to the hub's user") from None
    if header and not header.startswith(_MAGIC):
        raise Failed("the file is no SQLite database", "choose another file")
    version = int.from_bytes(header[_VERSION])
    if version and not OLDEST_VERSION <= version <= SCHEMA_VERSION:
        raise Failed(f"the file has version {version}, and this hub reads {OLDEST_VERSION} to {SCHEMA_VERSION}")
    return f"the file opens, of version {version}" if version else "the file opens, and is new"


def _audit_file(path: Path) -> str:
    if not path.exists():
        _try_folder(path)
        return "the file can be made"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
    except OSError as error:
        raise Failed(f"the file cannot be appended to: {error.strerror}", "give the file to the hub's user") from None
    return "the file can be appended to"


def _try_folder(path: Path) -> None:
    """Raise Failed where no file can be made in the folder of `path`. Nothing is left there."""
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise Failed(f"no file can be made in {str(path.parent)!r}: {error.strerror}") from None


class _Interaction(msgspec.Struct):
    code: str = ""


class _Rest(msgspec.Struct):
    interaction: list[_Interaction] = []


class _Statement(msgspec.Struct, rename="camel"):
    """The members of a CapabilityStatement that are shown."""

    resource_type: str = ""
    fhir_version: str = ""
    rest: list[_Rest] = []


async def _fhir_server(settings: Settings, client: httpx.AsyncClient) -> str:
    """The CapabilityStatement of the server, with the hub's credentials. Nothing is posted."""
    headers = {"Accept": "application/fhir+json", "Accept-Encoding": "identity"}
    if settings.audit_token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {read_token(settings.audit_token_file)}"
        except SecretFileError as error:
            raise Failed(f"FHIRCAST_AUDIT_TOKEN_FILE {error}") from None
    url = f"{(settings.audit or '').rstrip('/')}/metadata"
    async with client.stream("GET", url, headers=headers, follow_redirects=False) as answer:
        _check_status(answer.status_code)
        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > MAX_STATEMENT:
                return "/metadata answers 200, with a long document"
    try:
        statement = msgspec.json.decode(body, type=_Statement)
    except ValueError:
        statement = _Statement()
    if statement.resource_type != "CapabilityStatement":
        raise Failed("/metadata answers no CapabilityStatement", "FHIRCAST_AUDIT is the base URL of a FHIR server")
    is_batch = any(each.code == "batch" for rest in statement.rest for each in rest.interaction)
    batches = "declares batches" if is_batch else "does not declare batches, which the hub sends"
    return f"/metadata answers as FHIR {quoted(statement.fhir_version)}, and {batches}; whether it takes AuditEvents was not tried"


def _check_status(status: int) -> None:
    """Raise Failed for a status but 200."""
    said = f"/metadata answers {status}"
    if status in (401, 403):
        advice = "check FHIRCAST_AUDIT_TOKEN_FILE, or FHIRCAST_AUDIT_CERT_FILE and FHIRCAST_AUDIT_KEY_FILE"
        raise Failed(said, f"the server does not take the hub's credentials; {advice}")
    if 300 <= status < 400:
        raise Failed(said, "the hub follows no redirect; set FHIRCAST_AUDIT to the address that it leads to")
    if status != httpx.codes.OK:
        raise Failed(said, "FHIRCAST_AUDIT is the base URL of a FHIR server")
