"""A program that does not start because a shared library is missing: which library, and the Debian package that has it."""

from __future__ import annotations

import re

#: What the dynamic loader says (glibc's ld.so).
_LOADER = re.compile(
    r"(?P<program>[^\s:]+): error while loading shared libraries: (?P<library>[^\s:]+): cannot open shared object file"
)


def debian_package(soname: str) -> str:
    """The package's name by Debian's rule, which a few old packages do not follow: `libatomic.so.1` -> libatomic1.

    The SONAME without `.so.`, in lower case; after a digit, a hyphen comes before the version (Debian Policy 8.1).
    """
    hyphenated = re.sub(r"(\d)\.so\.", r"\1-", soname)
    return re.sub(r"\.so(\.|$)", "", hyphenated).replace("_", "-").lower()


def missing_library(output: str) -> str | None:
    """What to do about the first program in `output` that lacks a library; None where no program does."""
    match = _LOADER.search(output)
    if match is None:
        return None
    program = "the browser's driver" if "/playwright/driver/" in match["program"] else match["program"]
    library = match["library"]
    return f"{program} does not start: {library} is missing; apt-get install {debian_package(library)}"
