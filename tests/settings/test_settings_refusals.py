"""A wrong setting is one line that names the setting."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.reading import load
from fhircast_hub.settings.settings import Settings
from tests.certificates import make_certificate
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
#: Setting, value, and parts of the line.
BAD: list[tuple[str, Any, str]] = [
    ("PORT", "80800", "must be a whole number from 0 to 65535 … not '80800'"),
    ("PORT", "-1", "must be a whole number … not '-1'"),
    ("PORT", "", "must be a whole number … not ''"),
    ("PORT", " 80", "must be a whole number … not ' 80'"),
    ("PORT", "8_0", "must be a whole number … not '8_0'"),
    ("PORT", "٨٠", "must be a whole number"),
    ("PORT", "tcp://10.0.0.1:80", "must be a whole number … not 'tcp://10.0.0.1:80'"),
    *((name, "0", "must be a whole number from 1 to … not '0'") for name in COUNTS),
    *((name, "2.5", "must be a whole number from 1 to … not '2.5'") for name in COUNTS),
    ("ACK_POLICY", "loose", "must be one of strict, lenient, off … not 'loose'"),
    ("ACK_POLICY", "", "must be one of strict, lenient, off … not ''"),
    ("QUEUE_BYTES", "0", "must be a whole number from 1 to 2147483647 … not '0'"),
    ("MAX_BODY_BYTES", "1" * 5000, "must be a whole number … 1111... (5000 characters)"),
    ("DEFAULT_LEASE", "86401", "must be at most FHIRCAST_MAX_LEASE (86400), not 86401"),
    ("ALLOW_INSECURE", "1", "must be true or false … not '1'"),
    ("FHIR_VERSION", "R6", "must be one of DSTU1, DSTU2, STU3, R4, R4B, R5, none … not 'R6'"),
    ("LOG_FORMAT", "xml", "must be one of json, console … not 'xml'"),
    ("LOG_LEVEL", "trace", "must be one of debug, info, warning, error, critical"),
    ("HOST", "", "must be the IP address … not ''"),
    ("HOST", "[::1]", "must be the IP address (without brackets) … not '[::1]'"),
    ("HOST", "a b\nc", r"not 'a b\nc'"),
    ("STORE", "redis://:hunter2@cache/0", "must be memory:, sqlite:///path … not 'redis://***@cache/0'"),
    ("STORE", "sqlite:///:memory:", "must be memory:, sqlite:///path"),
    ("STORE", "sqlite:///", "must be memory:, sqlite:///path"),
    ("STORE", "sqlite:///dir/", "must be memory:, sqlite:///path"),
    ("STORE", "sqlite:///hub.db?mode=ro", "must be memory:, sqlite:///path"),
    ("STORE", "sqlite:///\udcff.db", r"must be memory:, sqlite:///path … not 'sqlite:///\udcff.db'"),
    ("PUBLIC_URL", "hub.example/api/hub", "must be an absolute http(s) URL"),
    ("PUBLIC_URL", "ftp://hub.example", "must be an absolute http(s) URL"),
    ("PUBLIC_URL", "https://", "must be an absolute http(s) URL"),
    ("PUBLIC_URL", "https://hub.example:port", "must be an absolute http(s) URL"),
    ("PUBLIC_URL", "https://hub.example:70000", "must be an absolute http(s) URL"),
    ("PUBLIC_URL", "https://[::1", "must be an absolute http(s) URL"),
    ("PUBLIC_URL", "https://hub.exa\nmple/", "must be an absolute http(s) URL"),
    ("PUBLIC_URL", "https://me:hunter2@hub.example", "must be an absolute http(s) URL … not 'https://***@hub.example'"),
    ("PUBLIC_URL", "https://hub.example/?key=hunter2", "must be an absolute … not 'https://hub.example/?***'"),
    ("PUBLIC_URL", "https://hub.example/?", "without user, query, or fragment"),
    ("PUBLIC_URL", "https://hub.example/#a", "without user, query, or fragment"),
    ("PUBLIC_URL", "https://hub.example/a%20b", "with a plain path"),
    ("PUBLIC_URL", "https://hub.example/a//b", "with a plain path"),
    ("PUBLIC_URL", "https://hub.example/a/../b", "with a plain path"),
    ("PUBLIC_URL", "http://hub.example/api/hub", "must be an https URL, because the host is not loopback"),
    ("PUBLIC_URL", "http://localhost.example", "must be an https URL, because the host is not loopback"),
    ("PUBLIC_URL", "http://127.0.0.1.example", "must be an https URL, because the host is not loopback"),
    ("CORS_ORIGINS", "*", "must be a JSON list, not 1 characters that are not JSON"),
    ("CORS_ORIGINS", "https://a.example", "characters that are not JSON"),
    ("CORS_ORIGINS", '"*"', "must be a list of origins such as … not '*'"),
    ("CORS_ORIGINS", ["https://a.example/"], "must be a list of origins such as … not a list of 1"),
    ("CORS_ORIGINS", ["*", "https://a.example"], "must be a list of origins such as … not a list of 2"),
    ("CORS_ORIGINS", [1], "must be a list of origins such as"),
    (
        "ISSUERS",
        '[{"introspection_client_secret": "hunter2"',
        "must be a JSON list, not 42 characters that are not JSON",
    ),
    ("ISSUERS", "[" * 100_000, "must be a JSON list, not 100000 characters that are not JSON"),
    ("ISSUERS", ISSUER, "must be a list of objects … not an object"),
    ("ISSUERS", ["https://login.example"], "FHIRCAST_ISSUERS[0] must be an object, not 'https://login.example'"),
    ("ISSUERS", issuers({"issuer": None}), "FHIRCAST_ISSUERS[0].issuer is required"),
    (
        "ISSUERS",
        issuers({}, {"issuer": "https://b.example", "audience": None}),
        "FHIRCAST_ISSUERS[1].audience is required",
    ),
    (
        "ISSUERS",
        issuers({"audience": []}),
        "[0].audience … must be the audience of the issuer's tokens … not a list of 0",
    ),
    ("ISSUERS", issuers({"audience": ""}), "[0].audience … must be the audience of the issuer's tokens … not ''"),
    ("ISSUERS", issuers({"audience": ["a", ""]}), "[0].audience … must be the audience … not a list of 2"),
    ("ISSUERS", issuers({"issuer": None, "isuer": "x"}), "FHIRCAST_ISSUERS[0].isuer is no member of docs/settings.md"),
    ("ISSUERS", issuers({"isuer": "x"}), "is no member of docs/settings.md; did you mean issuer?"),
    (
        "ISSUERS",
        issuers({"client_secret": "hunter2"}),
        "FHIRCAST_ISSUERS[0].client_secret is no member of docs/settings.md",
    ),
    ("ISSUERS", issuers({"issuer": "login.example"}), "[0].issuer … must be an absolute … not 'login.example'"),
    ("ISSUERS", issuers({"issuer": "https://a.example?p=1"}), "[0].issuer … not 'https://a.example?***'"),
    ("ISSUERS", issuers({"issuer": "http://a.example"}), "[0].issuer … must be an https URL … not 'http://a.example'"),
    (
        "ISSUERS",
        issuers({"jwks_uri": "http://a.example"}),
        "[0].jwks_uri … must be an https URL … not 'http://a.example'",
    ),
    ("ISSUERS", issuers({"jwks_uri": "https://u:hunter2@a/k"}), "[0].jwks_uri … not 'https://***@a/k'"),
    ("ISSUERS", issuers({"user_claim": ""}), "[0].user_claim … must be text that is not empty … not ''"),
    ("ISSUERS", issuers({"user_claim": 1}), "[0].user_claim … must be text … not 1"),
    ("ISSUERS", issuers({"realm": " a"}), "[0].realm … must be text … not ' a'"),
    ("ISSUERS", issuers({"fhir_base": "Practitioner"}), "[0].fhir_base … must be an absolute … not 'Practitioner'"),
    ("ISSUERS", issuers({"system_clients": "a"}), "[0].system_clients … must be a list of client ids … not 'a'"),
    ("ISSUERS", issuers({}, {}), "FHIRCAST_ISSUERS[1].issuer repeats 'https://login.example'"),
    ("PROT", "80", "FHIRCAST_PROT is no setting of docs/settings.md; did you mean FHIRCAST_PORT?"),
    ("WEBHOOKS", "on", "must be true or false … not 'on'"),
    ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8", "characters that are not JSON"),
    ("WEBHOOK_ALLOWED_NETWORKS", '"10.0.0.0/8"', "must be a list of networks such as … not '10.0.0.0/8'"),
    ("WEBHOOK_ALLOWED_NETWORKS", ["10.0.0.1/8"], "must be a list of networks such as … not a list of 1"),
    ("WEBHOOK_ALLOWED_NETWORKS", ["10.0.0.0/33"], "must be a list of networks … not a list of 1"),
    ("WEBHOOK_ALLOWED_NETWORKS", ["hospital.example"], "must be a list of networks … not a list of 1"),
    ("WEBHOOK_ALLOWED_NETWORKS", ["10.0.0.0/8", ""], "must be a list of networks … not a list of 2"),
    ("WEBHOOK_ALLOWED_NETWORKS", [167772160], "must be a list of networks … not a list of 1"),
    ("WEBHOOK_ALLOWED_NETWORKS", {"10.0.0.0/8": 1}, "must be a list of networks … not an object"),
    (
        "SECRET_KEY",
        "hunter2",
        "FHIRCAST_SECRET_KEY must be text of at least 32 characters … not a value of 7 characters",
    ),
    ("SECRET_KEY", "", "must be text of at least 32 characters … not a value of 0 characters"),
    ("SECRET_KEY", "hunter2" * 4 + "abc", "not a value of 31 characters"),
    ("SECRET_KEY", "hunter2" * 10 + "\n", "not a value of 71 characters"),
    ("SECRETKEY", "hunter2" * 10, "is no setting of docs/settings.md; did you mean FHIRCAST_SECRET_KEY?"),
    ("AUDIT", "http://fhir.example", "must be an https URL … not 'http://fhir.example'"),
    ("A\nB", "x", r"'FHIRCAST_A\nB' is no setting of docs/settings.md"),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD, ids=[f"{name}-{words}" for name, _, words in BAD])
def test_a_bad_setting_is_one_line_that_names_it_and_shows_no_secret(name: str, value: Any, words: str) -> None:
    line = refusal(**{name: value})
    assert all(part in line for part in words.split(" … "))
    assert repr(f"FHIRCAST_{name}")[1:-1] in line
    assert "hunter2" not in line
    assert len(line) < 300


@pytest.mark.req("SEC-3")
def test_the_names_of_the_client_are_no_settings() -> None:
    """Both are used in one shell; other names that begin so stay refused."""
    environ = {"FHIRCAST_HUB": "x", "FHIRCAST_TOPIC": "x", "FHIRCAST_TOKEN": "hunter2"}
    assert load(None, environ) == Settings()
    with pytest.raises(SettingsError, match="FHIRCAST_TOKENS is no setting"):
        load(None, {"FHIRCAST_TOKENS": "x"})


@pytest.mark.parametrize("name", ["fhircast_port", "Fhircast_Port", "FHIRCAST_port", "FHIRCAST_"])
def test_a_variable_that_almost_is_a_setting_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="is no setting of"):
        load(None, {name: "1"})


#: A file's text, and parts of the line.
BAD_FILES = [
    ("PORT = 65536", "FHIRCAST_PORT must be a whole number from 0 to 65535 … not 65536"),
    ("PORT = true", "FHIRCAST_PORT must be a whole number … not true"),
    ("PORT = 80.0", "FHIRCAST_PORT must be a whole number … not 80.0"),
    ("PORT = 2026-01-31", "FHIRCAST_PORT must be a whole number … not 2026-01-31"),
    ("PORT = 0x" + "f" * 9000, "FHIRCAST_PORT must be a whole number … not a number of more than 64 bits"),
    ("PORT = [1]", "FHIRCAST_PORT must be a whole number … not a list of 1"),
    ("HOST = 1", "FHIRCAST_HOST must be the IP address … not 1"),
    ("DERIVE_OPENS = 1", "FHIRCAST_DERIVE_OPENS must be true or false … not 1"),
    ("PUBLIC_URL = {}", "FHIRCAST_PUBLIC_URL must be an absolute http(s) URL … not an object"),
    ('ISSUERS = "[]"', "FHIRCAST_ISSUERS must be a list of objects … not '[]'"),
    ('[[ISSUERS]]\nissuer = "https://a.example"', "FHIRCAST_ISSUERS[0].audience is required"),
    ("port = 80", "port in "),
    ("port = 80", "did you mean PORT?"),
    ("FHIRCAST_PORT = 80", "did you mean PORT?"),
    ("[hub]\nPROT = 80", "hub in "),
    ("PORT 80", "hub.toml' cannot be read as TOML in UTF-8: Expected '=' after a key"),
    ("PORT = 1\nPORT = 2", "Cannot overwrite a value"),
    ("PORT = " + "9" * 5000, "cannot be read as TOML in UTF-8: ValueError"),
    ("PORT = " + "[" * 50_000, "cannot be read as TOML in UTF-8: RecursionError"),
]


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize(("text", "words"), BAD_FILES, ids=[words for _, words in BAD_FILES])
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_file(tmp_path, text)
    assert all(part in str(caught.value) for part in words.split(" … "))
    assert str(caught.value).isprintable()


#: A file, and the settings that stand in its tables, with the head of the table.
IN_TABLES: list[tuple[str, list[tuple[str, str]]]] = [
    ('LOG_LEVEL = "debug"', [("LOG_LEVEL", "[[ISSUERS]]")]),
    ('log_level = "debug"\nLOG_LEVEL = "info"', [("LOG_LEVEL", "[[ISSUERS]]")]),
    ('fhircast_secret_key = "hunter2"', [("SECRET_KEY", "[[ISSUERS]]")]),
    ('FHIRCAST_SECRET_KEY = "hunter2"', [("SECRET_KEY", "[[ISSUERS]]")]),
    (
        'PORT = "x"\nSTORE = 1\n[[ISSUERS]]\nissuer = "https://b.example"\naudience = "hub"\nPORT = 1',
        [("PORT", "[[ISSUERS]]"), ("STORE", "[[ISSUERS]]")],
    ),
]


@pytest.mark.req("OPS-38", "SEC-13")
@pytest.mark.parametrize(("below", "found"), IN_TABLES, ids=[below for below, _ in IN_TABLES])
def test_a_setting_below_an_issuer_is_told_its_place(tmp_path: Path, below: str, found: list[tuple[str, str]]) -> None:
    """One line for each setting, and none for what follows from its place."""
    lines = refused_file(tmp_path, f'[[ISSUERS]]\nissuer = "https://a.example"\naudience = "hub"\n{below}')
    file = repr(str(tmp_path / "hub.toml"))
    assert lines == [
        f"{name} in settings file {file} is a setting: put {name} above the first {head}" for name, head in found
    ]


@pytest.mark.req("OPS-38")
@pytest.mark.parametrize(("head", "name", "place"), [("[hub]", "hub", "[hub]"), ("[[IS]]", "IS", "the first [[IS]]")])
def test_a_setting_in_another_table_is_told_its_place(tmp_path: Path, head: str, name: str, place: str) -> None:
    """The table itself has a line too."""
    inside, table = refused_file(tmp_path, f"{head}\nPORT = 80")
    assert inside.endswith(f" is a setting: put PORT above {place}")
    assert table.startswith(f"{name} in settings file ")


def refused_file(folder: Path, text: str) -> list[str]:
    """The lines about a file."""
    with pytest.raises(SettingsError) as caught:
        from_file(folder, text)
    assert "hunter2" not in str(caught.value)
    return list(caught.value.lines)


@pytest.mark.req("SEC-3")
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml' cannot be read as TOML in UTF-8: No such file or directory"):
        load(tmp_path / "none.toml", {})
    with pytest.raises(SettingsError, match="Is a directory"):
        load(tmp_path, {})
    (tmp_path / "latin.toml").write_bytes(b'HOST = "\xe9"')
    with pytest.raises(SettingsError, match="TOML in UTF-8: UnicodeDecodeError"):
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
        f"FHIRCAST_ISSUERS[{silent}].user_claim is required, because the realm has several issuers"
    )
    given[silent]["user_claim"] = "sub"  # the default, but said
    assert len(from_env(ISSUERS=given).issuers) == 2


@pytest.mark.req("SEC-3", "AUD-6", "AUD-7")
@pytest.mark.parametrize(
    ("sink", "line"),
    [
        (None, "FHIRCAST_AUDIT_TOKEN_FILE needs FHIRCAST_AUDIT to be the URL of a FHIR server"),
        ("-", "FHIRCAST_AUDIT_TOKEN_FILE needs FHIRCAST_AUDIT to be the URL of a FHIR server"),
        ("file:///var/log/audit", "FHIRCAST_AUDIT_TOKEN_FILE needs FHIRCAST_AUDIT to be the URL of a FHIR server"),
        ("http://127.0.0.1/fhir", None),
        ("https://fhir.example", None),
    ],
)
def test_a_token_is_for_a_fhir_server(tmp_path: Path, sink: str | None, line: str | None) -> None:
    (tmp_path / "token").write_text("hunter2")
    given = {"AUDIT_TOKEN_FILE": str(tmp_path / "token")} | ({"AUDIT": sink} if sink else {})
    if line is None:
        assert from_env(**given).audit == sink
    else:
        assert refusal(**given) == line


@pytest.mark.req("SEC-3", "AUD-7")
def test_a_certificate_is_for_a_fhir_server_with_tls_and_comes_with_its_key(tmp_path: Path) -> None:
    certificate, key = map(str, make_certificate(tmp_path))
    both = {"AUDIT_CERT_FILE": certificate, "AUDIT_KEY_FILE": key}
    assert from_env(AUDIT="https://fhir.example", **both).audit_certificate == (certificate, key)
    names = "FHIRCAST_AUDIT_CERT_FILE and FHIRCAST_AUDIT_KEY_FILE must be"
    alone = refusal(AUDIT="https://fhir.example", AUDIT_KEY_FILE=key)
    assert alone == f"{names} given together"
    missing = refusal(AUDIT="https://fhir.example", AUDIT_CERT_FILE="/none", AUDIT_KEY_FILE=key)
    assert missing == f"{names} a certificate and its key: No such file or directory"
    with pytest.raises(SettingsError) as caught:
        from_env(AUDIT="http://127.0.0.1/fhir", **both)
    assert caught.value.lines == tuple(
        f"FHIRCAST_AUDIT_{name}_FILE needs FHIRCAST_AUDIT to be an https URL" for name in ("CERT", "KEY")
    )
