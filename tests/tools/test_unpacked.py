"""tools/unpacked.py: a program is the one on the PATH, or comes out of Debian's package, which is not installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.running import shell_program
from tools.unpacked import PACKAGES, main, provide


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, for programs of the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return folder


def test_a_program_of_the_machine_is_taken(tmp_path: Path, programs: Path) -> None:
    shell_program(programs / "promtool", "exit 0")
    for _ in range(2):  # the second link replaces the first
        assert provide("promtool", tmp_path / "out") == ""
    assert (tmp_path / "out" / "promtool").resolve() == programs / "promtool"


def test_without_apt_get_it_is_said(tmp_path: Path, programs: Path) -> None:
    assert provide("promtool", tmp_path / "out") == "promtool is required, and not on the PATH"


def test_what_apt_get_says_is_told(tmp_path: Path, programs: Path) -> None:
    shell_program(programs / "apt-get", "echo no such package; exit 100")
    said = provide("promtool", tmp_path / "out")
    assert said.startswith("no such package\n")
    assert "apt-get update" in said
    assert not (tmp_path / "out" / "promtool").exists()


def test_the_package_is_unpacked_and_not_installed(tmp_path: Path, programs: Path) -> None:
    shell_program(programs / "apt-get", f'echo "$*" > {tmp_path}/asked; : > prometheus_2_all.deb')
    shell_program(programs / "dpkg-deb", '/bin/mkdir -p "$3/usr/bin"; echo tool > "$3/usr/bin/promtool"')
    assert provide("promtool", tmp_path / "out") == ""
    assert (tmp_path / "out" / "promtool").read_text() == "tool\n"
    assert (tmp_path / "asked").read_text() == "--quiet download prometheus\n"


def test_a_missing_program_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.unpacked.provide", lambda program: "no network" if program == "caddy" else "")
    assert main(["promtool"]) == 0
    assert main(list(PACKAGES)) == 1
    assert capsys.readouterr().err == "no network\n"
    assert main(["nginx"]) == 1
    assert capsys.readouterr().err == "the programs must be among caddy, promtool, not nginx\n"


def test_a_program_stays_where_no_other_can_be_fetched(tmp_path: Path, programs: Path) -> None:
    shell_program(programs / "apt-get", "exit 100")
    (tmp_path / "promtool").write_text("good")
    assert provide("promtool", tmp_path)
    assert (tmp_path / "promtool").read_text() == "good"
