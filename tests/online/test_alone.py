"""OPS-33, OPS-36, SEC-14: what `check-config` tells without asking a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.online.alone import check_alone
from tests.settings.settings_world import from_env, issuers


def lines(certificate: Path | None = None, key: Path | None = None, **settings: Any) -> list[str]:
    return [str(finding) for finding in check_alone(from_env(**settings), certificate, key)]


def realms(*named: str | None) -> list[str]:
    """The lines about issuers of these realms."""
    members = [
        {"issuer": f"https://{number}.example", "realm": realm, "user_claim": "hpr"}
        for number, realm in enumerate(named)
    ]
    return lines(ISSUERS=issuers(*members))


@pytest.mark.req("OPS-33")
def test_an_https_url_without_a_certificate_needs_a_proxy() -> None:
    assert lines(PUBLIC_URL="https://hub.example/api/hub", PORT="8443") == [
        "note    FHIRCAST_PUBLIC_URL https://hub.example/api/hub: without --ssl-certfile the hub speaks plain http, at"
        " 127.0.0.1 port 8443; a proxy before the hub must end TLS, or give --ssl-certfile and --ssl-keyfile"
    ]
    assert lines(PUBLIC_URL="http://127.0.0.1/api/hub") == []


@pytest.mark.req("OPS-36")
def test_each_realm_has_a_line_with_its_issuers() -> None:
    """An issuer without a realm is on its own. A single issuer needs no line."""
    assert realms("hospital", None, "hospital") == [
        "note    FHIRCAST_ISSUERS realm 'hospital': https://0.example (user_claim hpr), https://2.example"
        " (user_claim hpr); these issuers share their users",
        "note    FHIRCAST_ISSUERS realm 'https://1.example': https://1.example (user_claim hpr);"
        " its users are of this issuer alone",
    ]
    assert realms("hospital") == []


@pytest.mark.req("OPS-36")
@pytest.mark.parametrize("other", ["Hospital", "hos-pital", "hospital/", "hos pital", "hospital."])
def test_realms_of_nearly_the_same_name_are_a_warning(other: str) -> None:
    *_, warning = realms("hospital", other, "clinic")
    assert warning == (
        f"warning FHIRCAST_ISSUERS realms: 'hospital' and {other!r} differ in case, spaces or punctuation alone, and"
        " share no users; spell them alike if a user of one is the same user in the other"
    )


@pytest.mark.req("OPS-36")
@pytest.mark.parametrize("other", ["hosptial", "hospitl", "hospitale", "Hospitel", "hos-pitel"])
def test_a_slip_in_a_realm_is_a_warning(other: str) -> None:
    *_, warning = realms("hospital", other, "clinic")
    assert warning == (
        f"warning FHIRCAST_ISSUERS realms: 'hospital' and {other!r} are nearly alike, and share no users;"
        " spell them alike if a user of one is the same user in the other"
    )


#: Names that differ on purpose: in digits, in a letter that stands alone, in two letters, or as short names do.
APART = [
    ("hospital", "hospital2"),
    ("hospital-1", "hospital-2"),
    ("hospital-a", "hospital_b"),
    ("hospital", "hospital-a"),
    ("hospital-east", "hospital-west"),
    ("hospital", "clinic"),
    ("की", "के"),
    ("hus", "ous"),
    ("abcdefg", "abcdegfh"),
]


@pytest.mark.req("OPS-36")
@pytest.mark.parametrize(("one", "other"), APART)
def test_realms_that_differ_on_purpose_are_no_warning(one: str, other: str) -> None:
    assert [line.split()[0] for line in realms(one, other)] == ["note", "note"]


@pytest.mark.req("OPS-36")
def test_an_issuer_without_a_realm_is_near_to_none() -> None:
    """Its URL was not written as the name of a realm."""
    members = [{"issuer": f"https://login.{name}.example"} for name in ("north", "nortk")]
    assert [line.split()[0] for line in lines(ISSUERS=issuers(*members))] == ["note", "note"]


@pytest.mark.req("OPS-36")
@pytest.mark.parametrize(("other", "is_near"), [("hpr_nummer", True), ("HPR_number", True), ("sub", False)])
def test_claims_of_nearly_the_same_name_in_a_realm_are_a_warning(other: str, *, is_near: bool) -> None:
    members = [{"user_claim": "hpr_number"}, {"issuer": "https://b.example", "user_claim": other}]
    found = lines(ISSUERS=issuers(*({"realm": "hospital"} | each for each in members)))
    line = (
        f"warning FHIRCAST_ISSUERS realm 'hospital': the claims 'hpr_number' and {other!r} of user_claim are nearly"
        " alike; spell them alike if both mean the same claim"
    )
    assert found[1:] == ([line] if is_near else [])
    apart = lines(ISSUERS=issuers(*({"realm": str(number) * 9} | each for number, each in enumerate(members))))
    assert [each.split()[0] for each in apart] == ["note", "note"]


@pytest.mark.req("SEC-14")
def test_a_secret_that_every_user_can_read_is_a_warning(tmp_path: Path) -> None:
    """Each file has a line. None has the secret."""
    names = ["key", "password"]
    for name in names:
        (tmp_path / name).write_text("hunter2" * 5)
    settings: dict[str, Any] = {"SECRET_KEY_FILE": f"{tmp_path}/key", "STORE_PASSWORD_FILE": f"{tmp_path}/password"}
    for mode, count in ((0o640, 0), (0o644, 2)):
        for name in names:
            (tmp_path / name).chmod(mode)
        found = lines(STORE="postgresql://hub@127.0.0.1/hub", **settings)
        assert (
            found
            == [
                f"warning FHIRCAST_{setting}_FILE {tmp_path}/{name}: every user of this machine can read this secret;"
                " run chmod o-r on the file, and renew the secret"
                for setting, name in (("SECRET_KEY", "key"), ("STORE_PASSWORD", "password"))
            ][:count]
        )
