"""tools/libraries.py: a missing library is said as such, with the package that has it."""

from __future__ import annotations

import pytest

from tools.libraries import debian_package, missing_library

LOADER = "{}: error while loading shared libraries: {}: cannot open shared object file: No such file or directory\n"


@pytest.mark.parametrize(
    ("soname", "package"),
    [
        ("libatomic.so.1", "libatomic1"),
        ("libnss3.so", "libnss3"),
        ("libdbus-1.so.3", "libdbus-1-3"),
        ("libX11.so.6", "libx11-6"),
        ("libfoo_bar-2.0.so.0.1", "libfoo-bar-2.0-0.1"),
        ("libstdc++.so.6", "libstdc++6"),
        ("something.else", "something.else"),
    ],
)
def test_debian_names_the_package_after_the_library(soname: str, package: str) -> None:
    assert debian_package(soname) == package


@pytest.mark.parametrize("program", ["/srv/x/site-packages/playwright/driver/node", "/usr/lib/chromium/chromium"])
def test_the_first_program_that_does_not_start_is_named(program: str) -> None:
    """Among whatever else is printed."""
    output = f"one\n{LOADER.format(program, 'libatomic.so.1')}{LOADER.format('other', 'libz.so.1')}"
    name = "the browser's driver" if "playwright" in program else program
    wanted = f"{name} does not start: libatomic.so.1 is missing; apt-get install libatomic1"
    assert missing_library(output) == wanted


def test_other_output_names_no_library() -> None:
    assert missing_library("ImportError: cannot open shared object file\n") is None
