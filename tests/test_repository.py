"""The repository tests itself: imports go one way, the core is pure, files stay small, nothing of a machine or a registry gets in."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from fhircast_hub.settings.settings import CLIENTS, NAMES
from tests.checkout import ROOT, committed
from tools.architecture import (
    PACKAGE,
    Graph,
    between_modules,
    between_rooms,
    imports,
    imports_of_ours,
    modules,
    room_of,
    tree,
    with_picture,
)
from tools.fresh import RELEASES
from tools.hashes import normal

MODULES = sorted(PACKAGE.rglob("*.py"))

#: The rooms of the house, floor by floor: what each may import of those below. A room is a folder, or a module that stands alone.
CORE: dict[str, set[str]] = {
    "core.errors": set(),
    "core.limits": set(),
    "core.env": {"core.limits"},
    "core.access": {"core.errors"},
    "core.wire": {"core.errors", "core.limits"},
    "core.state": {"core.limits", "core.access", "core.wire"},
    "core.rules": {"core.errors", "core.limits", "core.env", "core.access", "core.wire", "core.state"},
    "core.decide": {"core.limits", "core.env", "core.access", "core.state", "core.rules"},
}
MAY_SEE: dict[str, set[str]] = {
    **CORE,
    "edge": {*CORE},
    "audit": {"core.wire", "telemetry"},
    "waiter": set(),
    "budgets": {"core.errors", "core.access", "waiter"},
    # Each room counts in telemetry.metrics, and telemetry imports nothing of ours.
    "telemetry": set(),
    "settings": {"core.limits", "core.wire"},
    "service": {*CORE, "audit", "telemetry"},
    "storage": {"core.errors", "core.access", "core.wire", "core.state", "service.ports", "waiter"},
    "auth": {"core.errors", "core.access", "core.wire", "budgets", "telemetry", "service.ports"},
    "acknowledgements": {*CORE, "budgets", "telemetry", "service"},
    "webhook": {*CORE, "budgets", "telemetry", "service"},
    "ws": {*CORE, "edge", "audit", "budgets", "telemetry", "service", "acknowledgements"},
    "http": {*CORE, "edge", "audit", "budgets", "telemetry", "service", "waiter", "versions"},
    "console": {
        *CORE,
        *("audit", "auth", "budgets", "telemetry", "settings", "service", "http", "ws", "versions"),
    },
    "dev": {"core.access"},
    "signals": set(),
    "workers": {"signals"},
    "versions": set(),
    "reloading": {"settings", "telemetry"},
    "postgresql": {*CORE, "settings", "telemetry", "service", "storage", "waiter"},
    "nodes": {*CORE, "service", "webhook", "ws"},
    "online": {*CORE, "auth", "settings", "storage", "webhook"},
    "hashes": {"settings", "storage", "telemetry", "postgresql", "stores"},
    "stores": {*CORE, "settings", "service", "storage", "telemetry", "postgresql"},
}
# Those that put the others together: `local` sees what needs no server, the others see all that stands before them.
MAY_SEE["local"] = {*MAY_SEE} - {
    *("audit", "auth", "settings", "webhook", "dev", "signals", "workers", "versions", "reloading"),
    *("postgresql", "nodes", "online", "hashes", "console", "stores"),
}
MAY_SEE["app"] = {*MAY_SEE} - {"local", "dev", "online", "hashes"}
MAY_SEE["server"] = {"app", "budgets", "http", "reloading", "signals", "versions", "workers"}
MAY_SEE["starting"] = {"app", "reloading", "server", "settings", "stores", "telemetry", "versions", "workers"}
MAY_SEE["cli"] = {*MAY_SEE}
MAY_SEE["__main__"] = {"cli", "signals"}

#: All that the core imports from outside: values in, values out.
CORE_IMPORTS = {
    *(
        "__future__",
        "base64",
        "bisect",
        "collections",
        "collections.abc",
        "contextlib",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "math",
    ),
    *(
        "hashlib",
        "ipaddress",
        "itertools",
        "json",
        "re",
        "typing",
        "urllib.parse",
        "uuid",
        "msgspec",
        "msgspec.json",
        "msgspec.structs",
    ),
}
#: Of these, the names that read a clock, are random or touch the world; `uuid5` is a digest.
IMPURE = {
    "now",
    "utcnow",
    "today",
    "uuid1",
    "uuid3",
    "uuid4",
    "uuid6",
    "uuid7",
    "uuid8",
    "getnode",
    "file_digest",
    "open",
    "print",
    "input",
}

MAX_LINES = 400  # of a file; more is seldom one idea
MAX_FUNCTION_LINES = 25  # of nine functions of ten


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_in(module: str, rooms: Iterable[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    path, here = modules()[module], room_of(module)
    assert here in MAY_SEE, f"{here} is a new room: say in MAY_SEE what it may import"
    for line, other in imports_of_ours(path):
        seen = other == "__version__" or is_in(other, [here, *MAY_SEE[here]])
        assert seen, f"{relative(path)}:{line}: {here} may not import {other}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=relative)
def test_an_init_imports_nothing(path: Path) -> None:
    assert not list(imports(path))


@pytest.mark.parametrize("graph", [between_modules, between_rooms])
def test_nothing_imports_itself_through_others(graph: Callable[[], Graph]) -> None:
    TopologicalSorter(graph()).prepare()


def test_the_picture_of_the_architecture_is_todays() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert with_picture(page) == page, "run: make architecture"


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=relative)
def test_the_core_does_no_io_and_reads_no_clock(path: Path) -> None:
    for line, name in imports(path):
        allowed = name in CORE_IMPORTS or is_in(name, ["fhircast_hub.core"])
        assert allowed, f"{relative(path)}:{line}: the core may not import {name}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.stmt | ast.expr):
            where = f"{relative(path)}:{node.lineno}"
            assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{where}: the core awaits nothing"
            assert not IMPURE.intersection(names(node)), f"{where}: the core may not use {names(node)}"


def names(node: ast.AST) -> list[str]:
    """The names a node calls or imports."""
    if isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return [node.func.attr]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return [node.func.id]
    return []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_files_stay_within_400_lines(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES


def test_nine_functions_of_ten_stay_within_25_lines() -> None:
    lengths = {
        f"{relative(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }
    long = {where: length for where, length in lengths.items() if length > MAX_FUNCTION_LINES}
    assert len(long) <= len(lengths) / 10, long


#: What must not get into the repository, and why. No pattern matches its own text.
FORBIDDEN = {
    "a package registry": r'"resolved": *"http|index[-_]url|find[-_]links|registry *= *"?http|https?://\S*/simple(?:/|\s|$)'
    r"|pythonhosted[.]org|registry[.](?:npmjs|yarnpkg)[.]",
    "a path of somebody's machine": r"(?<![\w.~:/-])/(?:root|home|Users|work|workspace|builds)/\w",
    "a folder beside the repository": r"[.][.]/shared\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names_a_machine_or_a_registry(what: str) -> None:
    """A clone works anywhere: whoever installs chooses where from, and nothing points outside of the clone."""
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{relative(path)}:{number}: {match[0]}"
        for path in committed()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert not found, f"{what}: " + "\n".join(found)


def pages() -> list[Path]:
    """The Markdown of the repository."""
    return [path for path in committed() if path.suffix == ".md"]


def test_every_relative_link_leads_to_a_file() -> None:
    links = (
        (page, link) for page in pages() for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    )
    lost = [
        f"{relative(page)}: {link}"
        for page, link in links
        if not re.match(r"[a-z]+:|#", link) and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert not lost


def test_what_contributing_names_is_where_it_says() -> None:
    """`decide` in [core/decide.py](hub/fhircast_hub/core/decide.py) is a function or class of that file."""
    named = re.findall(r"`(\w+)` in \[[^]]+\]\(([^)]+)\)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert named
    for name, path in named:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        assert name in {node.name for node in ast.walk(tree(ROOT / path)) if isinstance(node, kinds)}, (name, path)


def test_constraints_name_exact_versions_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", line), line


def test_every_dependency_is_constrained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constrained = {normal(line.partition("==")[0]) for line in lines}
    assert {normal(re.split(r"[\[<>=~!; ]", line)[0]) for line in wanted} <= constrained


@pytest.mark.parametrize("path", ["pyproject.toml", "clients/python/pyproject.toml"])
def test_a_python_is_declared_where_make_fresh_runs_the_tests_on_it_and_nowhere_else(path: str) -> None:
    project = tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]
    found = (re.fullmatch(r"Programming Language :: Python :: (3[.]\d+)", line) for line in project["classifiers"])
    declared = {match[1] for match in found if match}
    assert declared == set(RELEASES.values())
    assert project["requires-python"] == f">={min(declared, key=lambda version: int(version.partition('.')[2]))}"


def mentioned(*paths: Path) -> set[str]:
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
    return set(re.findall(r"\bFHIRCAST_[A-Z0-9_]*[A-Z0-9]\b", text))


def test_every_setting_is_documented_by_its_full_name() -> None:
    assert all(name.startswith("FHIRCAST_") for name in NAMES)
    assert sorted(NAMES.keys() - mentioned(ROOT / "README.md", ROOT / "docs" / "settings.md")) == []


def test_every_setting_that_is_mentioned_exists() -> None:
    paths = [
        ROOT / "Dockerfile",
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "tests" / "bench").glob("*.*"),  # bench.py, README.md
    ]
    assert sorted(mentioned(*paths) - NAMES.keys() - CLIENTS) == []
