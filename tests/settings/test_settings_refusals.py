"""A wrong setting is one line that names the setting."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.settings.settings import Settings, SettingsError, load
from tests.settings.settings_world import ISSUER, from_env, from_file, issuers


def refusal(**values: Any) -> str:
    """The line for these variables, which are wrong."""
    with pytest.raises(SettingsError) as caught:
        from_env(**values)
    line = str(caught.value)
    assert line.isprintable()
    return line


#: Settings of who follows, none of which may be nothing.
COUNTS = ("ACK_TIMEOUT", "ACK_STRIKES", "RECONNECT_GRACE", "PING_SECONDS", "HEARTBEAT_SECONDS", "MAX_BUNDLE_ENTRIES")
#: Setting, what came, and words of the line.
BAD: list[tuple[str, Any, str]] = [
    ("PORT", "80800", "got '80800', expected a whole number from 0 to 65535"),
    ("PORT", "-1", "got '-1', expected a whole number"),
    ("PORT", "", "got '', expected a whole number"),
    ("PORT", " 80", "got ' 80', expected a whole number"),
    ("PORT", "8_0", "got '8_0', expected a whole number"),
    ("PORT", "٨٠", "expected a whole number"),
    ("PORT", "tcp://10.0.0.1:80", "got 'tcp://10.0.0.1:80', expected a whole number"),
    *((name, "0", "got '0', expected a whole number from 1 to") for name in COUNTS),
    *((name, "2.5", "got '2.5', expected a whole number from 1 to") for name in COUNTS),
    ("ACK_POLICY", "loose", "got 'loose', expected one of strict, lenient, off"),
    ("ACK_POLICY", "", "got '', expected one of strict, lenient, off"),
    ("QUEUE_BYTES", "0", "got '0', expected a whole number from 1 to 2147483647"),
    ("MAX_BODY_BYTES", "1" * 5000, "1111... (5000 characters), expected a whole number"),
    ("DEFAULT_LEASE", "86401", "got 86401, expected at most FHIRCAST_MAX_LEASE, which is 86400"),
    ("ALLOW_INSECURE", "1", "got '1', expected true or false"),
    ("FHIR_VERSION", "R6", "got 'R6', expected one of DSTU1, DSTU2, STU3, R4, R4B, R5, none"),
    ("LOG_FORMAT", "xml", "got 'xml', expected one of json, console"),
    ("LOG_LEVEL", "trace", "expected one of debug, info, warning, error, critical"),
    ("HOST", "", "got '', expected the IP address"),
    ("HOST", "[::1]", "got '[::1]', expected the IP address (without brackets)"),
    ("HOST", "a b\nc", r"got 'a b\nc', expected"),
    ("STORE", "redis://:hunter2@cache/0", "got 'redis://***@cache/0', expected memory: or sqlite:///path"),
    ("STORE", "sqlite:///:memory:", "expected memory: or sqlite:///path"),
    ("STORE", "sqlite:///", "expected memory: or sqlite:///path"),
    ("STORE", "sqlite:///dir/", "expected memory: or sqlite:///path"),
    ("STORE", "sqlite:///hub.db?mode=ro", "expected memory: or sqlite:///path"),
    ("STORE", "sqlite:///\udcff.db", r"got 'sqlite:///\udcff.db', expected memory: or sqlite:///path"),
    ("PUBLIC_URL", "hub.example/api/hub", "expected an absolute http(s) URL"),
    ("PUBLIC_URL", "ftp://hub.example", "expected an absolute http(s) URL"),
    ("PUBLIC_URL", "https://", "expected an absolute http(s) URL"),
    ("PUBLIC_URL", "https://hub.example:port", "expected an absolute http(s) URL"),
    ("PUBLIC_URL", "https://hub.example:70000", "expected an absolute http(s) URL"),
    ("PUBLIC_URL", "https://[::1", "expected an absolute http(s) URL"),
    ("PUBLIC_URL", "https://hub.exa\nmple/", "expected an absolute http(s) URL"),
    ("PUBLIC_URL", "https://me:hunter2@hub.example", "got 'https://***@hub.example', expected an absolute http(s) URL"),
    ("PUBLIC_URL", "https://hub.example/?key=hunter2", "got 'https://hub.example/?***', expected an absolute"),
    ("PUBLIC_URL", "https://hub.example/?", "without user, query, or fragment"),
    ("PUBLIC_URL", "https://hub.example/#a", "without user, query, or fragment"),
    ("PUBLIC_URL", "https://hub.example/a%20b", "with a plain path"),
    ("PUBLIC_URL", "https://hub.example/a//b", "with a plain path"),
    ("PUBLIC_URL", "https://hub.example/a/../b", "with a plain path"),
    ("PUBLIC_URL", "http://hub.example/api/hub", "expected https, for its host is not loopback"),
    ("PUBLIC_URL", "http://localhost.example", "expected https, for its host is not loopback"),
    ("PUBLIC_URL", "http://127.0.0.1.example", "expected https, for its host is not loopback"),
    ("CORS_ORIGINS", "*", "got 1 characters that are not JSON"),
    ("CORS_ORIGINS", "https://a.example", "characters that are not JSON"),
    ("CORS_ORIGINS", '"*"', "got '*', expected a list such as"),
    ("CORS_ORIGINS", ["https://a.example/"], "got a list of 1, expected a list such as"),
    ("CORS_ORIGINS", ["*", "https://a.example"], "got a list of 2, expected a list such as"),
    ("CORS_ORIGINS", [1], "expected a list such as"),
    ("ISSUERS", '[{"introspection_client_secret": "hunter2"', "got 42 characters that are not JSON"),
    ("ISSUERS", "[" * 100_000, "got 100000 characters that are not JSON"),
    ("ISSUERS", ISSUER, "got an object, expected a list of objects"),
    ("ISSUERS", ["https://login.example"], "[0]: got 'https://login.example', expected a list of objects"),
    ("ISSUERS", issuers({"issuer": None}), "[0].issuer: got nothing, expected it in every issuer"),
    ("ISSUERS", issuers({}, {"audience": None}), "[1].audience: got nothing, expected it in every issuer"),
    ("ISSUERS", issuers({"audience": []}), "[0].audience: got a list of 0, expected the audience of its tokens"),
    ("ISSUERS", issuers({"audience": ""}), "[0].audience: got '', expected the audience of its tokens"),
    ("ISSUERS", issuers({"audience": ["a", ""]}), "[0].audience: got a list of 2, expected the audience"),
    ("ISSUERS", issuers({"issuer": None, "isuer": "x"}), "[0].isuer: got a name that is not known"),
    ("ISSUERS", issuers({"isuer": "x"}), "expected a member of docs/settings.md; did you mean issuer?"),
    ("ISSUERS", issuers({"client_secret": "hunter2"}), "[0].client_secret: got a name that is not known"),
    ("ISSUERS", issuers({"issuer": "login.example"}), "[0].issuer: got 'login.example', expected an absolute"),
    ("ISSUERS", issuers({"issuer": "https://a.example?p=1"}), "[0].issuer: got 'https://a.example?***', expected"),
    ("ISSUERS", issuers({"issuer": "http://a.example"}), "[0].issuer: got 'http://a.example', expected https"),
    ("ISSUERS", issuers({"jwks_uri": "http://a.example"}), "[0].jwks_uri: got 'http://a.example', expected https"),
    ("ISSUERS", issuers({"jwks_uri": "https://u:hunter2@a/k"}), "[0].jwks_uri: got 'https://***@a/k', expected"),
    ("ISSUERS", issuers({"user_claim": ""}), "[0].user_claim: got '', expected text that is not empty"),
    ("ISSUERS", issuers({"user_claim": 1}), "[0].user_claim: got 1, expected text"),
    ("ISSUERS", issuers({"realm": " a"}), "[0].realm: got ' a', expected text"),
    ("ISSUERS", issuers({"fhir_base": "Practitioner"}), "[0].fhir_base: got 'Practitioner', expected an absolute"),
    ("ISSUERS", issuers({"system_clients": "a"}), "[0].system_clients: got 'a', expected a list of client ids"),
    ("ISSUERS", issuers({}, {}), "[1].issuer: got 'https://login.example', expected each issuer once"),
    ("PROT", "80", "FHIRCAST_PROT: got a name that is not known, expected a setting of docs/settings.md; did you mean"),
    ("WEBHOOKS", "on", "got 'on', expected true or false"),
    ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8", "characters that are not JSON"),
    ("WEBHOOK_ALLOWED_NETWORKS", '"10.0.0.0/8"', "got '10.0.0.0/8', expected a list of networks such as"),
    ("WEBHOOK_ALLOWED_NETWORKS", ["10.0.0.1/8"], "got a list of 1, expected a list of networks such as"),
    ("WEBHOOK_ALLOWED_NETWORKS", ["10.0.0.0/33"], "got a list of 1, expected a list of networks"),
    ("WEBHOOK_ALLOWED_NETWORKS", ["hospital.example"], "got a list of 1, expected a list of networks"),
    ("WEBHOOK_ALLOWED_NETWORKS", ["10.0.0.0/8", ""], "got a list of 2, expected a list of networks"),
    ("WEBHOOK_ALLOWED_NETWORKS", [167772160], "got a list of 1, expected a list of networks"),
    ("WEBHOOK_ALLOWED_NETWORKS", {"10.0.0.0/8": 1}, "got an object, expected a list of networks"),
    (
        "SECRET_KEY",
        "hunter2",
        "FHIRCAST_SECRET_KEY: got a value of 7 characters, expected text of at least 32 characters",
    ),
    ("SECRET_KEY", "", "got a value of 0 characters, expected text of at least 32 characters"),
    ("SECRET_KEY", "hunter2" * 4 + "abc", "got a value of 31 characters, expected"),
    ("SECRET_KEY", "hunter2" * 10 + "\n", "got a value of 71 characters, expected"),
    ("SECRETKEY", "hunter2" * 10, "got a name that is not known, expected a setting of docs/settings.md; did you mean"),
    ("A\nB", "x", r"'FHIRCAST_A\nB': got a name that is not known"),
]


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize(("name", "value", "words"), BAD, ids=[f"{name}-{words}" for name, _, words in BAD])
def test_a_bad_setting_is_one_line_that_names_it_and_shows_no_secret(name: str, value: Any, words: str) -> None:
    line = refusal(**{name: value})
    assert words in line
    assert repr(f"FHIRCAST_{name}")[1:-1] in line
    assert "hunter2" not in line
    assert len(line) < 300


@pytest.mark.req("SEC-3")
@pytest.mark.req("SEC-3")
def test_the_names_of_the_client_are_no_settings() -> None:
    """Both are used in one shell; other names that begin so stay refused."""
    environ = {"FHIRCAST_HUB": "x", "FHIRCAST_TOPIC": "x", "FHIRCAST_TOKEN": "hunter2"}
    assert load(None, environ) == Settings()
    with pytest.raises(SettingsError, match="FHIRCAST_TOKENS: got a name that is not known"):
        load(None, {"FHIRCAST_TOKENS": "x"})


@pytest.mark.parametrize("name", ["fhircast_port", "Fhircast_Port", "FHIRCAST_port", "FHIRCAST_"])
def test_a_variable_that_almost_is_a_setting_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="got a name that is not known"):
        load(None, {name: "1"})


#: A file's text, and words of the line.
BAD_FILES = [
    ("PORT = 65536", "FHIRCAST_PORT: got 65536, expected a whole number from 0 to 65535"),
    ("PORT = true", "FHIRCAST_PORT: got true, expected a whole number"),
    ("PORT = 80.0", "FHIRCAST_PORT: got 80.0, expected a whole number"),
    ("PORT = 2026-01-31", "FHIRCAST_PORT: got 2026-01-31, expected a whole number"),
    ("PORT = 0x" + "f" * 9000, "FHIRCAST_PORT: got a number of more than 64 bits, expected a whole number"),
    ("PORT = [1]", "FHIRCAST_PORT: got a list of 1, expected a whole number"),
    ("HOST = 1", "FHIRCAST_HOST: got 1, expected the IP address"),
    ("DERIVE_OPENS = 1", "FHIRCAST_DERIVE_OPENS: got 1, expected true or false"),
    ("PUBLIC_URL = {}", "FHIRCAST_PUBLIC_URL: got an object, expected an absolute http(s) URL"),
    ('ISSUERS = "[]"', "FHIRCAST_ISSUERS: got '[]', expected a list of objects"),
    ('[[ISSUERS]]\nissuer = "https://a.example"', "FHIRCAST_ISSUERS[0].audience: got nothing"),
    ("port = 80", "port in "),
    ("port = 80", "did you mean PORT?"),
    ("FHIRCAST_PORT = 80", "did you mean PORT?"),
    ("[hub]\nPORT = 80", "hub in "),
    ("PORT 80", "hub.toml': got Expected '=' after a key"),
    ("PORT = 1\nPORT = 2", "Cannot overwrite a value"),
    ("PORT = " + "9" * 5000, "got ValueError, expected a TOML file in UTF-8"),
    ("PORT = " + "[" * 50_000, "got RecursionError, expected a TOML file in UTF-8"),
]


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize(("text", "words"), BAD_FILES, ids=[words for _, words in BAD_FILES])
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_file(tmp_path, text)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.req("SEC-3")
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"none\.toml': got No such file or directory, expected a TOML file in UTF-8"
    ):
        load(tmp_path / "none.toml", {})
    with pytest.raises(SettingsError, match="Is a directory"):
        load(tmp_path, {})
    (tmp_path / "latin.toml").write_bytes(b'HOST = "\xe9"')
    with pytest.raises(SettingsError, match="got UnicodeDecodeError"):
        load(tmp_path / "latin.toml", {})


@pytest.mark.req("SEC-3")
def test_no_parser_puts_a_value_into_its_message() -> None:
    """What tomllib says is shown as it is, so it may not quote what stands behind a key."""
    for text in ('K = "hunter2', "K = hunter2", 'K = "hunter2" x', 'K = "hunter2"\nK = "hunter2"', 'K = "hunter2\\q"'):
        with pytest.raises(tomllib.TOMLDecodeError) as caught:
            tomllib.loads(text)
        assert "hunter2" not in str(caught.value)


@pytest.mark.req("AUT-9", "SEC-3", "AUT-27")
@pytest.mark.parametrize(
    ("first", "second", "silent"),
    [
        ({"realm": "r", "user_claim": "upn"}, {"realm": "r"}, 1),
        ({"user_claim": "upn"}, {"realm": "https://login.example"}, 1),
        ({}, {"realm": "https://login.example", "user_claim": "upn"}, 0),
    ],
)
def test_two_issuers_in_a_realm_must_both_say_their_user_claim(
    first: dict[str, str], second: dict[str, str], silent: int
) -> None:
    given = issuers(first, second | {"issuer": "https://b.example"})
    assert refusal(ISSUERS=given) == (
        f"FHIRCAST_ISSUERS[{silent}].user_claim: got nothing, expected a claim's name, for its realm has several issuers"
    )
    given[silent]["user_claim"] = "sub"  # the default, but said
    assert len(from_env(ISSUERS=given).issuers) == 2
