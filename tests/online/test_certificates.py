"""OPS-25: until when certificates in files are good, and for whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509 import load_pem_x509_certificate

from fhircast_hub.online.certificates import check_certificates
from tests.certificates import make_certificate
from tests.settings.settings_world import from_env

HOUR = timedelta(hours=1)


@pytest.mark.req("OPS-25")
def test_the_end_of_a_certificate_is_told(tmp_path: Path) -> None:
    """The certificates of the tests are good for an hour. One that ends soon is to be renewed, one that has ended fails."""
    certificate, _ = make_certificate(tmp_path, "*.example.org")
    end = load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    now = end - HOUR
    settings = from_env(PUBLIC_URL="https://hub.example.org")
    (finding,) = check_certificates(settings, certificate, now - 30 * 24 * HOUR + HOUR / 2)
    assert not finding.is_ok
    assert finding.said.startswith("not good before ")
    (finding,) = check_certificates(settings, certificate, now)
    assert str(finding).startswith("warning ")
    assert finding.what == f"--ssl-certfile {certificate}"
    assert finding.said == f"good until {end:%Y-%m-%d %H:%M} UTC, 0 days, for *.example.org"
    assert finding.advice == "renew the certificate"
    (finding,) = check_certificates(settings, certificate, now + 2 * HOUR)
    assert (finding.is_ok, finding.advice) == (False, "renew the certificate")
    assert finding.said.startswith("expired at ")


@pytest.mark.req("OPS-25")
@pytest.mark.parametrize(
    ("name", "url", "is_covered"),
    [
        ("hub.example.org", "https://HUB.example.org:8443/api", True),
        ("hub.example.org", "https://hub.example.org./api", True),
        ("*.example.org", "https://a.hub.example.org", False),
        ("*.example.org", "https://example.org", False),
        ("hub.example.org", "https://hub.example.com", False),
        ("10.1.2.3", "https://10.1.2.3/", True),
        ("10.1.2.3", "https://hub.example.org/", False),
        ("::1", "https://[0:0::1]/", True),
    ],
)
def test_the_names_are_told_and_whether_the_public_url_is_among_them(
    tmp_path: Path, name: str, url: str, is_covered: bool
) -> None:
    """Clients refuse the certificate otherwise, so the check fails."""
    certificate, _ = make_certificate(tmp_path, name)
    (finding,) = check_certificates(from_env(PUBLIC_URL=url), certificate)
    assert finding.is_ok is is_covered
    assert finding.said.endswith(f", for {name}")
    assert ("of FHIRCAST_PUBLIC_URL is not among its names" in finding.advice) is not is_covered


@pytest.mark.req("OPS-25")
def test_a_certificate_with_a_common_name_alone_is_refused_by_clients(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path, None)
    (finding,) = check_certificates(from_env(PUBLIC_URL="https://hub"), certificate)
    assert not finding.is_ok
    assert finding.said.endswith(" days, without subjectAltName")
    assert finding.advice == (
        "clients ignore the common name (RFC 9525 and RFC 6125);"
        " make a certificate with hub of FHIRCAST_PUBLIC_URL in subjectAltName"
    )
    (finding,) = check_certificates(from_env(PUBLIC_URL="https://hub"), certificate, datetime.now(UTC) + 2 * HOUR)
    assert finding.advice.startswith("renew the certificate; clients ignore ")


@pytest.mark.req("OPS-25", "AUD-7")
def test_the_certificate_for_the_audit_trail(tmp_path: Path) -> None:
    certificate, key = map(str, make_certificate(tmp_path, expired=True))
    settings = from_env(AUDIT="https://fhir.example", AUDIT_CERT_FILE=certificate, AUDIT_KEY_FILE=key)
    (finding,) = check_certificates(settings, None)
    assert finding.what == f"FHIRCAST_AUDIT_CERT_FILE {certificate}"
    assert finding.said.startswith("expired at ")
    assert check_certificates(from_env(), None) == []
