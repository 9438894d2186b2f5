"""What a release consists of: three Python packages and two JavaScript packages, and where their sources are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: The repository.
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class PythonPackage:
    """A wheel and an sdist. `folder` is relative to the repository."""

    name: str
    folder: str
    #: The extra with which the package is installed to be tried, or "".
    extra: str = ""

    @property
    def stem(self) -> str:
        """How the names of its files begin, which is also the name of its module."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class JavaScriptPackage:
    """A tarball for npm. `folder` is relative to the repository."""

    name: str
    folder: str


#: The image has the hub with this extra, so the SBOM has its packages too.
HUB = PythonPackage("fhircast-hub", ".", extra="postgresql")
CLIENT = PythonPackage("fhircast-client", "clients/python")
IDENTITY = PythonPackage("fhircast-identity", "clients/identity/python")
PYTHON = (HUB, CLIENT, IDENTITY)
JAVASCRIPT = (
    JavaScriptPackage("fhircast-client", "clients/javascript"),
    JavaScriptPackage("fhircast-identity", "clients/identity/javascript"),
)
#: All that the packages are built from and checked with.
SOURCES = ("hub", "clients", "CHANGELOG.md", "LICENSE", "constraints.txt", "pyproject.toml")
