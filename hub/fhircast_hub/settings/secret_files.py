"""Secrets in files, as Kubernetes, Docker and systemd hand them over: one line each.

Files are read with the settings, so that `check-config` finds a mistake in one. No error shows what is in a file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from fhircast_hub.settings.database_url import parse
from fhircast_hub.settings.errors import PREFIX, Mistake, full_name
from fhircast_hub.settings.issuers import IssuerSettings
from fhircast_hub.settings.settings import Settings
from fhircast_hub.settings.tls_files import check_pair
from fhircast_hub.settings.types import MIN_SECRET

#: A bearer token as a header can have it (RFC 6750 section 2.1: b64token).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
#: Bytes of a file. No secret is so long; /dev/zero is longer.
MAX_BYTES = 65536


class SecretFileError(ValueError):
    """The file of a secret is unusable. The message has its path and the reason, and nothing of what is in the file."""


def read_secret(path: str, expected: str = "a secret", is_right: Callable[[str], bool] = bool) -> str:
    """The only line of a file, without its end. Raises SecretFileError, with a text that follows "the setting ...".

    `is_right` says whether the line, which is printable, is as `expected` says.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or "no file can have this name"
        raise SecretFileError(f"names {_shown(path)}, which cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise SecretFileError(f"{_refused(path, expected)} more than {MAX_BYTES} bytes")
    text = _decoded(content, path, expected)
    if not text:
        raise SecretFileError(f"{_refused(path, expected)} nothing")
    if not text.isprintable():
        raise SecretFileError(f"{_refused(path, expected)} {len(text)} characters with control characters")
    if not is_right(text):
        raise SecretFileError(f"{_refused(path, expected)} {len(text)} characters of something else")
    return text


def with_secrets(settings: Settings) -> tuple[Settings, list[Mistake]]:
    """The settings with the secrets that are in files, and the mistakes in these files."""
    mistakes: list[Mistake] = []
    changed: dict[str, Any] = {}
    if settings.secret_key_file is not None:
        found = _secret_key(settings, settings.secret_key_file, mistakes)
        changed["secret_key"] = found
    if any(issuer.introspection_client_secret_file for issuer in settings.issuers):
        issuers = enumerate(settings.issuers)
        changed["issuers"] = tuple(_with_secret(issuer, f"issuers[{index}]", mistakes) for index, issuer in issuers)
    made = settings.model_copy(update=changed)
    if "secret_key" in changed and "secret_key_file" in made._origin:
        made._origin["secret_key"] = made._origin["secret_key_file"]
    made._store_password = _store_password(settings, mistakes)
    mistakes += _of_audit(settings)
    return made, mistakes


def read_token(path: str) -> str:
    """The only line of a file, a bearer token. Raises SecretFileError. Such tokens are short-lived: read the file each time."""
    return read_secret(path, "a bearer token", lambda text: bool(_TOKEN.fullmatch(text)))


def files_of(settings: Settings) -> Iterator[tuple[str, str]]:
    """Name and path of each file with a secret, the file of settings too."""
    if (file := _settings_with_secret(settings)) is not None:
        yield "--config", str(file)
    for field in ("secret_key_file", "store_password_file", "audit_token_file", "audit_key_file"):
        if (path := getattr(settings, field)) is not None:
            yield full_name(field), path
    for index, issuer in enumerate(settings.issuers):
        if issuer.introspection_client_secret_file is not None:
            name = full_name(f"issuers[{index}].introspection_client_secret_file")
            yield name, issuer.introspection_client_secret_file
    if settings.is_shared and (key := parse(settings.store).parameters.get("sslkey")):
        yield f"sslkey of {PREFIX}STORE", key


def _settings_with_secret(settings: Settings) -> Path | None:
    """The file of settings, where a secret stands in the file itself."""
    given = {
        "secret_key": settings.secret_key is not None and settings.secret_key_file is None,
        "store": settings.is_shared and parse(settings.store).password is not None,
        "issuers": any(
            issuer.introspection_client_secret is not None and issuer.introspection_client_secret_file is None
            for issuer in settings.issuers
        ),
    }
    return next((file for field, is_given in given.items() if is_given and (file := settings.file_of(field))), None)


def open_to_all(settings: Settings, key: Path | None = None) -> list[tuple[str, str]]:
    """Name and path of the files that every user of the machine may read, by the files' mode. `key`: that of --ssl-keyfile."""
    options = [("--ssl-keyfile", str(key))] if key else []
    return [(name, path) for name, path in (*options, *files_of(settings)) if _mode(path) & stat.S_IROTH]


def _secret_key(settings: Settings, path: str, mistakes: list[Mistake]) -> SecretStr | None:
    about = ("secret_key", "secret_key_file")
    if settings.secret_key is not None:
        line = f"{PREFIX}SECRET_KEY and {PREFIX}SECRET_KEY_FILE are both set; one of them is enough"
        mistakes.append(Mistake(line, about))
        return settings.secret_key
    expected = f"text of at least {MIN_SECRET} characters"
    return _read(about, path, mistakes, expected, lambda text: len(text) >= MIN_SECRET)


def _with_secret(issuer: IssuerSettings, place: str, mistakes: list[Mistake]) -> IssuerSettings:
    path, member = issuer.introspection_client_secret_file, f"{place}.introspection_client_secret"
    if path is None:
        return issuer
    if issuer.introspection_client_secret is not None:
        line = f"{full_name(member)} and introspection_client_secret_file are both set; one of them is enough"
        mistakes.append(Mistake(line, (member, f"{member}_file")))
        return issuer
    expected = "text without white space around it"
    found = _read((member, f"{member}_file"), path, mistakes, expected, lambda text: text == text.strip())
    return issuer.model_copy(update={"introspection_client_secret": found})


def _store_password(settings: Settings, mistakes: list[Mistake]) -> SecretStr | None:
    path = settings.store_password_file
    if path is None:
        return None
    about = ("store", "store_password_file")
    if settings.is_shared and parse(settings.store).password is not None:
        line = f"{PREFIX}STORE must be a URL without a password, because {PREFIX}STORE_PASSWORD_FILE is set"
        mistakes.append(Mistake(line, about))
    return _read(about[1:], path, mistakes, "the password")


def _of_audit(settings: Settings) -> Iterator[Mistake]:
    """Mistakes in the files of credentials for the audit trail's server."""
    if settings.audit_token_file is not None:
        try:
            read_token(settings.audit_token_file)
        except SecretFileError as error:
            yield Mistake(f"{PREFIX}AUDIT_TOKEN_FILE {error}", ("audit_token_file",))
    fields = ("audit_cert_file", "audit_key_file")
    certificate, key = (path and Path(path) for path in (settings.audit_cert_file, settings.audit_key_file))
    names = full_name(fields[0]), full_name(fields[1])
    yield from (mistake._replace(about=fields) for mistake in check_pair(names, certificate or None, key or None))


def _read(
    about: tuple[str, ...],
    path: str,
    mistakes: list[Mistake],
    expected: str,
    is_right: Callable[[str], bool] = bool,
) -> SecretStr | None:
    """The secret. The last of `about` is the setting with the path."""
    try:
        return SecretStr(read_secret(path, expected, is_right))
    except SecretFileError as error:
        mistakes.append(Mistake(f"{full_name(about[-1])} {error}", about))
        return None


def _decoded(content: bytes, path: str, expected: str) -> str:
    """The line, without its end."""
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretFileError(f"{_refused(path, expected)} bytes that are not UTF-8") from None


def _refused(path: str, expected: str) -> str:
    return f"names {_shown(path)}, which must hold {expected} in one line, and holds"


def _shown(path: str) -> str:
    """The path for an error. A text of which no folder exists may be the secret itself, at the wrong place."""
    folders = [folder for folder in Path(path).parents if folder not in (Path("/"), Path())]
    try:
        is_path = Path(path).exists() or any(folder.is_dir() for folder in folders)
    except (OSError, ValueError):
        is_path = False
    return repr(path) if is_path else f"a path of {len(path)} characters"


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:  # gone since it was read
        return 0
