"""The settings of a deployment: FHIRCAST_* in the environment, before a TOML file, before the defaults.

A hub that starts has understood all of its settings. Any mistake ends the start with one line for the operator (SEC-3).
The line names the setting and shows no secret. Therefore load() reads the environment and the file itself: the sources of
pydantic-settings report several lines with the values in them. In the file a setting has its name in docs/settings.md,
without the prefix.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.wire.callback_url import Network
from fhircast_hub.settings.database_url import is_database, parse
from fhircast_hub.settings.machine_memory import available
from fhircast_hub.settings.types import (
    Audience,
    AuditSink,
    Clients,
    ClientSecret,
    Count,
    FhirVersion,
    Host,
    HubUrl,
    KeysUrl,
    Memory,
    Networks,
    Number,
    Origins,
    Port,
    SecretKey,
    Store,
    Switch,
    Text,
    Url,
    is_safe,
    mask,
    one_of,
)

PREFIX = "FHIRCAST_"
#: Variables of the client library's command line. One shell often has both.
CLIENTS = frozenset({"FHIRCAST_HUB", "FHIRCAST_TOPIC", "FHIRCAST_TOKEN"})

#: Characters of a wrong value in an error.
MAX_SHOWN = 80


class SettingsError(Exception):
    """A setting that prevents the start. `str(error)` is one line with the setting's name."""


# --- the settings ---


class IssuerSettings(BaseModel):
    """One trusted authorization server: an object in FHIRCAST_ISSUERS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Url
    audience: Audience
    jwks_uri: KeysUrl | None = None
    introspection_endpoint: Url | None = None
    introspection_client_id: Text | None = None
    introspection_client_secret: ClientSecret | None = None
    realm: Text | None = None
    user_claim: Text = "sub"
    fhir_base: Url | None = None
    system_clients: Clients = frozenset()

    def plain(self) -> dict[str, Any]:
        """All members, with the secret in plain text."""
        secret = self.introspection_client_secret
        return self.model_dump() | {"introspection_client_secret": secret.get_secret_value() if secret else None}


class Settings(BaseModel):
    """The settings of docs/settings.md, in lower case. Times in seconds, sizes in bytes.

    `Settings()` has the defaults and never reads the environment. Use load() to read settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Host = "127.0.0.1"
    port: Port = 8080
    public_url: HubUrl = "http://localhost:8080/api/hub"
    issuers: tuple[IssuerSettings, ...] = ()
    store: Store = "sqlite:///fhircast-hub.db"
    store_password_file: Text | None = None
    default_lease: Count = 7200
    max_lease: Count = 86400
    connect_timeout: Count = 60
    max_clock_ahead: Number = 60
    ack_timeout: Count = 10
    ack_policy: Annotated[str, one_of("strict", "lenient", "off")] = "lenient"
    ack_strikes: Count = 3
    reconnect_grace: Count = 3
    ping_seconds: Count = 15
    heartbeat_seconds: Count = 30
    queue_bytes: Count = 1 << 20
    queue_messages: Count = 256
    max_body_bytes: Count = 1 << 20
    max_bundle_entries: Count = 500
    max_subscriptions_per_topic: Count = 64
    max_subscriptions_per_user: Count = 256
    max_topics_per_user: Count = 1000
    max_bytes_per_user: Count = 64 << 20
    max_bytes: Memory = 0
    session_ttl: Count = 86400
    logout_ends_session: Switch = False
    cors_origins: Origins = ("*",)
    webhooks: Switch = True
    webhook_allowed_networks: Networks = ()
    webhook_forbidden_networks: Networks = ()
    secret_key: SecretKey | None = None
    derive_opens: Switch = True
    derive_closes: Switch = True
    fhir_version: FhirVersion = None
    audit: AuditSink | None = None
    rate_limit_token: Number = 600
    rate_limit_address: Number = 6000
    trusted_proxies: Networks = ()
    allow_insecure: Switch = False
    log_format: Annotated[str, one_of("json", "console")] = "json"
    log_level: Annotated[str, one_of("debug", "info", "warning", "error", "critical")] = "info"

    #: The source of each value that load() read: "env" or "file", by field.
    _origin: dict[str, str] = {}

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        """Check settings against each other. SettingsError is no ValueError: pydantic lets the error pass unchanged."""
        if self.default_lease > self.max_lease:
            raise _wrong("default_lease", self.default_lease, f"at most {PREFIX}MAX_LEASE ({self.max_lease})")
        for name, url in self._trusted_urls():
            if not self.allow_insecure and not is_safe(url):
                expected = f"an https URL, because the host is not loopback (or set {PREFIX}ALLOW_INSECURE=true)"
                raise _wrong(name, url, expected)
        if self.is_shared and not self.allow_insecure and not parse(self.store).is_safe:
            expected = (
                f"a URL with sslmode=verify-full, because a host is not loopback (or set {PREFIX}ALLOW_INSECURE=true)"
            )
            raise _wrong("store", self.store, expected)
        _check_issuers(self.issuers)
        return self

    @property
    def asks_over_tls(self) -> bool:
        """Whether the hub sends requests to an https URL of these settings."""
        return any(url.startswith("https:") for name, url in self._trusted_urls() if name != "public_url")

    def _trusted_urls(self) -> Iterator[tuple[str, str]]:
        """Name and value of each URL that tokens, patients or keys are sent over (SEC-4)."""
        yield "public_url", self.public_url
        for index, issuer in enumerate(self.issuers):
            yield f"issuers[{index}].issuer", issuer.issuer
            if issuer.jwks_uri:
                yield f"issuers[{index}].jwks_uri", issuer.jwks_uri
            if issuer.introspection_endpoint:
                yield f"issuers[{index}].introspection_endpoint", issuer.introspection_endpoint
        if self.audit and self.audit.startswith("http"):
            yield "audit", self.audit

    @property
    def hub_path(self) -> str:
        """The path of hub.url, "" for the root."""
        return urlsplit(self.public_url).path

    @property
    def ws_base(self) -> str:
        """hub.url with the scheme ws or wss (SUB-1)."""
        return "ws" + self.public_url.removeprefix("http")

    @property
    def store_path(self) -> Path | None:
        """The database file. The name is not decoded. None: sessions stay in memory, or are in a shared database."""
        return Path(self.store.removeprefix("sqlite:///")) if self.store.startswith("sqlite:") else None

    @property
    def is_shared(self) -> bool:
        """Whether many nodes share the store."""
        return is_database(self.store)

    @property
    def all_bytes(self) -> int:
        """Bytes that all sessions may hold: the setting, or half of the memory available to the process."""
        return self.max_bytes or available() // 2

    @property
    def webhook_networks(self) -> tuple[Network, ...]:
        """Networks with callbacks, beside the public internet."""
        return tuple(map(ip_network, self.webhook_allowed_networks))

    @property
    def no_webhook_networks(self) -> tuple[Network, ...]:
        """Networks without callbacks, public or not."""
        return tuple(map(ip_network, self.webhook_forbidden_networks))

    def rules(self) -> Rules:
        """The settings that the core needs."""
        return Rules(
            default_lease=self.default_lease,
            max_lease=self.max_lease,
            connect_timeout=self.connect_timeout,
            max_subscriptions=self.max_subscriptions_per_topic,
            session_ttl=self.session_ttl,
            max_clock_ahead=self.max_clock_ahead,
            derive_opens=self.derive_opens,
            derive_closes=self.derive_closes,
            logout_ends_session=self.logout_ends_session,
            max_entries=self.max_bundle_entries,
            ack_strikes=self.ack_strikes,
            ack_timeout=self.ack_timeout,
            reconnect_grace=self.reconnect_grace,
            heartbeat_seconds=self.heartbeat_seconds,
            retained_bytes=self.queue_bytes,
            retained_messages=self.queue_messages,
            dead_socket_seconds=max(45, 3 * self.ping_seconds),
        )

    def masked(self) -> dict[str, dict[str, Any]]:
        """All settings without secrets: full name -> `{"value", "from"}`. `from` is env, file, default or code."""
        origin = dict.fromkeys(self.model_fields_set, "code") | self._origin
        shown = self.model_dump(mode="json") | {"max_bytes": self.all_bytes}
        return {name: {"value": shown[field], "from": origin.get(field, "default")} for name, field in NAMES.items()}


#: Full name -> field.
NAMES = {PREFIX + field.upper(): field for field in Settings.model_fields}
#: Fields that are JSON in the environment.
LISTS = frozenset(
    {"issuers", "cors_origins", "webhook_allowed_networks", "webhook_forbidden_networks", "trusted_proxies"}
)


def _check_issuers(issuers: tuple[IssuerSettings, ...]) -> None:
    introspecting = [index for index, issuer in enumerate(issuers) if issuer.introspection_endpoint]
    if len(introspecting) > 1:
        # An opaque token does not name its issuer (AUT-14).
        name = _full_name(f"issuers[{introspecting[1]}].introspection_endpoint")
        raise SettingsError(f"{name} may be set for one issuer only, and issuers[{introspecting[0]}] has one too")
    seen: set[str] = set()
    realms = Counter({issuer.issuer: issuer.realm or issuer.issuer for issuer in issuers}.values())
    for index, issuer in enumerate(issuers):
        if issuer.issuer in seen:
            raise SettingsError(f"{_full_name(f'issuers[{index}].issuer')} repeats {_shown(issuer.issuer)}")
        seen.add(issuer.issuer)
        # One person must have the same name at all issuers of a realm. Only the operator knows the right claim (AUT-9).
        if realms[issuer.realm or issuer.issuer] > 1 and "user_claim" not in issuer.model_fields_set:
            name = _full_name(f"issuers[{index}].user_claim")
            raise SettingsError(f"{name} is required, because the realm has several issuers")


# --- reading ---


def load(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings of a TOML file and of the environment. The environment wins. Raises SettingsError."""
    in_file = _read_file(config) if config else {}
    in_env = _read_environ(environ)
    try:
        settings = Settings(**(in_file | in_env))
    except ValidationError as error:
        raise _first_error(error) from None
    settings._origin.update(dict.fromkeys(in_file, "file") | dict.fromkeys(in_env, "env"))
    return settings


def _read_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in environ.items():
        # In any case: fhircast_port was meant as a setting, and would have no effect.
        if not name.upper().startswith(PREFIX) or name in CLIENTS:
            continue
        if name not in NAMES:
            raise _unknown(_plain_name(name), "setting", name, NAMES)
        values[NAMES[name]] = _read_json(name, text) if NAMES[name] in LISTS else text
    return values


def _read_json(name: str, text: str) -> object:
    """Parse the JSON text. An error has length and place only, because the text may hold a secret."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        fault = f"{error.msg} at line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError) as error:
        fault = type(error).__name__
    raise SettingsError(f"{name} must be a JSON list, not {len(text)} characters that are not JSON ({fault})")


def _read_file(path: Path) -> dict[str, Any]:
    known = {field.upper(): field for field in Settings.model_fields}
    file = f"settings file {_shown(str(path))}"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        place = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        fault = getattr(error, "strerror", None) or place
        raise SettingsError(f"{file} cannot be read as TOML in UTF-8: {fault}") from None
    for key in table:
        if key not in known:
            raise _unknown(f"{_plain_name(key)} in {file}", "setting", key, known)
    return {known[key]: value for key, value in table.items()}


# --- errors ---


def _wrong(field: str, value: object, expected: str) -> SettingsError:
    return SettingsError(f"{_full_name(field)} must be {expected}, not {_shown(value)}")


def _first_error(error: ValidationError) -> SettingsError:
    """The first error. A misspelled member comes first, because a required member is then missing too."""
    faults = error.errors(include_url=False)
    fault = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    first, *members = fault["loc"]
    field = str(first) + "".join(f"[{part}]" if isinstance(part, int) else f".{_plain_name(part)}" for part in members)
    if fault["type"] == "extra_forbidden":
        return _unknown(_full_name(field), "member", str(members[-1]), IssuerSettings.model_fields)
    if fault["type"] == "missing":
        return SettingsError(f"{_full_name(field)} is required")
    # Only the list of issuers and its items are checked by pydantic itself, all others by settings/types.py.
    ours = "a list of objects (JSON in the environment, [[ISSUERS]] in a file)" if not members else "an object"
    expected = str(fault.get("ctx", {}).get("error", ours))
    if field.endswith(("secret_key", "introspection_client_secret")):
        size = len(str(fault["input"]))
        return SettingsError(f"{_full_name(field)} must be {expected}, not a value of {size} characters")
    return _wrong(field, fault["input"], expected)


def _unknown(shown: str, kind: str, name: str, known: Iterable[str]) -> SettingsError:
    """An error without the value: the value may be a secret for another program."""
    spelled = {candidate.upper().removeprefix(PREFIX): candidate for candidate in known}
    near = get_close_matches(name.upper().removeprefix(PREFIX), spelled, n=1)
    hint = f"; did you mean {spelled[near[0]]}?" if near else ""
    return SettingsError(f"{shown} is no {kind} of docs/settings.md{hint}")


def _full_name(field: str) -> str:
    """`issuers[0].audience` -> FHIRCAST_ISSUERS[0].audience"""
    first, dot, member = field.partition(".")
    return f"{PREFIX}{first.upper()}{dot}{member}"


def _plain_name(name: object) -> str:
    return str(name) if re.fullmatch(r"[\w-]{1,80}", str(name), re.ASCII) else _shown(str(name))


def _shown(value: object) -> str:
    """A wrong value for an error: short, on one line, without passwords and keys."""
    match value:
        case None:
            return "nothing"
        case str():
            shown = repr(mask(value))
            return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}... ({len(value)} characters)"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
        case int() if value.bit_length() > 64:  # Python refuses to print an integer of some thousand digits
            return "a number of more than 64 bits"
    return str(value).lower()
