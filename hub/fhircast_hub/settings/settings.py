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
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.wire.callback_url import Network
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
#: What the command line of the client library reads, often in the same shell.
CLIENTS = frozenset({"FHIRCAST_HUB", "FHIRCAST_TOPIC", "FHIRCAST_TOKEN"})

#: Characters of a wrong value that are shown.
SHOWN = 80


class SettingsError(Exception):
    """A setting the hub cannot start with. `str(error)` is one line: its name, what came, what was expected."""


# --- the settings ---


class IssuerSettings(BaseModel):
    """One authorization server whose tokens count; the members of an object in FHIRCAST_ISSUERS."""

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
        """All members, the secret too."""
        secret = self.introspection_client_secret
        return self.model_dump() | {"introspection_client_secret": secret.get_secret_value() if secret else None}


class Settings(BaseSettings):
    """The settings of docs/settings.md, in lower case. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: Host = "127.0.0.1"
    port: Port = 8080
    public_url: HubUrl = "http://localhost:8080/api/hub"
    issuers: tuple[IssuerSettings, ...] = ()
    store: Store = "sqlite:///fhircast-hub.db"
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

    #: Where each value came from, by field; load() knows.
    _origin: dict[str, str] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed: load() reads the world, with one kind of error, and `Settings()` is the defaults anywhere."""
        return (init_settings,)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """What no field can know alone. SettingsError is no ValueError, so it passes through pydantic as it is."""
        if self.default_lease > self.max_lease:
            raise _refusal("default_lease", self.default_lease, f"at most {PREFIX}MAX_LEASE, which is {self.max_lease}")
        for name, url in self._trusted_urls():
            if not self.allow_insecure and not is_safe(url):
                raise _refusal(name, url, f"https, for its host is not loopback (or {PREFIX}ALLOW_INSECURE=true)")
        _check_issuers(self.issuers)
        return self

    def _trusted_urls(self) -> Iterator[tuple[str, str]]:
        """Over these go tokens, patients and keys (SEC-4)."""
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
        """Where the hub is mounted: the path of hub.url, "" for the root."""
        return urlsplit(self.public_url).path

    @property
    def ws_base(self) -> str:
        """hub.url with the scheme of its WebSockets (SUB-1)."""
        return "ws" + self.public_url.removeprefix("http")

    @property
    def store_path(self) -> Path | None:
        """The database file, its name taken as written; None where everything stays in memory."""
        return None if self.store == "memory:" else Path(self.store.removeprefix("sqlite:///"))

    @property
    def all_bytes(self) -> int:
        """The bytes that all sessions may hold: those of the setting, else half of the memory that the process may take."""
        return self.max_bytes or available() // 2

    @property
    def webhook_networks(self) -> tuple[Network, ...]:
        """Where callbacks may be beside the public internet."""
        return tuple(map(ip_network, self.webhook_allowed_networks))

    @property
    def no_webhook_networks(self) -> tuple[Network, ...]:
        """Where callbacks may not be, public or not."""
        return tuple(map(ip_network, self.webhook_forbidden_networks))

    def rules(self) -> Rules:
        """The settings that the core's decisions depend on."""
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
        """All settings by their full name as `{"value", "from"}`, fit to be shown; from is env, file, default or code."""
        origin = dict.fromkeys(self.model_fields_set, "code") | self._origin
        shown = self.model_dump(mode="json") | {"max_bytes": self.all_bytes}
        return {name: {"value": shown[field], "from": origin.get(field, "default")} for name, field in NAMES.items()}


#: The full names, and the field of each.
NAMES = {PREFIX + field.upper(): field for field in Settings.model_fields}
#: Settings that are JSON in the environment.
LISTS = frozenset(
    {"issuers", "cors_origins", "webhook_allowed_networks", "webhook_forbidden_networks", "trusted_proxies"}
)


def _check_issuers(issuers: tuple[IssuerSettings, ...]) -> None:
    asked = [index for index, issuer in enumerate(issuers) if issuer.introspection_endpoint]
    if len(asked) > 1:
        # AUT-14: an opaque token does not say whose it is.
        name = f"issuers[{asked[1]}].introspection_endpoint"
        raise _refusal(name, issuers[asked[1]].introspection_endpoint, "it at one issuer at most")
    seen: set[str] = set()
    realms = Counter({issuer.issuer: issuer.realm or issuer.issuer for issuer in issuers}.values())
    for index, issuer in enumerate(issuers):
        if issuer.issuer in seen:
            raise _refusal(f"issuers[{index}].issuer", issuer.issuer, "each issuer once")
        seen.add(issuer.issuer)
        # AUT-9: the same person must have the same name at both, and only who sets them up can know which claim that is.
        if realms[issuer.realm or issuer.issuer] > 1 and "user_claim" not in issuer.model_fields_set:
            raise _refusal(f"issuers[{index}].user_claim", None, "a claim's name, for its realm has several issuers")


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
        if not name.upper().startswith(PREFIX) or name in CLIENTS:
            continue
        if name not in NAMES:
            raise SettingsError(f"{_name(name)}: {_unknown('setting', name, NAMES)}")
        given[NAMES[name]] = _read_json(name, text) if NAMES[name] in LISTS else text
    return given


def _read_json(name: str, text: str) -> object:
    """The text may hold what should not be shown, so an error tells its length and the place."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        fault = f"{error.msg} at line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError) as error:
        fault = type(error).__name__
    raise SettingsError(f"{name}: got {len(text)} characters that are not JSON ({fault}), expected a JSON list")


def _read_file(path: Path) -> dict[str, Any]:
    known = {field.upper(): field for field in Settings.model_fields}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        place = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        fault = getattr(error, "strerror", None) or place
        raise SettingsError(f"settings file {_show(str(path))}: got {fault}, expected a TOML file in UTF-8") from None
    for key in table:
        if key not in known:
            raise SettingsError(f"{_name(key)} in {_show(str(path))}: {_unknown('setting', key, known)}")
    return {known[key]: value for key, value in table.items()}


# --- how refusals read ---


def _refusal(field: str, got: object, expected: str) -> SettingsError:
    return SettingsError(f"{_full(field)}: got {_show(got)}, expected {expected}")


def _explain(error: ValidationError) -> SettingsError:
    """The first fault, but a misspelled member before the one that is missing for it."""
    faults = error.errors(include_url=False)
    fault = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    first, *members = fault["loc"]
    field = str(first) + "".join(f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in members)
    if fault["type"] == "extra_forbidden":
        return SettingsError(f"{_full(field)}: {_unknown('member', str(members[-1]), IssuerSettings.model_fields)}")
    if fault["type"] == "missing":
        return _refusal(field, None, "it in every issuer")
    # Only the list of issuers and its items are read without a reader of ours.
    objects = "a list of objects (JSON in the environment, [[ISSUERS]] in a file)"
    expected = str(fault.get("ctx", {}).get("error", objects))
    if field.endswith(("secret_key", "introspection_client_secret")):
        return SettingsError(
            f"{_full(field)}: got a value of {len(str(fault['input']))} characters, expected {expected}"
        )
    return _refusal(field, fault["input"], expected)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Only the name: the value may be a secret that belongs elsewhere."""
    spelled = {candidate.upper().removeprefix(PREFIX): candidate for candidate in known}
    near = get_close_matches(name.upper().removeprefix(PREFIX), spelled, n=1)
    hint = f"; did you mean {spelled[near[0]]}?" if near else ""
    return f"got a name that is not known, expected a {kind} of docs/settings.md{hint}"


def _full(field: str) -> str:
    """`issuers[0].audience` -> FHIRCAST_ISSUERS[0].audience"""
    first, dot, member = field.partition(".")
    return f"{PREFIX}{first.upper()}{dot}{member}"


def _name(name: object) -> str:
    return str(name) if re.fullmatch(r"[\w-]{1,80}", str(name), re.ASCII) else _show(str(name))


def _show(value: object) -> str:
    """A wrong value: short, on one line, without what may be secret in it."""
    match value:
        case None:
            return "nothing"
        case str():
            shown = repr(mask(value))
            return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}... ({len(value)} characters)"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
        case int() if value.bit_length() > 64:  # Python refuses to print one of some thousand digits
            return "a number of more than 64 bits"
    return str(value).lower()
