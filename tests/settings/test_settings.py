"""Settings come from the environment, a file or the defaults."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.core.limits import Rules
from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.issuers import IssuerSettings
from fhircast_hub.settings.reading import load
from fhircast_hub.settings.serving import require_all
from fhircast_hub.settings.settings import NAMES, Settings
from tests.settings.settings_world import from_env, from_file, issuers

DOCS = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_without_anything_the_defaults_hold() -> None:
    assert load(None, {}) == Settings()


def test_rules_are_the_cores_own_defaults_unless_set() -> None:
    assert Settings().rules() == Rules()
    changed = from_env(QUEUE_BYTES="5000", QUEUE_MESSAGES="7", MAX_SUBSCRIPTIONS_PER_TOPIC="3", DERIVE_OPENS="false")
    assert changed.rules() == Rules(retained_bytes=5000, retained_messages=7, max_subscriptions=3, derive_opens=False)


@pytest.mark.req("SYN-4", "SYN-5", "SYN-7", "SYN-13", "CON-15")
def test_who_follows_is_decided_by_rules_that_can_be_set() -> None:
    given = {
        "ACK_TIMEOUT": 11,
        "ACK_STRIKES": 4,
        "RECONNECT_GRACE": 5,
        "HEARTBEAT_SECONDS": 31,
        "MAX_BUNDLE_ENTRIES": 6,
    }
    rules = Rules(ack_timeout=11, ack_strikes=4, reconnect_grace=5, heartbeat_seconds=31, max_entries=6)
    assert from_env(**given).rules() == rules


@pytest.mark.req("SUB-12", "SYN-13")
@pytest.mark.parametrize(("ping", "hold"), [("1", 45), ("15", 45), ("16", 48), ("100", 300)])
def test_what_a_dead_socket_may_have_missed_is_held_until_its_pings_tell(ping: str, hold: int) -> None:
    assert from_env(PING_SECONDS=ping).rules() == Rules(dead_socket_seconds=hold)


@pytest.mark.req("SYN-16")
def test_idle_sockets_are_kept_by_a_ping_before_cloud_gateways_cut_them() -> None:
    """Those cut after 20 s."""
    assert from_env().ping_seconds == 15
    assert from_env().rules() == Rules(dead_socket_seconds=45)


@pytest.mark.req("SYN-6")
@pytest.mark.parametrize("policy", Policy)
def test_every_policy_can_be_set(policy: Policy) -> None:
    assert Policy(from_env(ACK_POLICY=policy.value.upper()).ack_policy) is policy


def test_defaults_are_those_of_the_documentation() -> None:
    """`none` without quotes is no value, but that there is none."""
    rows = re.findall(r"^\| `(FHIRCAST_\w+)` \| (?:`(.*?)`|none) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _ in rows] == list(NAMES)
    assert load(None, {name: value for name, value in rows if value}).model_dump() == Settings().model_dump()


def test_examples_of_the_documentation_are_good_settings(tmp_path: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    one, two = (from_file(tmp_path, example) for example in re.findall(r"```toml\n(.*?)```", text, re.DOTALL))
    (exported,) = re.findall(r"^export FHIRCAST_ISSUERS='(.*)'$", text, re.MULTILINE)
    assert one.issuers == from_env(ISSUERS=exported).issuers
    assert {issuer.realm for issuer in two.issuers} == {"hospital"}


def test_environment_wins_over_file_over_default(tmp_path: Path) -> None:
    settings = from_file(tmp_path, "PORT = 1\nMAX_LEASE = 9000\n", FHIRCAST_PORT="2")
    assert (settings.port, settings.max_lease, settings.host) == (2, 9000, "127.0.0.1")
    shown = settings.masked()
    assert shown["FHIRCAST_PORT"] == {"value": 2, "from": "env"}
    assert shown["FHIRCAST_MAX_LEASE"] == {"value": 9000, "from": "file"}
    assert shown["FHIRCAST_HOST"] == {"value": "127.0.0.1", "from": "default"}


def test_variables_of_other_programs_are_not_looked_at() -> None:
    assert load(None, {"PORT": "x", "HUB_PORT": "y", "FHIR_BASE": "z"}) == Settings()


def test_settings_made_in_code_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIRCAST_PORT", "1")
    assert Settings().port == 8080
    assert Settings(port=0).masked()["FHIRCAST_PORT"] == {"value": 0, "from": "code"}


def test_settings_do_not_change_any_more() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]  # that is the point


def test_an_issuer_has_the_members_that_auth_wants() -> None:
    given = issuers({"system_clients": ["b", "a"], "audience": ["x", "y"]})
    (issuer,) = from_env(ISSUERS=given).issuers
    assert Issuer(**issuer.plain()) == Issuer(
        issuer="https://login.example", audience=("x", "y"), system_clients=frozenset("ab")
    )
    assert Settings(issuers=(issuer,)).issuers == (issuer,)
    of_settings_alone = {"introspection_client_secret_file"}
    assert set(IssuerSettings.model_fields) - of_settings_alone == set(Issuer.__struct_fields__)


@pytest.mark.parametrize(
    ("url", "path", "ws"),
    [
        ("http://localhost:8080/api/hub", "/api/hub", "ws://localhost:8080/api/hub"),
        ("https://hub.example/api/hub/", "/api/hub", "wss://hub.example/api/hub"),
        ("https://hub.example", "", "wss://hub.example"),
        ("https://hub.example/", "", "wss://hub.example"),
        ("http://[::1]:9/x", "/x", "ws://[::1]:9/x"),
    ],
)
def test_the_public_url_says_where_the_hub_is_and_where_its_sockets_are(url: str, path: str, ws: str) -> None:
    settings = from_env(PUBLIC_URL=url)
    assert (settings.hub_path, settings.ws_base) == (path, ws)


@pytest.mark.parametrize(
    ("store", "path"),
    [("memory:", None), ("sqlite:///hub.db", Path("hub.db")), ("sqlite:////var/lib/hub.db", Path("/var/lib/hub.db"))],
)
def test_the_store_is_memory_or_a_file(store: str, path: Path | None) -> None:
    assert from_env(STORE=store).store_path == path


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("PORT", "0", 0),
        ("PORT", "65535", 65535),
        ("HOST", "::", "::"),
        ("HOST", "hub-1.example", "hub-1.example"),
        ("ALLOW_INSECURE", "TRUE", True),
        ("FHIR_VERSION", "r4b", "R4B"),
        ("FHIR_VERSION", "none", None),
        ("LOG_LEVEL", "WARNING", "warning"),
        ("CORS_ORIGINS", [], ()),
        ("CORS_ORIGINS", ["https://a.example:8443", "http://[::1]:80"], ("https://a.example:8443", "http://[::1]:80")),
        ("DEFAULT_LEASE", "86400", 86400),
        ("WEBHOOKS", "False", False),
        ("WEBHOOK_ALLOWED_NETWORKS", [], ()),
        ("WEBHOOK_ALLOWED_NETWORKS", ["10.1.0.0/16", "fd00:1::/64"], ("10.1.0.0/16", "fd00:1::/64")),
    ],
)
def test_good_values_are_taken(name: str, value: Any, taken: object) -> None:
    assert getattr(from_env(**{name: value}), name.lower()) == taken


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.9.10:80", "[::1]:8080"])
def test_http_is_good_enough_on_this_machine(host: str) -> None:
    given = issuers({"issuer": f"http://{host}/a", "jwks_uri": f"http://{host}/b"})
    assert from_env(PUBLIC_URL=f"http://{host}/hub", ISSUERS=given).issuers


@pytest.mark.req("SEC-4")
def test_allow_insecure_takes_http_from_anywhere() -> None:
    given = issuers({"issuer": "http://a.example", "jwks_uri": "http://b.example"})
    assert from_env(PUBLIC_URL="http://hub.example", ISSUERS=given, ALLOW_INSECURE="true").allow_insecure


@pytest.mark.req("AUT-15")
def test_issuers_in_realms_of_their_own_need_to_say_nothing() -> None:
    given = issuers(*({"issuer": f"https://login-{number}.example"} for number in range(20)))
    assert len(from_env(ISSUERS=given).issuers) == 20


@pytest.mark.req("AUT-17")
def test_serving_needs_an_issuer() -> None:
    with pytest.raises(SettingsError, match=r"^FHIRCAST_ISSUERS is required: at least one issuer"):
        require_all(Settings())
    require_all(from_env(ISSUERS=issuers({})))


@pytest.mark.req("OPS-37")
def test_a_missing_setting_asks_for_the_file_unless_one_was_given(tmp_path: Path) -> None:
    """A setting that is there is not missing, wherever the setting came from."""
    hint = "; give --config FILE, or FHIRCAST_STORE"
    assert load(None, {}).hint("store") == hint
    assert from_env(STORE="memory:").hint("store") == ""
    assert from_file(tmp_path, "").hint("store") == ""
    assert from_env(SECRET_KEY="k" * 32).hint("secret_key", "secret_key_file") == ""
    with pytest.raises(SettingsError, match=r"issuer of tokens; give --config FILE, or FHIRCAST_ISSUERS; to try the"):
        require_all(load(None, {}))
    with pytest.raises(SettingsError, match=r"issuer of tokens; to try the hub out: fhircast-hub dev$"):
        require_all(from_file(tmp_path, ""))


@pytest.mark.req("SEC-1")
def test_what_is_shown_can_be_written_as_json_and_hides_what_may_be_a_key() -> None:
    given = issuers({"jwks_uri": "https://login.example/keys?code=hunter2", "system_clients": ["b", "a"]})
    settings = from_env(ISSUERS=given)
    shown = json.dumps(settings.masked())
    assert "hunter2" not in shown
    assert '"https://login.example/keys?***"' in shown
    assert '"system_clients": ["a", "b"]' in shown
    assert list(settings.masked()) == list(NAMES)
    assert settings.issuers[0].jwks_uri == "https://login.example/keys?code=hunter2"


@pytest.mark.req("SEC-1")
def test_the_secret_key_is_never_shown(tmp_path: Path) -> None:
    """Neither by check-config, nor by anything that prints, logs or dumps the settings; wherever it came from."""
    key = "hunter2-hunter2-hunter2-hunter2-hunter2"
    for settings in (from_env(SECRET_KEY=key), from_file(tmp_path, f'SECRET_KEY = "{key}"')):
        assert settings.secret_key is not None
        assert settings.secret_key.get_secret_value() == key
        shown = (json.dumps(settings.masked()), str(settings), repr(settings), f"{settings.model_dump()}")
        assert not [text for text in (*shown, settings.model_dump_json()) if "hunter2" in text]
    assert settings.masked()["FHIRCAST_SECRET_KEY"]["from"] == "file"
    for bad in ("12345678901234567890123456789012", '["hunter2-hunter2-hunter2-hunter2-hunter2"]', '"hunter2"', "true"):
        with pytest.raises(
            SettingsError, match=r"^FHIRCAST_SECRET_KEY must be text of .*, not a value of \d+ characters$"
        ) as line:
            from_file(tmp_path, f"SECRET_KEY = {bad}")
        assert "hunter2" not in str(line.value)


@pytest.mark.req("SEC-2", "SEC-5")
def test_by_default_no_network_is_open_to_webhooks() -> None:
    """None of ours, and http to none."""
    assert Settings().webhook_networks == ()
    assert from_env(WEBHOOK_ALLOWED_NETWORKS=["10.1.0.0/16"]).webhook_networks == (ip_network("10.1.0.0/16"),)
    assert Settings().no_webhook_networks == ()
    assert from_env(WEBHOOK_FORBIDDEN_NETWORKS=["8.8.0.0/16"]).no_webhook_networks == (ip_network("8.8.0.0/16"),)
