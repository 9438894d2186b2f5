"""tools/release: what makes a rehearsal, what each check refuses, and that nothing publishes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.checkout import committed
from tools.release import __main__ as release
from tools.release import build, checks, commands, sbom, source
from tools.release.commands import ReleaseError, environment, run
from tools.release.packages import ROOT
from tools.release.source import Commit

SMOKE = ROOT / "tools" / "release" / "smoke"
GUIDE = ROOT / "docs" / "releasing.md"
RELEASED = "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-31\n- A hub.\n"
WAITING = "# Changelog\n\n## [Unreleased]\n- A hub.\n"
TAGGED = Commit("abc1234", 1_769_860_800, clean=True, tags=("v0.1.0",))


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(("git", "-C", folder, *identity, *words), check=True, capture_output=True)


def tarball(path: Path, manifest: dict[str, object], **files: str) -> Path:
    """A package for npm with these files beside package.json; `index_js` is index.js."""
    contents = {"package.json": json.dumps(manifest)} | {name.replace("_", "."): text for name, text in files.items()}
    with tarfile.open(path, "w:gz") as archive:
        for name, text in contents.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def wheel(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return path


# A release or a rehearsal


@pytest.mark.parametrize(
    ("changelog", "commit", "why"),
    [
        (RELEASED, TAGGED, []),
        (WAITING, TAGGED, ["CHANGELOG.md has lines under Unreleased"]),
        (RELEASED, Commit("abc1234", 0, clean=False, tags=TAGGED.tags), ["files differ from the last commit"]),
        (RELEASED, Commit("abc1234", 0, clean=True, tags=("v0.2.0",)), ["commit abc1234 has no tag v0.1.0"]),
    ],
)
def test_a_rehearsal_says_why_it_is_one(changelog: str, commit: Commit, why: list[str]) -> None:
    assert release.missing("0.1.0", changelog, commit) == why


def test_a_final_release_refuses_to_be_a_rehearsal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source, "last_commit", lambda root: Commit("abc1234", 0, clean=False, tags=()))
    assert release.main(["--final", "--into", str(tmp_path / "release")]) == 1
    said = capsys.readouterr().err
    assert re.match(r"release: this would be a rehearsal of \d+\.\d+\.\d+, not the release: ", said)
    assert "files differ from the last commit; commit abc1234 has no tag v" in said
    assert not (tmp_path / "release").exists()


def test_a_folder_of_other_files_is_not_emptied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").touch()
    assert release.main(["--into", str(tmp_path)]) == 1
    assert "must be the folder of an earlier release, or not be there" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


def test_a_failure_leaves_no_files_of_an_earlier_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(root: Path, folder: Path) -> None:
        raise ReleaseError("no sources")

    monkeypatch.setattr(source, "copy", fail)
    old = tmp_path / "release"
    old.mkdir()
    (old / build.SUMS).touch()
    assert release.main(["--into", str(old)]) == 1
    assert capsys.readouterr().err == "release: no sources\n"
    assert not old.exists()


# Sources


def test_the_sources_are_what_git_knows_or_is_about_to_know(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "copy"
    (root / "clients").mkdir(parents=True)
    (root / "hub").mkdir()
    for name in (
        ".gitignore",
        "LICENSE",
        "hub/new.py",
        "hub/made.db",
        "clients/gone.py",
        "clients/run.sh",
        "other.txt",
    ):
        (root / name).write_text("*.db\n")
    (root / "clients" / "run.sh").chmod(0o755)
    git(root, "init", "--quiet")
    git(root, "add", "LICENSE", "clients", ".gitignore")
    git(root, "commit", "--quiet", "--message", "all")
    git(root, "tag", "v1.0.0")
    assert source.last_commit(root).tags == ("v1.0.0",)
    (root / "clients" / "gone.py").unlink()
    assert not source.last_commit(root).clean
    source.copy(root, folder)
    copied = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert copied == {"LICENSE", "hub/new.py", "clients/run.sh"}
    assert os.access(folder / "clients" / "run.sh", os.X_OK)


def test_outside_of_a_clone_there_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="git must know"):
        source.last_commit(tmp_path)


# Tools


def test_a_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"ended with exit code 3:\nbad README"):
        run("sh", "-c", "echo bad README; exit 3", cwd=tmp_path)
    with pytest.raises(ReleaseError, match=r"no-such-tool must be there, and is not. `make release` installs"):
        run("no-such-tool", cwd=tmp_path)


def test_a_tool_that_does_not_end_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 0.05)
    with pytest.raises(ReleaseError, match=r"must end within 0.05 s, and did not"):
        run("sleep", "600", cwd=tmp_path)


def test_a_tool_sees_nothing_of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "FHIRCAST_PORT", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "x")
    seen = environment(SOURCE_DATE_EPOCH="1")
    assert not {"PYTHONPATH", "FHIRCAST_PORT", "VIRTUAL_ENV"} & seen.keys()
    assert seen["SOURCE_DATE_EPOCH"] == "1"
    assert seen["PATH"].startswith(str(Path(sys.executable).parent))


# Checks


def test_two_wheels_differ_by_a_file_or_by_its_content(tmp_path: Path) -> None:
    one = wheel(tmp_path / "1.whl", a="1", b="2", c="3")
    assert build.differences(one, wheel(tmp_path / "2.whl", a="1", b="2", c="3")) == []
    assert build.differences(one, wheel(tmp_path / "3.whl", a="1", b="x", d="4")) == ["b", "c", "d"]


def test_the_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b.whl").write_bytes(b"b")
    (tmp_path / "a.tgz").write_bytes(b"a")
    text = build.sums(tmp_path)
    (tmp_path / build.SUMS).write_text(text)
    assert text.splitlines()[1] == f"{hashlib.sha256(b'b').hexdigest()}  b.whl"
    subprocess.run(("sha256sum", "--check", "--strict", build.SUMS), cwd=tmp_path, check=True, capture_output=True)
    assert build.sums(tmp_path) == text


def test_a_file_that_is_there_twice_is_said(tmp_path: Path) -> None:
    for name in ("a-1.whl", "a-2.whl"):
        (tmp_path / name).touch()
    with pytest.raises(ReleaseError, match=r"there must be one a-\*.whl, not a-1.whl, a-2.whl"):
        build.the_one(tmp_path, "a-*.whl")


def test_a_wheel_that_an_index_would_refuse_is_refused(tmp_path: Path) -> None:
    metadata = "Metadata-Version: 2.1\nName: a\nVersion: 1\n"  # no description
    broken = wheel(
        tmp_path / "a-1-py3-none-any.whl", **{"a-1.dist-info/METADATA": metadata, "a-1.dist-info/RECORD": ""}
    )
    with pytest.raises(ReleaseError, match="long_description"):
        checks.python([broken], tmp_path)


def test_a_tarball_that_needs_another_package_is_refused(tmp_path: Path) -> None:
    path = tarball(tmp_path / "a-1.0.0.tgz", {"dependencies": {"ws": "^8"}, "peerDependencies": {"react": "^19"}})
    with pytest.raises(ReleaseError, match=r"a-1.0.0.tgz must need no other package, .*: react, ws"):
        checks.javascript(path)


def test_a_tarball_whose_export_is_missing_is_refused(tmp_path: Path) -> None:
    manifest: dict[str, object] = {"name": "a", "version": "1.0.0", "type": "module", "exports": "./index.js"}
    checks.javascript(tarball(tmp_path / "a-1.0.0.tgz", manifest, index_js="export {};\n"))
    with pytest.raises(ReleaseError, match="file does not exist"):
        checks.javascript(tarball(tmp_path / "b-1.0.0.tgz", manifest, other_js="export {};\n"))


def test_a_component_with_another_version_is_said() -> None:
    pinned = sbom.pins("# what the tests run with\nSome_Package==1.0\nb==2\n")
    components = [
        {"name": "some.package", "version": "1.0"},
        {"name": "b", "version": "3"},
        {"name": "c", "version": "1"},
    ]
    assert sbom.unpinned({"components": components}, pinned) == ["b==3", "c==1"]
    assert sbom.unpinned({}, pinned) == []


# Smoke tests


@pytest.mark.parametrize("program", ["client", "identity", "hub"])
def test_a_smoke_test_refuses_a_package_that_is_not_installed(program: str, tmp_path: Path) -> None:
    """Here each package is a link to this checkout."""
    with pytest.raises(ReleaseError, match="the module must be the installed one"):
        run(sys.executable, "-I", SMOKE / f"{program}.py", "0.1.0", cwd=tmp_path)


@pytest.mark.parametrize(
    ("exports", "wrong"),
    [
        ({".": {"types": "./index.d.ts", "default": "./index.js"}, "./package.json": "./package.json"}, ""),
        ({".": {"types": "./types.d.ts", "default": "./index.js"}}, "a must have types: ./types.d.ts is missing"),
        ({".": {"types": "./index.d.ts", "default": "./gone.js"}}, "Cannot find module"),
        ({"./none": {"types": "./index.d.ts", "default": "./none.js"}}, "a/none must export something"),
        ({"./package.json": "./package.json"}, "a must export a module"),
    ],
)
def test_every_export_of_a_tarball_must_be_there(exports: dict[str, object], wrong: str, tmp_path: Path) -> None:
    folder = tmp_path / "node_modules" / "a"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "a", "type": "module", "exports": exports}))
    for name, text in {"index.js": "export const a = 1;", "none.js": "export {};", "index.d.ts": ""}.items():
        (folder / name).write_text(text)
    shutil.copy(SMOKE / "exports.mjs", tmp_path)
    if not wrong:
        run("node", "exports.mjs", "a", cwd=tmp_path)
        return
    with pytest.raises(ReleaseError, match=re.escape(wrong)):
        run("node", "exports.mjs", "a", cwd=tmp_path)


# The guide


def commands_of(page: Path) -> list[str]:
    """The commands of a page: its indented lines, and the code within its text."""
    text = page.read_text(encoding="utf-8")
    block = [line.strip() for line in text.splitlines() if line.startswith("    ") and not line.strip().startswith("-")]
    return [*block, *re.findall(r"`([^`]+)`", text)]


def test_every_target_that_the_guide_names_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {match[1] for each in commands_of(GUIDE) if (match := re.match(r"make ([a-z-]+)", each))}
    assert {"release", "version", "fresh"} <= named
    assert {name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()


@pytest.mark.parametrize(
    ("command", "help_of"),
    [
        ("twine upload", (sys.executable, "-m", "twine", "upload", "--help")),
        ("npm trust github", ("npm", "trust", "github", "--help")),
        ("npm publish", ("npm", "publish", "--help")),
        ("npm deprecate", ("npm", "deprecate", "--help")),
        ("docker build", ()),
    ],
)
def test_every_option_that_the_guide_names_is_one_of_the_tool(
    command: str, help_of: tuple[str, ...], tmp_path: Path
) -> None:
    """docker is not among the tools of the tests: its options are those of CONTRIBUTING.md, or the tag's."""
    text = run(*help_of, cwd=tmp_path) if help_of else (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = [each for each in commands_of(GUIDE) if command in each]
    assert lines, f"the guide must name {command}"
    options = {option for line in lines for option in re.findall(r"--[a-z-]+", line.partition(command)[2])}
    assert {option for option in options if option not in text} == set()


PUBLISHES = r"""twine["',\s]+upload|(npm|yarn|pnpm)["',\s]+(publish|stage)|(docker|podman)["',\s]+push|buildx[^\n]*--push|git["',\s]+push"""


def test_nothing_that_runs_publishes() -> None:
    """Only pages, for people, name such commands."""
    paths = [path for path in committed() if path.suffix != ".md"]
    found = [
        str(path.relative_to(ROOT))
        for path in paths
        if path != Path(__file__).resolve() and re.search(PUBLISHES, path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert len(paths) > 500
    assert found == []
    assert re.search(PUBLISHES, GUIDE.read_text(encoding="utf-8"))
