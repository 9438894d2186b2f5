"""What a deployment chooses: `FHIRCAST_*` in the environment, over the same names in a TOML file, over the defaults.

A hub that starts has understood every setting it was given. What it does not understand ends it with one line for the
operator (SEC-3); a slip of the pen must not become a hub with other limits, or other friends, than somebody intended.
In the file a setting is spelled as in docs/settings.md, in capitals and without the prefix: one name, one spelling.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, PrivateAttr, ValidationError
from pydantic import model_validator as model_check
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fhircast_hub.core.limits import Rules

PREFIX = "FHIRCAST_"

#: The largest number taken anywhere: it fits wherever a number may go, a database's integer or a timer.
MOST = 2**31 - 1
#: Characters of a wrong value that are shown.
SHOWN = 80

#: RFC 3986 section 2: all that a URL may consist of. urlsplit() forgives more, and drops line breaks in silence.
_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
#: The routes are compared as they come, so the path of hub.url is plain: no escapes, no empty or dotted segments.
_PLAIN_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
#: RFC 6454 section 6.2, as browsers send it: an application's scheme is possible, a path or a trailing slash is not.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_HOST_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_STORE = re.compile(r"memory:|sqlite:///(?!:memory:)[^?\x00-\x1f]*[^/?\x00-\x1f]")
_USER = re.compile(r"^(\w[\w+.-]*://)?.*@", re.DOTALL)
_QUERY = re.compile(r"(?<=\?).+", re.DOTALL)


class SettingsError(Exception):
    """A setting the hub cannot start with. `str(error)` is one line: its name, what came, what was expected."""


# --- reading one value. Each reader returns the value or raises ValueError, whose text is what was expected. ---


def _whole(low: int = 1, high: int = MOST) -> BeforeValidator:
    """The environment brings text, a file brings numbers; `true`, `1.0` and `1_000` are neither."""

    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,12}", value):
            value = int(value)
        if type(value) is int and low <= value <= high:
            return value
        raise ValueError(f"a whole number from {low} to {high}")

    return BeforeValidator(read)


def _choice(*names: str) -> BeforeValidator:
    def read(value: object) -> str:
        for name in names:
            if isinstance(value, str) and value.lower() == name.lower():
                return name
        raise ValueError(f"one of {', '.join(names)}")

    return BeforeValidator(read)


def _switch(value: object) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower())
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _fhir_version(value: object) -> object:
    return None if isinstance(value, str) and value.lower() == "none" else value


def _text(value: object) -> str:
    if isinstance(value, str) and value and value == value.strip() and value.isprintable():
        return value
    raise ValueError("text that is not empty, without white space around it")


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple | frozenset):
        return tuple(_text(item) for item in value)
    raise ValueError("a list of texts")


def _audience(value: object) -> str | tuple[str, ...]:
    try:
        return _text(value) if isinstance(value, str) else _texts(value or None)
    except ValueError:
        raise ValueError("the audience of its tokens, or a list of such that is not empty") from None


def _clients(value: object) -> frozenset[str]:
    try:
        return frozenset(_texts(value))
    except ValueError:
        raise ValueError("a list of client ids") from None


def _host(value: object) -> str:
    if isinstance(value, str) and (_HOST_NAME.fullmatch(value) or _is_address(value)):
        return value
    raise ValueError("the IP address (without brackets) or the host name to listen on")


def _store(value: object) -> str:
    if isinstance(value, str) and _STORE.fullmatch(value):
        return value
    raise ValueError("memory: or sqlite:///path (sqlite:////path for an absolute one)")


def _split(url: str) -> SplitResult | None:
    """The URL's parts, or None where it is not a usable http(s) URL."""
    if not _URL.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:  # a port or an IPv6 address that is none
        return None


def _url(*, query: bool = False) -> BeforeValidator:
    """A URL with a password in it would be shown wherever settings are, so there is none (SEC-1)."""

    def read(value: object) -> str:
        parts = _split(value) if isinstance(value, str) else None
        if not parts or "@" in parts.netloc or "#" in parts.geturl() or (parts.query and not query):
            raise ValueError(f"an absolute http(s) URL without user, {'' if query else 'query, '}or fragment")
        return str(value)

    return BeforeValidator(read)


def _public_url(value: object) -> str:
    """Without the trailing slash: with and without it are the same URL."""
    if isinstance(value, str):
        url = value.removesuffix("/")
        if (parts := _split(url)) and re.fullmatch(r"[^?#@]+", url) and _PLAIN_PATH.fullmatch(parts.path):
            return url
    raise ValueError("the absolute http(s) URL of the hub, with a plain path, without user, query or fragment")


def _origins(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        origins = tuple(value)
        if origins == ("*",) or all(isinstance(origin, str) and _ORIGIN.fullmatch(origin) for origin in origins):
            return origins
    raise ValueError('a list of origins such as "https://ehr.example" in lower case and without a path, or ["*"]')


def _issuers(value: object) -> object:
    if isinstance(value, list | tuple) and all(isinstance(item, dict | IssuerSettings) for item in value):
        return value
    raise ValueError("a list of objects (JSON in the environment, [[ISSUERS]] in a file)")


Count = Annotated[int, _whole()]
Switch = Annotated[bool, BeforeValidator(_switch)]
Text = Annotated[str, BeforeValidator(_text)]


# --- the settings ---


class IssuerSettings(BaseModel):
    """One authorization server whose tokens count; the members of an object in FHIRCAST_ISSUERS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, _url()]
    audience: Annotated[str | tuple[str, ...], BeforeValidator(_audience)]
    jwks_uri: Annotated[str, _url(query=True)] | None = None
    realm: Text | None = None
    user_claim: Text = "sub"
    fhir_base: Annotated[str, _url()] | None = None
    system_clients: Annotated[frozenset[str], BeforeValidator(_clients), PlainSerializer(sorted, when_used="json")] = (
        frozenset()
    )


class Settings(BaseSettings):
    """The settings of docs/settings.md, in lower case. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: Annotated[str, BeforeValidator(_host)] = "127.0.0.1"
    port: Annotated[int, _whole(0, 65535)] = 8080
    public_url: Annotated[str, BeforeValidator(_public_url)] = "http://localhost:8080/api/hub"
    issuers: Annotated[tuple[IssuerSettings, ...], BeforeValidator(_issuers)] = ()
    store: Annotated[str, BeforeValidator(_store)] = "sqlite:///fhircast-hub.db"
    default_lease: Count = 7200
    max_lease: Count = 86400
    connect_timeout: Count = 60
    ping_seconds: Count = 20
    queue_bytes: Count = 1 << 20
    queue_messages: Count = 256
    max_body_bytes: Count = 1 << 20
    max_subscriptions_per_topic: Count = 64
    max_subscriptions_per_user: Count = 256
    max_topics_per_user: Count = 1000
    session_ttl: Count = 86400
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_origins)] = ("*",)
    derive_opens: Switch = True
    fhir_version: Annotated[
        Annotated[
            Literal["DSTU1", "DSTU2", "STU3", "R4", "R4B", "R5"],
            _choice("DSTU1", "DSTU2", "STU3", "R4", "R4B", "R5", "none"),
        ]
        | None,
        BeforeValidator(_fhir_version),
    ] = None
    allow_insecure: Switch = False
    log_format: Annotated[Literal["json", "console"], _choice("json", "console")] = "json"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        _choice("debug", "info", "warning", "error", "critical"),
    ] = "info"

    #: Where each value came from, by field; load() knows.
    _origin: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed: load() reads the world, with one spelling and one kind of error. `Settings()` is the defaults."""
        return (init_settings,)

    @model_check(mode="after")
    def _agree(self) -> Self:
        """What no field can know alone. SettingsError is no ValueError, so it passes through pydantic as it is."""
        if self.default_lease > self.max_lease:
            raise _refusal("default_lease", self.default_lease, f"at most {PREFIX}MAX_LEASE, which is {self.max_lease}")
        for name, url in self._trusted_urls():
            if not self.allow_insecure and not _is_safe(url):
                raise _refusal(name, url, f"https, for the host is not loopback (or {PREFIX}ALLOW_INSECURE=true)")
        _check_issuers(self.issuers)
        return self

    def _trusted_urls(self) -> Iterator[tuple[str, str]]:
        """Over these go tokens, patients and keys (SEC-4)."""
        yield "public_url", self.public_url
        for index, issuer in enumerate(self.issuers):
            yield f"issuers[{index}].issuer", issuer.issuer
            if issuer.jwks_uri:
                yield f"issuers[{index}].jwks_uri", issuer.jwks_uri

    @property
    def hub_path(self) -> str:
        """Where the hub is mounted: the path of hub.url, "" for the root."""
        return urlsplit(self.public_url).path

    @property
    def ws_base(self) -> str:
        """hub.url with the scheme of its WebSockets (SUB-1)."""
        return "ws" + self.public_url.removeprefix("http")

    @property
    def store_path(self) -> Path | None:
        """The database file, taken as it is written; None where everything stays in memory."""
        return None if self.store == "memory:" else Path(self.store.removeprefix("sqlite:///"))

    def rules(self) -> Rules:
        """The settings that the core's decisions depend on."""
        return Rules(
            default_lease=self.default_lease,
            max_lease=self.max_lease,
            connect_timeout=self.connect_timeout,
            max_subscriptions=self.max_subscriptions_per_topic,
            session_ttl=self.session_ttl,
            derive_opens=self.derive_opens,
            held_bytes=self.queue_bytes,
            held_messages=self.queue_messages,
        )

    def masked(self) -> dict[str, dict[str, Any]]:
        """All settings by their full name as `{"value", "from"}`, fit to be shown; from is env, file, default or code."""
        values = self.model_dump(mode="json")
        given = dict.fromkeys(self.model_fields_set, "code") | self._origin
        return {
            PREFIX + field.upper(): {"value": _masked(value), "from": given.get(field, "default")}
            for field, value in values.items()
        }


#: The full names, and the field of each.
NAMES = {PREFIX + field.upper(): field for field in Settings.model_fields}
#: Settings that are JSON in the environment.
LISTS = frozenset({"issuers", "cors_origins"})


# --- where settings come from ---


def load(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of a TOML file, if any, and of the environment, which wins. Raises SettingsError."""
    in_file = _read_file(config) if config else {}
    in_env = _read_environ(environ)
    try:
        settings = Settings(**(in_file | in_env))
    except ValidationError as error:
        raise _explain(error) from None
    settings._origin.update(dict.fromkeys(in_file, "file") | dict.fromkeys(in_env, "env"))
    return settings


def require_issuers(settings: Settings) -> None:
    """Without issuers nobody could enter, so `serve` does not start (AUT-17). Raises SettingsError."""
    if not settings.issuers:
        raise _refusal("issuers", None, "at least one issuer whose tokens count; to try the hub out: fhircast-hub dev")


def _read_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, text in environ.items():
        # In any case: where fhircast_port was meant to be a setting, it is one that would have no effect.
        if not name.upper().startswith(PREFIX):
            continue
        if name not in NAMES:
            raise SettingsError(f"{_name(name)}: {_unknown('setting', name, NAMES)}")
        field = NAMES[name]
        given[field] = _read_json(name, text) if field in LISTS else text
    return given


def _read_json(name: str, text: str) -> object:
    """The text may hold what should not be shown, so an error tells its length and the place."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{error.msg} at line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError) as error:
        place = type(error).__name__
    raise SettingsError(f"{name}: got {len(text)} characters that are not JSON ({place}), expected a JSON list")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _file_refusal(path, f"cannot be read ({error.strerror or type(error).__name__})") from None
    except UnicodeDecodeError:
        raise _file_refusal(path, "is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise _file_refusal(path, f"is not TOML ({error})") from None
    except (ValueError, RecursionError) as error:
        raise _file_refusal(path, f"is not TOML ({type(error).__name__})") from None
    known = {field.upper(): field for field in Settings.model_fields}
    for key in table:
        if key not in known:
            raise SettingsError(f"{_name(key)} in {_show(str(path))}: {_unknown('setting', key, known)}")
    return {known[key]: value for key, value in table.items()}


# --- how refusals read ---


def _refusal(field: str, got: object, expected: str) -> SettingsError:
    first, dot, member = field.partition(".")
    return SettingsError(f"{PREFIX}{first.upper()}{dot}{member}: got {_show(got)}, expected {expected}")


def _file_refusal(path: Path, fault: str) -> SettingsError:
    return SettingsError(f"settings file {_show(str(path))} {fault}, expected a readable TOML file")


def _explain(error: ValidationError) -> SettingsError:
    """The first fault, but a misspelled member before the one that is missing for it."""
    faults = error.errors(include_url=False)
    fault = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    first, *members = fault["loc"]
    inner = "".join(f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in members)
    field = f"{first}{inner}"
    if fault["type"] == "extra_forbidden":
        name = f"{PREFIX}{str(first).upper()}{inner}"
        return SettingsError(f"{name}: {_unknown('member', str(fault['loc'][-1]), IssuerSettings.model_fields)}")
    if fault["type"] == "missing":
        return _refusal(field, None, "it in every issuer")
    return _refusal(field, fault["input"], str(fault.get("ctx", {}).get("error", fault["msg"])))


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Only the name: the value may be a secret that belongs elsewhere."""
    spelled = {candidate.upper().removeprefix(PREFIX): candidate for candidate in known}
    near = get_close_matches(name.upper().removeprefix(PREFIX), spelled, n=1)
    return f"got a name that is not known, expected a {kind} of docs/settings.md" + (
        f"; did you mean {spelled[near[0]]}?" if near else ""
    )


def _name(name: object) -> str:
    return str(name) if re.fullmatch(r"[\w-]{1,80}", str(name), re.ASCII) else _show(str(name))


def _show(value: object) -> str:
    """A wrong value, short, on one line and without what may be secret in it."""
    match value:
        case None:
            return "nothing"
        case str():
            shown = repr(_mask(value))
            return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}... ({len(value)} characters)"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
        case int() if value.bit_length() > 64:
            return "a number of more than 64 bits"
        case _:
            return str(value).lower()


def _mask(text: str) -> str:
    """User and password of a URL, even of a broken one, and its query, which may be a key."""
    return _QUERY.sub("***", _USER.sub(r"\1***@", text))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return _mask(value) if isinstance(value, str) and "://" in value else value


# --- checks ---


def _check_issuers(issuers: tuple[IssuerSettings, ...]) -> None:
    seen: set[str] = set()
    realms = Counter(issuer.realm or issuer.issuer for issuer in issuers)
    for index, issuer in enumerate(issuers):
        if issuer.issuer in seen:
            raise _refusal(f"issuers[{index}].issuer", issuer.issuer, "each issuer once")
        seen.add(issuer.issuer)
        # AUT-9: the same person must have the same name at both, and only who sets them up can know which claim that is.
        if realms[issuer.realm or issuer.issuer] > 1 and "user_claim" not in issuer.model_fields_set:
            raise _refusal(f"issuers[{index}].user_claim", None, "a claim's name, for its realm has several issuers")


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _is_safe(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    loopback = host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)
    return url.startswith("https:") or loopback
