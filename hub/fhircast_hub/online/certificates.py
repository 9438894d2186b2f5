"""Checks of certificates in files: for whom and until when they are good."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from fhircast_hub.online.finding import WARNING, Finding
from fhircast_hub.settings.settings import Settings

#: Days before its end when a certificate should be renewed.
RENEWED_DAYS = 14
#: A host's name, or an address. A network never covers a host.
_Name = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network


def check_certificates(settings: Settings, certificate: Path | None, now: datetime | None = None) -> list[Finding]:
    """Findings of the hub's own certificate, and of that for the audit trail's server. The files are usable."""
    now = now or datetime.now(UTC)
    findings = []
    if certificate is not None:
        host = urlsplit(settings.public_url).hostname or ""
        findings.append(_finding(f"--ssl-certfile {certificate}", certificate, now, host))
    if settings.audit_cert_file is not None:
        what = f"FHIRCAST_AUDIT_CERT_FILE {settings.audit_cert_file}"
        findings.append(_finding(what, Path(settings.audit_cert_file), now))
    return findings


def _finding(what: str, path: Path, now: datetime, host: str = "") -> Finding:
    try:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        names = _names(certificate)
    except (OSError, ValueError) as error:
        return Finding(False, what, f"cannot be read: {type(error).__name__}")
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    days = (end - now).days
    said, faults = f"good until {end:%Y-%m-%d %H:%M} UTC, {days} days", list[str]()
    if now < begin:
        said, faults = f"not good before {begin:%Y-%m-%d %H:%M} UTC", ["check the clock of this machine"]
    elif now >= end:
        said, faults = f"expired at {end:%Y-%m-%d %H:%M} UTC", ["renew the certificate"]
    if host:
        said += f", for {', '.join(map(str, names))}" if names else ", without subjectAltName"
        faults += _faults(names, host)
    if not faults and days < RENEWED_DAYS:
        return Finding(True, what, said, "renew the certificate", WARNING)
    return Finding(not faults, what, said, "; ".join(faults))


def _faults(names: list[_Name], host: str) -> list[str]:
    """Why clients do not take the certificate for this host."""
    if any(_covers(name, host) for name in names):
        return []
    make = f"make a certificate with {host} of FHIRCAST_PUBLIC_URL in subjectAltName"
    if not names:
        return [f"clients ignore the common name (RFC 9525 and RFC 6125); {make}"]
    return [f"clients refuse the certificate, since {host} of FHIRCAST_PUBLIC_URL is not among its names; {make}"]


def _names(certificate: x509.Certificate) -> list[_Name]:
    """The hosts and addresses that the certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *names.get_values_for_type(x509.IPAddress)]


def _covers(name: _Name, host: str) -> bool:
    """Whether a name of a certificate, which may begin with `*.`, is for this host (RFC 6125 section 6.4.3)."""
    try:
        return name == ip_address(host)
    except ValueError:
        name, host = str(name).lower(), host.lower().rstrip(".")
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])
