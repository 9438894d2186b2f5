"""What the tests of the process share: an issuer, and one hub for all of a file that need nothing special."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.process.hub_process import HubProcess, IssuerThread, hub_process, issuer_thread


@pytest.fixture(scope="package")
def issuer() -> Iterator[IssuerThread]:
    """One issuer for all of them."""
    with issuer_thread() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, issuer: IssuerThread) -> Iterator[HubProcess]:
    """`fhircast-hub serve` with the default settings."""
    with hub_process(tmp_path_factory.mktemp("hub"), issuers=issuer.settings) as hub:
        yield hub
