"""Certificates that vouch for themselves, as a hospital's own CA does: `python tests/certificates.py FOLDER 127.0.0.1 [--expired]`."""

from __future__ import annotations

import argparse
import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)


def make_certificate(
    folder: Path,
    name: str | None = "127.0.0.1",
    *,
    expired: bool = False,
    protection: KeySerializationEncryption | None = None,
) -> tuple[Path, Path]:
    """A certificate for a host or an address, and its key: the files hub.pem and hub.key of the folder.

    Without a name, the certificate has the common name "hub" alone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(hours=-1 if expired else 1)
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=2))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if name is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    certfile, keyfile = folder / "hub.pem", folder / "hub.key"
    certfile.write_bytes(certificate.public_bytes(Encoding.PEM))
    keyfile.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection or NoEncryption()))
    return certfile, keyfile


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--expired", action="store_true")
    options = parser.parse_args()
    make_certificate(options.folder, options.name, expired=options.expired)
