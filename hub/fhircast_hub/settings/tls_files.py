"""Files in PEM with a certificate and its key."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from fhircast_hub.settings.errors import Mistake


def check_pair(names: tuple[str, str], certificate: Path | None, key: Path | None) -> Iterator[Mistake]:
    """Why the files are no certificate and its key. `names` are the settings with their paths.

    A key with a passphrase is refused: nobody can be asked for it. Without both paths nothing is wrong.
    """
    if (certificate is None) != (key is None):
        yield Mistake(f"{names[0]} and {names[1]} must be given together")
    elif certificate is not None:
        try:
            # For the purpose of a server, no authorities are read.
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or error
            yield Mistake(f"{names[0]} and {names[1]} must be a certificate and its key: {reason}")
