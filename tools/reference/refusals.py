"""docs/reference/errors.md: every text with which the hub refuses a request, found in the code, by status."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

from fhircast_hub.core import errors
from fhircast_hub.core.errors import HubError
from tools.architecture import modules, tree
from tools.reference.advice import ABOUT, STATUSES
from tools.reference.markdown import code, head, table

#: Statuses by class. Those of the stores are subclasses of Unavailable, and have their own texts.
_STATUS = {
    name: kind.status for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, HubError)
}
#: Expressions whose value a reader knows by another name than by that of the code.
_CALLS = {"len": "<number>", "kind": "<type>", "duration": "<duration>"}


#: Reasons of log lines alone: the connection is cut without an answer.
_NOT_SENT = {"the hub stops"}


class Refusal(NamedTuple):
    """A refusal: its status, what it is about, and its text. Text in angle brackets differs from case to case."""

    status: int
    about: str
    text: str


def refusals() -> list[Refusal]:
    """All refusals, sorted by status and subject; in the order of the code within."""
    order = list(dict.fromkeys(ABOUT.values()))
    found = [each for name in modules() for each in _of_module(name) if each.text not in _NOT_SENT]
    once = {(each.status, each.text): each for each in reversed(found)}
    first = [each for each in found if once[each.status, each.text] is each]
    return sorted(first, key=lambda each: (each.status, order.index(each.about)))


def about(module: str) -> str:
    """The subject of a module's refusals. Raises LookupError for a module that has none."""
    return ABOUT[max((name for name in ABOUT if module.startswith(name)), key=len, default=module)]


def _of_module(name: str) -> Iterator[Refusal]:
    module = tree(modules()[name])
    classes = {each.name: each for each in module.body if isinstance(each, ast.ClassDef)}
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for call in (each for each in ast.walk(function) if isinstance(each, ast.Call)):
                kind = ast.unparse(call.func).rpartition(".")[2]
                if kind in _STATUS and call.args:
                    for text in _texts(call.args[0], function, name):
                        yield Refusal(_STATUS[kind], about(name), text)
    for each in classes.values():
        yield from _of_class(each, name)


def _of_class(kind: ast.ClassDef, name: str) -> Iterator[Refusal]:
    """Errors of a store, whose classes have their texts."""
    bases = {base.id for base in kind.bases if isinstance(base, ast.Name)}
    if not name.startswith("postgresql") or not bases & {"Unavailable", "DatabaseError"}:
        return
    for node in ast.walk(kind):
        if isinstance(node, ast.FunctionDef):
            texts = [*node.args.defaults, *(call.args[0] for call in ast.walk(node) if _is_init(call))]  # type: ignore[attr-defined]
            yield from (Refusal(503, about(name), str(each.value)) for each in texts if isinstance(each, ast.Constant))


def _is_init(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__" and bool(node.args)


def _texts(node: ast.expr, function: ast.AST, module: str) -> list[str]:
    """What an expression may say. Empty: that cannot be told from the code."""
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, function, module), *_texts(node.orelse, function, module)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
        return _texts(node.func.value, function, module)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return _values(ast.unparse(node.func.value), module)
    if isinstance(node, ast.Name):
        said = [text for each in _assigned(function, node.id) for text in _texts(each, function, module)]
        return said or _known(node.id, module)
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        joined = ("".join(parts) for parts in product(*(_parts(value, function, module) for value in node.values)))
        return [text.replace("<text><text>", "<text>") for text in joined]
    return []


def _assigned(function: ast.AST, name: str) -> list[ast.expr]:
    """The expressions that a function gives a name. If the name is a parameter whose callers give literals alone, the literals."""
    if isinstance(function, ast.FunctionDef) and name in (names := [each.arg for each in function.args.args]):
        place = names.index(name)
        given = [call.args[place] for call in _calls_of(function.name) if len(call.args) > place]
        return given if all(isinstance(each, ast.Constant) for each in given) else []
    found = [(ast.unparse(each.targets[0]), each.value) for each in ast.walk(function) if isinstance(each, ast.Assign)]
    found += [(each.target.id, each.value) for each in ast.walk(function) if isinstance(each, ast.NamedExpr)]
    return [value for target, value in found if target == name and ast.unparse(value) != name]


def _calls_of(function: str) -> list[ast.Call]:
    """The calls of a function of this name, in all modules."""
    return _calls().get(function, [])


@cache
def _calls() -> dict[str, list[ast.Call]]:
    """By name of the function, all calls."""
    found: dict[str, list[ast.Call]] = {}
    for path in modules().values():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.setdefault(node.func.id, []).append(node)
    return found


def _known(name: str, module: str) -> list[str]:
    """A constant of the module, or one that it imports: MAX_ID, or BODY_SECONDS.most."""
    value: object = importlib.import_module(f"fhircast_hub.{module}")
    for part in name.split("."):
        value = getattr(value, part, None)
    return (
        [f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)]
        if isinstance(value, str | int | float)
        else []
    )


def _values(name: str, module: str) -> list[str]:
    """The texts of a dict of the module."""
    value = getattr(importlib.import_module(f"fhircast_hub.{module}"), name, None)
    return [each for each in value.values() if isinstance(each, str)] if isinstance(value, dict) else []


def _parts(node: ast.expr, function: ast.AST, module: str) -> list[str]:
    """What a part of an f-string may say: texts of the code, or one text in angle brackets."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    assert isinstance(node, ast.FormattedValue)
    value = node.value
    if isinstance(value, ast.Call):
        return [_CALLS.get(ast.unparse(value.func), "<text>")]
    if isinstance(value, ast.Name | ast.Attribute) and (known := _known(ast.unparse(value), module)):
        return known
    if isinstance(value, ast.Name | ast.IfExp) and _is_plain(value, function):
        return _texts(value, function, module)
    if isinstance(value, ast.Name | ast.Attribute):
        return [f"<{ast.unparse(value).rpartition('.')[2].strip('_').replace('_', ' ').lower()}>"]
    return ["<text>"]


def _is_plain(value: ast.expr, function: ast.AST) -> bool:
    """Whether all that the value may be are literals. Of a value that is counted or read, a reader needs the name."""
    if isinstance(value, ast.IfExp):
        return _is_plain(value.body, function) and _is_plain(value.orelse, function)
    if isinstance(value, ast.Name):
        said = _assigned(function, value.id)
        return bool(said) and all(
            isinstance(each, ast.Constant | ast.IfExp) and _is_plain(each, function) for each in said
        )
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def page() -> str:
    """The page. Raises LookupError for a status without advice, and for a module without a subject."""
    found = refusals()
    parts = []
    for status in sorted({each.status for each in found}):
        title, when, todo = STATUSES[status]
        rows = [(each.about, code(each.text)) for each in found if each.status == status]
        heading = f"\n## {status} {title}\n\n**When.** {when}\n\n**What to do.** {todo}\n"
        parts.append(heading + table(("about", "text"), rows).rstrip() + "\n")
    return head("Refusals", "tools/reference/advice.py") + _INTRO + "".join(parts)


_INTRO = """
The hub refuses a request with a status and one line. The line is for the developer of the application, and not for users.
The line is text, or `{"message": ...}` for a request with JSON ([SUB-24](../behaviour.md#sub-24)).
A refused handshake of a WebSocket has the same status and line.

The line names the member first. What was expected and what came follow. Values are named by type and length.
The hub checks each request in one order ([the order](../behaviour.md#how-to-read-this-page)). So the first mistake is told, not all of them.
Decide by the status in a program, and show or log the line. The lines may change with a release.

In the tables, text in angle brackets differs from case to case: `<number>`, `<path>`, `<name>`.
`…` stands for text that the request has, such as an event's name. The hub's log keeps the `…` ([OPS-17](../behaviour.md#ops-17)).
The value of a limit is that of the settings, or of the hub where no setting exists.

The client libraries turn a refusal into `HubError`. [Behaviour](../behaviour.md#clt-client-libraries) says what they do about each status.
"""
