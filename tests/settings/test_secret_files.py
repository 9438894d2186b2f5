"""SEC-14: secrets in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.reading import load
from fhircast_hub.settings.secret_files import MAX_BYTES, open_to_all
from fhircast_hub.settings.settings import Settings
from tests.settings.settings_world import from_env, from_file, issuers, refusals

SECRET = "hunter2 hunter2 hunter2 hunter2 ås"
URL = "postgresql://hub@127.0.0.1/db"

#: An issuer that is asked about tokens.
ASKED = {
    "issuer": "https://b.example",
    "introspection_endpoint": "https://b.example/introspect",
    "introspection_client_id": "hub",
}


def given(name: str, path: str) -> dict[str, Any]:
    """Settings with this file, for FHIRCAST_..., or for the member of an issuer."""
    if name.islower():
        return {"ISSUERS": issuers({}, ASKED | {name: path})}
    return {"ISSUERS": issuers({}), "STORE": URL, name: path} | (
        {} if name.startswith("SECRET") else {"SECRET_KEY": "k" * 32}
    )


def found(name: str, settings: Settings) -> str | None:
    """The secret."""
    if name == "STORE_PASSWORD_FILE":
        return settings.store_password
    secret = settings.secret_key if name == "SECRET_KEY_FILE" else settings.issuers[1].introspection_client_secret
    return secret.get_secret_value() if secret else None


NAMES = ["SECRET_KEY_FILE", "STORE_PASSWORD_FILE", "introspection_client_secret_file"]
FULL = [*(f"FHIRCAST_{name}" for name in NAMES[:2]), f"FHIRCAST_ISSUERS[1].{NAMES[2]}"]
every_secret = pytest.mark.parametrize(("name", "full"), list(zip(NAMES, FULL, strict=True)), ids=NAMES)


@pytest.mark.req("SEC-14", "SEC-1")
@every_secret
@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=repr)
def test_a_secret_is_the_only_line_of_its_file(tmp_path: Path, name: str, full: str, end: str) -> None:
    """Without the end of the line. Nothing shows the secret."""
    file = tmp_path / "secret"
    file.write_bytes((SECRET + end).encode())
    settings = from_env(**given(name, str(file)))
    assert found(name, settings) == SECRET
    shown = [json.dumps(settings.masked()), str(settings), repr(settings), settings.model_dump_json()]
    assert not [text for text in shown if "hunter2" in text]
    assert [str(file) in text for text in shown] == [True] * 4


@pytest.mark.req("SEC-14")
def test_a_file_of_settings_names_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path begins at the working directory. The key comes from where its file was named."""
    (tmp_path / "key").write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    settings = from_file(tmp_path, 'SECRET_KEY_FILE = "key"')
    assert found("SECRET_KEY_FILE", settings) == SECRET
    shown = settings.masked()
    assert shown["FHIRCAST_SECRET_KEY"] == {"value": "**********", "from": "file"}
    assert shown["FHIRCAST_SECRET_KEY_FILE"] == {"value": "key", "from": "file"}


@pytest.mark.req("SEC-14")
@every_secret
def test_a_file_behind_links_as_kubernetes_makes_them(tmp_path: Path, name: str, full: str) -> None:
    """A volume has `key` -> `..data/key` and `..data` -> `..2026_11_30`."""
    data = tmp_path / "..2026_11_30"
    data.mkdir()
    (data / "key").write_text(SECRET)
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "key").symlink_to("..data/key")
    assert found(name, from_env(**given(name, str(tmp_path / "key")))) == SECRET


#: What is in the file, and the end of the line.
UNUSABLE: list[tuple[bytes | None, str]] = [
    (None, "which cannot be read: No such file or directory"),
    (b"", "and holds nothing"),
    (b"\n", "and holds nothing"),
    (b"hunter2\nhunter2\n", "and holds 15 characters with control characters"),
    (b"hunter2" * 5 + b"\n\n", "and holds 36 characters with control characters"),
    (b"hunter2\xff", "and holds bytes that are not UTF-8"),
    (b"hunter2" * MAX_BYTES, f"and holds more than {MAX_BYTES} bytes"),
]


@pytest.mark.req("SEC-3", "SEC-1", "SEC-14")
@every_secret
@pytest.mark.parametrize(("content", "words"), UNUSABLE, ids=[words for _, words in UNUSABLE])
def test_a_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, name: str, full: str, content: bytes | None, words: str
) -> None:
    """The line has the path and the reason. Nothing more is said of the secret that is missing."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    (line,) = refusals(given(name, str(file)))
    assert line.startswith(f"{full} names '{file}', which ")
    assert line.endswith(words)


@pytest.mark.req("SEC-14")
@every_secret
def test_a_folder_is_no_file(tmp_path: Path, name: str, full: str) -> None:
    line = f"{full} names '{tmp_path}', which cannot be read: Is a directory"
    assert refusals(given(name, str(tmp_path))) == [line]


@pytest.mark.req("SEC-14")
def test_a_file_is_held_to_what_its_setting_is_held_to(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2 ")
    lines = [*refusals(given(NAMES[0], str(file))), *refusals(given(NAMES[2], str(file)))]
    assert [line.partition("must hold ")[2] for line in lines] == [
        "text of at least 32 characters in one line, and holds 8 characters of something else",
        "text without white space around it in one line, and holds 8 characters of something else",
    ]


@pytest.mark.req("SEC-14", "SEC-1")
@every_secret
@pytest.mark.parametrize(
    "secret", ["hunter2" * 5, "hunter2/" * 5, "hunter2 ", "/hunter2" * 5, "/hunter2+hunter2==", "a\0b"]
)
def test_a_secret_in_the_place_of_a_path_is_not_shown(name: str, full: str, secret: str) -> None:
    (line,) = refusals(given(name, secret))
    assert line.startswith(f"{full} ")
    assert f"of {len(secret)} characters" in line


@pytest.mark.req("SEC-14")
def test_a_secret_and_its_file_are_too_many(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    key = given(NAMES[0], str(file)) | {"SECRET_KEY": "hunter2" * 5}
    assert refusals(key) == ["FHIRCAST_SECRET_KEY and FHIRCAST_SECRET_KEY_FILE are both set; one of them is enough"]
    password = given(NAMES[1], str(file)) | {"STORE": "postgresql://hub:hunter2@127.0.0.1/db"}
    assert refusals(password) == [
        "FHIRCAST_STORE must be a URL without a password, because FHIRCAST_STORE_PASSWORD_FILE is set"
    ]
    member = given(NAMES[2], str(file))
    member["ISSUERS"][1]["introspection_client_secret"] = "hunter2"
    assert refusals(member) == [
        "FHIRCAST_ISSUERS[1].introspection_client_secret and introspection_client_secret_file are both set; one of them is enough"
    ]


@pytest.mark.req("SEC-14", "AUD-6")
@pytest.mark.parametrize("content", ["hunter2 hunter2", "hunter2,", "hünter2", "=", ""])
def test_a_token_is_one_that_a_header_can_have(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    audit = {"AUDIT": "https://fhir.example", "AUDIT_TOKEN_FILE": str(tmp_path / "token")}
    (line,) = refusals(audit | {"ISSUERS": issuers({})})
    assert "must hold a bearer token in one line, and holds " in line


@pytest.mark.req("SEC-13", "SEC-14")
def test_all_files_are_read_in_one_run(tmp_path: Path) -> None:
    members = ASKED | {NAMES[2]: str(tmp_path / "c")}
    values = {NAMES[0]: str(tmp_path / "a"), NAMES[1]: str(tmp_path / "b"), "STORE": URL}
    lines = refusals(values | {"ISSUERS": issuers({}, members), "PORT": "x"})
    assert [line.partition(" ")[0] for line in lines] == ["FHIRCAST_PORT", FULL[0], FULL[2], FULL[1]]


@pytest.mark.req("SEC-14")
@every_secret
def test_who_may_read_a_file(tmp_path: Path, name: str, full: str) -> None:
    """Files that everybody may read are found. The files of Kubernetes are such, so none is refused."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    for mode, expected in ((0o600, []), (0o640, []), (0o644, [full]), (0o444, [full])):
        file.chmod(mode)
        found = open_to_all(from_env(**given(name, str(file))))
        assert found == [(each, str(file)) for each in expected]


@pytest.mark.req("SEC-14")
def test_keys_of_tls_are_secrets_too(tmp_path: Path) -> None:
    """The key of `--ssl-keyfile`, and the hub's key for the database."""
    file = tmp_path / "key"
    file.write_text(SECRET)
    file.chmod(0o644)
    settings = from_env(STORE=f"{URL}?sslkey={file}", SECRET_KEY="k" * 32)
    assert open_to_all(settings, file) == [("--ssl-keyfile", str(file)), ("sslkey of FHIRCAST_STORE", str(file))]
    assert open_to_all(settings, tmp_path / "none") == [("sslkey of FHIRCAST_STORE", str(file))]


@pytest.mark.req("SEC-14")
def test_a_misspelt_file_is_not_also_a_missing_secret(tmp_path: Path) -> None:
    lines = refusals({"ISSUERS": issuers({}), "STORE": URL, "SECRET_KEYFILE": "hunter2"})
    assert lines == [
        "FHIRCAST_SECRET_KEYFILE is no setting of docs/settings.md; did you mean FHIRCAST_SECRET_KEY_FILE?"
    ]


def test_load_raises_for_a_file() -> None:
    with pytest.raises(SettingsError, match=r"^FHIRCAST_SECRET_KEY_FILE names '/tmp/none/key', which cannot be read"):
        load(None, {"FHIRCAST_SECRET_KEY_FILE": "/tmp/none/key"})


@pytest.mark.req("SEC-14")
@pytest.mark.parametrize(
    ("text", "is_secret"),
    [
        (f"SECRET_KEY = '{'k' * 32}'", True),
        ("STORE = 'postgresql://hub:hunter2@127.0.0.1/db'\nSECRET_KEY_FILE = '{file}'", True),
        (f"STORE = '{URL}'\nSECRET_KEY_FILE = '{{file}}'\nSTORE_PASSWORD_FILE = '{{file}}'", False),
        ("[[ISSUERS]]\nintrospection_client_secret = 'hunter2'\n{asked}", True),
        ("[[ISSUERS]]\nintrospection_client_secret_file = '{file}'\n{asked}", False),
        ("LOG_LEVEL = 'debug'", False),
    ],
)
def test_a_file_of_settings_with_a_secret_is_one_too(tmp_path: Path, text: str, is_secret: bool) -> None:
    secret = tmp_path / "secret"
    secret.write_text("k" * 32)
    secret.chmod(0o600)
    asked = "\n".join(f"{name} = {json.dumps(value)}" for name, value in {**ASKED, "audience": "hub"}.items())
    file = tmp_path / "hub.toml"
    file.write_text(text.format(file=secret, asked=asked))
    file.chmod(0o644)
    assert open_to_all(load(file, {})) == ([("--config", str(file))] if is_secret else [])
    file.chmod(0o600)
    assert open_to_all(load(file, {})) == []
    if is_secret:  # a secret of the environment is not the file's
        file.chmod(0o644)
        key, url = {"FHIRCAST_SECRET_KEY": "e" * 32}, {"FHIRCAST_STORE": "memory:", "FHIRCAST_ISSUERS": "[]"}
        assert open_to_all(load(file, url if "SECRET_KEY_FILE" in text else {**key, **url})) == []
