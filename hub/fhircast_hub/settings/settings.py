"""The settings of a deployment: FHIRCAST_* in the environment, before a TOML file, before the defaults.

reading.py reads them, and combinations.py checks them against each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.wire.callback_url import Network
from fhircast_hub.settings.database_url import is_database, parse
from fhircast_hub.settings.errors import PREFIX
from fhircast_hub.settings.issuers import IssuerSettings
from fhircast_hub.settings.machine_memory import available
from fhircast_hub.settings.types import (
    AuditSink,
    Count,
    FhirVersion,
    Host,
    HubUrl,
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
    one_of,
)

#: Variables of the client library's command line. One shell often has both.
CLIENTS = frozenset({"FHIRCAST_HUB", "FHIRCAST_TOPIC", "FHIRCAST_TOKEN"})


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
    secret_key_file: Text | None = None
    derive_opens: Switch = True
    derive_closes: Switch = True
    fhir_version: FhirVersion = None
    audit: AuditSink | None = None
    audit_token_file: Text | None = None
    audit_cert_file: Text | None = None
    audit_key_file: Text | None = None
    console: Switch = False
    console_issuer: Url | None = None
    console_client_id: Text | None = None
    rate_limit_token: Number = 600
    rate_limit_address: Number = 6000
    trusted_proxies: Networks = ()
    allow_insecure: Switch = False
    log_format: Annotated[str, one_of("json", "console")] = "json"
    log_level: Annotated[str, one_of("debug", "info", "warning", "error", "critical")] = "info"

    #: The source of each value that load() read: "env" or "file", by field.
    _origin: dict[str, str] = {}
    #: The file that load() read.
    _file: Path | None = None
    #: The only line of store_password_file, where load() read the settings.
    _store_password: SecretStr | None = None

    @property
    def asks_over_tls(self) -> bool:
        """Whether the hub sends requests to an https URL of these settings."""
        return any(url.startswith("https:") for name, url in self.trusted_urls() if name != "public_url")

    def trusted_urls(self) -> Iterator[tuple[str, str]]:
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
    def plain_secret_key(self) -> str | None:
        """SECRET_KEY, unmasked. None: there is none."""
        return self.secret_key.get_secret_value() if self.secret_key else None

    @property
    def is_shared(self) -> bool:
        """Whether many nodes share the store."""
        return is_database(self.store)

    @property
    def audit_certificate(self) -> tuple[str, str] | None:
        """The files with the hub's certificate for the audit trail's server, and with its key. None: no certificate is shown."""
        return (self.audit_cert_file, self.audit_key_file) if self.audit_cert_file and self.audit_key_file else None

    @property
    def store_password(self) -> str | None:
        """The password of a shared store, from its file or else from its URL. None: neither has one."""
        if self._store_password is not None:
            return self._store_password.get_secret_value()
        return parse(self.store).password if self.is_shared else None

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

    def file_of(self, field: str) -> Path | None:
        """The file of settings that has the value of a field. None: the value is of the environment, or the default."""
        return self._file if self._origin.get(field) == "file" else None

    def is_from_environment(self, field: str) -> bool:
        """Whether the value of a field was read in the environment."""
        return self._origin.get(field) == "env"

    def hint(self, *fields: str) -> str:
        """How to give the first of these settings, to end an error, where a file was perhaps forgotten. "": no file was."""
        is_given = any(field in self.model_fields_set for field in fields)
        return "" if self._file or is_given else f"; give --config FILE, or {PREFIX}{fields[0].upper()}"

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
