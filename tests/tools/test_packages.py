"""tools/packages.py: what is missing is installed at once by root, and named in one command to anybody else."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.running import shell_program
from tools import packages
from tools.packages import (
    CHECKS,
    NEEDED,
    Check,
    lies,
    loads,
    makes_environments,
    postgresql_binaries,
    provide,
    serves_databases,
    starts,
)

LOADER = "error while loading shared libraries: libnss3.so: cannot open shared object file"


class Machine:
    """A machine whose packages alpha, beta and gamma are files; its apt-get, whose calls are kept, brings what is in `brings`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        (folder / "bin").mkdir()
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
        monkeypatch.setattr(packages, "CHECKS", {name: self.there(name) for name in ("alpha", "beta", "gamma")})
        self.user(0)
        self.apt_get()

    def there(self, name: str) -> Check:
        return lies(str(self.folder / name))

    def user(self, number: int) -> None:
        self._patch.setattr(os, "geteuid", lambda: number)

    def program(self, name: str, script: str) -> None:
        shell_program(self.folder / "bin" / name, script)

    def without(self, name: str) -> None:
        """A machine that lacks a program which this one has."""
        which = shutil.which
        self._patch.setattr(shutil, "which", lambda c, **more: None if c == name else which(c, **more))

    def apt_get(self, *brings: str, exit_code: int = 0, first: str = ":") -> None:
        files = " ".join(str(self.folder / name) for name in ("touched", *brings))
        does = f'echo "$@" >> {self.folder}/calls; echo apt says this; {first}; touch {files}; exit {exit_code}'
        self.program("apt-get", does)

    def calls(self) -> list[list[str]]:
        """What was asked of apt-get."""
        path = self.folder / "calls"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_where_nothing_is_missing_nothing_is_done_or_said(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.folder / "alpha").touch()
    assert provide(["alpha"]) == 0
    assert (machine.calls(), *capsys.readouterr()) == ([], "", "")


def test_root_gets_all_that_is_missing_in_one_call(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.folder / "beta").touch()
    machine.apt_get("alpha", "gamma")
    assert provide(["alpha", "beta", "gamma"]) == 0
    (install,) = machine.calls()
    assert install[-4:] == ["install", "--no-install-recommends", "alpha", "gamma"]
    assert capsys.readouterr().err == "installing Debian's alpha gamma\n"


def test_a_machine_without_lists_of_packages_fetches_them(machine: Machine) -> None:
    """As a new one, or one whose lists are old; where it cannot, old ones may do."""
    machine.apt_get("alpha", first=f"[ $(wc -l < {machine.folder}/calls) = 3 ] || exit 100")
    assert provide(["alpha"]) == 0
    assert [call[-1] for call in machine.calls()] == ["alpha", "update", "alpha"]


def test_what_apt_get_says_is_shown_where_it_fails(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.apt_get(exit_code=100)
    assert provide(["alpha"]) == 1
    said = capsys.readouterr().err
    assert said.count("apt says this\n") == 2
    assert "update` ended with exit code 100\n" in said
    assert "alpha` ended with exit code 100\n" in said


def test_what_is_installed_and_does_not_work_is_named(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.apt_get("alpha")
    assert provide(["alpha", "beta"]) == 1
    assert capsys.readouterr().err.endswith(
        f"apt-get installed the packages, but some do not work:\n  beta: {machine.folder}/beta is not there\n"
    )


@pytest.mark.parametrize(("sudo", "begins"), [(True, "sudo sh -c "), (False, "su - -c ")])
def test_others_are_told_one_command_that_names_all(
    machine: Machine, capsys: pytest.CaptureFixture[str], sudo: bool, begins: str
) -> None:
    """A new Debian has no sudo."""
    machine.user(1000)
    machine.program("sudo", "exit 1") if sudo else machine.without("sudo")
    assert provide(["alpha", "beta", "gamma"]) == 1
    assert machine.calls() == []
    (line,) = (line.strip() for line in capsys.readouterr().err.splitlines() if "apt-get" in line)
    assert line.startswith(begins)
    (script,) = shlex.split(line.removeprefix(begins))
    assert script == "apt-get update && apt-get install --yes --no-install-recommends alpha beta gamma"


def test_without_apt_get_the_packages_are_named_all_the_same(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.without("apt-get")
    assert provide(["alpha", "beta"]) == 1
    assert "apt-get is required, to install Debian's alpha beta." in capsys.readouterr().err


def test_a_program_is_started_for_it_may_lack_a_library(machine: Machine) -> None:
    machine.program("fine", "exit 0")
    machine.program("broken", f"echo $0: {LOADER} >&2; exit 127")
    machine.program("strange", "exit 3")
    library = f"{machine.folder}/bin/broken does not start: libnss3.so is missing; apt-get install libnss3"
    path = f"{machine.folder}/bin"
    assert starts(f"{path}/fine", "--version")() == ""
    assert starts(f"{path}/broken", "--version")() == library
    assert starts(f"{path}/strange", "-v")() == f"`{path}/strange -v` ended with exit code 3"
    assert starts("there-is-no-such-program")() == "is not there"


def test_a_library_is_looked_for_where_programs_look() -> None:
    assert loads("libc.so.6")() == ""
    assert "libnever.so.9" in loads("libnever.so.9")()


def test_python_must_be_able_to_make_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unless one with pip is there."""
    monkeypatch.chdir(tmp_path)
    assert makes_environments() == ""
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    assert makes_environments() == "the module ensurepip is not there"
    (tmp_path / ".venv").symlink_to(sys.prefix)
    assert makes_environments() == ""


def postgresql(machine: Machine, version: str, *programs: str) -> Path:
    """A version of PostgreSQL with these server programs, where Debian has them; the folder of its programs."""
    folder = machine.folder / "lib" / version / "bin"
    folder.mkdir(parents=True)
    for name in programs:
        shell_program(folder / name, "exit 0")
    return folder


def test_the_newest_server_of_postgresql_must_start(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian installs versions beside each other, and its client alone has a folder of this kind too."""
    pattern = f"{machine.folder}/lib/*/bin/initdb"
    monkeypatch.setattr(packages, "POSTGRESQL", pattern)
    monkeypatch.setattr(packages, "PATH", str(machine.folder))
    postgresql(machine, "99", "psql")
    assert (postgresql_binaries(), serves_databases()) == (None, f"{pattern} is not there")
    old = postgresql(machine, "9.6", "initdb", "postgres")
    assert (postgresql_binaries(), serves_databases()) == (old, "")
    new = postgresql(machine, "17", "initdb")
    assert (postgresql_binaries(), serves_databases()) == (new, "is not there")
    shell_program(new / "postgres", f"echo $0: {LOADER} >&2; exit 127")
    assert "libnss3.so is missing" in serves_databases()


def test_postgresql_of_another_system_is_on_the_path(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "POSTGRESQL", f"{machine.folder}/never")
    monkeypatch.setattr(packages, "PATH", f"{machine.folder}/bin")
    machine.program("initdb", "exit 0")
    machine.program("postgres", "exit 0")
    assert (postgresql_binaries(), serves_databases()) == (machine.folder / "bin", "")


@pytest.mark.parametrize("exit_code", [0, 100])
@pytest.mark.parametrize("there", ["", "etc", "etc/createcluster.d"])
def test_debian_makes_no_cluster_while_root_installs_postgresql(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, there: str, exit_code: int
) -> None:
    """A cluster would start a server on port 5432. No file or folder of ours stays, whether apt-get fails or not."""
    setting = machine.folder / "etc/createcluster.d/ours.conf"
    monkeypatch.setattr(packages, "NO_CLUSTER", setting)
    monkeypatch.setattr(packages, "CHECKS", {"postgresql": machine.there("postgresql")})
    (machine.folder / there).mkdir(parents=True, exist_ok=True)
    before = sorted(machine.folder.glob("etc/**"))
    machine.apt_get("postgresql", exit_code=exit_code, first=f"cat {setting} >> {machine.folder}/seen")
    assert provide(["postgresql"]) == (1 if exit_code else 0)
    assert set((machine.folder / "seen").read_text().splitlines()) == {"create_main_cluster = false"}
    assert sorted(machine.folder.glob("etc/**")) == before


def test_other_packages_leave_the_settings_of_postgresql_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = machine.folder / "etc/createcluster.d/ours.conf"
    monkeypatch.setattr(packages, "NO_CLUSTER", setting)
    machine.apt_get("alpha", first=f"ls {setting.parent} && exit 1")
    assert provide(["alpha"]) == 0


def test_every_package_that_is_needed_can_be_looked_for() -> None:
    assert {name for names in NEEDED.values() for name in names} <= set(CHECKS)
