"""docs/reference/log-events.md: what the hub's log can say, found in the code, and what an operator does about it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fhircast_hub.telemetry.logs import LIBRARY_TEXTS, _RequestLine
from tools.architecture import modules, tree
from tools.reference.log_meanings import MEANINGS
from tools.reference.markdown import code, codes, head, table

#: A call that writes a line. An exception's line has the level error.
_WRITES = re.compile(r"(?:.*\.)?(?:_?log|get_logger\(\))\.(debug|info|warning|error|critical|exception)")
_LEVEL = {"exception": "error"}
#: Fields of a line with an exception.
_OF_EXCEPTIONS = ("error", "where")
#: By name of a function, the levels and the fields of the line that it writes.
Functions = dict[str, tuple[set[str], set[str]]]


class Line(NamedTuple):
    """One call that writes a line: the event, the levels that the line may have, and its fields."""

    event: str
    levels: frozenset[str]
    fields: frozenset[str]


class Unresolved(Exception):
    """The event of a call is no literal that this module can find."""


def lines() -> Iterator[Line]:
    """Every line that the hub can write, in the order of the code. Raises Unresolved."""
    wrappers = _wrappers()
    for name, path in modules().items():
        aliases = _aliases(tree(path))
        for function in ast.walk(tree(path)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
                for call in _calls(function):
                    yield from _lines_of(name, function, call, aliases, wrappers)
    yield Line(
        "request",
        frozenset({"info"}),
        frozenset(_RequestLine.__struct_fields__) - {"timestamp", "level", "event", "worker"},
    )


def _calls(function: ast.AST) -> Iterator[ast.Call]:
    """The calls of a function, without those of the functions within."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if isinstance(node, ast.Call):
                yield node
            waiting[:0] = list(ast.iter_child_nodes(node))


def _levels(call: ast.Call, aliases: dict[str, set[str]]) -> set[str]:
    """The levels of the line that a call writes. Empty: the call writes no line."""
    called = ast.unparse(call.func)
    if match := _WRITES.fullmatch(called):
        return {_LEVEL.get(match[1], match[1])}
    return aliases.get(called, set())


def _aliases(module: ast.Module) -> dict[str, set[str]]:
    """Names for one of several ways to write: `say = _log.info if ... else _log.warning`."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.IfExp) and isinstance(node.targets[0], ast.Name):
            ways = [re.fullmatch(r"_?log\.(\w+)", ast.unparse(each)) for each in (node.value.body, node.value.orelse)]
            if all(ways):
                found[node.targets[0].id] = {way[1] for way in ways if way}
    return found


def _wrappers() -> Functions:
    """Functions that write a line about their parameter `event`: their levels and fields by name."""
    found: Functions = {}
    for path in modules().values():
        for function in ast.walk(tree(path)):
            if isinstance(function, ast.FunctionDef) and "event" in {each.arg for each in function.args.args}:
                for call in _calls(function):
                    if (levels := _levels(call, {})) and ast.unparse(call.args[0]) == "event":
                        found[function.name] = levels, _fields(call, function, tree(path))
    return found


def _lines_of(
    module: str, function: ast.AST, call: ast.Call, aliases: dict[str, set[str]], wrappers: Functions
) -> Iterator[Line]:
    levels, more = _levels(call, aliases), set[str]()
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if not levels and name in wrappers and call.args and _texts(call.args[0]):
        levels, more = wrappers[name]
    if not levels or not call.args:
        return
    said = call.args[0]
    if isinstance(said, ast.Name) and said.id == "event" and getattr(function, "name", "") in wrappers:
        return  # the callers of the wrapper say the event
    texts = _texts(said) or (_assigned(function, said.id) if isinstance(said, ast.Name) else [])
    if not texts:
        raise Unresolved(f"{module}:{call.lineno}: {ast.unparse(said)}")
    for text in texts:
        fields = _fields(call, function, tree(modules()[module]))
        yield Line(text, frozenset(levels), frozenset(fields | more))


def _texts(node: ast.expr) -> list[str]:
    """The literals that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    return [*_texts(node.body), *_texts(node.orelse)] if isinstance(node, ast.IfExp) else []


def _assigned(function: ast.AST, name: str) -> list[str]:
    """The literals that a function gives a name."""
    return [
        text
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
        for text in _texts(node.value)
    ]


def _fields(call: ast.Call, function: ast.AST, module: ast.Module) -> set[str]:
    """The fields of a call, with those of dicts (`**fields`)."""
    fields = {keyword.arg for keyword in call.keywords if keyword.arg}
    for keyword in call.keywords:
        if keyword.arg is None:
            fields |= _members(keyword.value, function, module)
    return fields - {"exc_info"} | set(_OF_EXCEPTIONS if "exc_info" in fields else ())


def _members(node: ast.expr, function: ast.AST, module: ast.Module) -> set[str]:
    """The names that a dict may have: a literal, a variable of the function, or what a function of the module returns."""
    name = node.id if isinstance(node, ast.Name) else ""
    called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    found = [node]
    for each in ast.walk(function if name else module):
        if isinstance(each, ast.Assign | ast.AnnAssign) and name and each.value:
            target = each.targets[0] if isinstance(each, ast.Assign) else each.target
            if ast.unparse(target) == name:
                found.append(each.value)
            elif isinstance(target, ast.Subscript) and ast.unparse(target.value) == name:
                found.append(ast.Dict([target.slice], [each.value]))
        elif isinstance(each, ast.FunctionDef) and each.name == called:
            found += [inner.value for inner in ast.walk(each) if isinstance(inner, ast.Return) and inner.value]
    dicts = [inner for each in found for inner in ast.walk(each) if isinstance(inner, ast.Dict)]
    return {str(key.value) for each in dicts for key in each.keys if isinstance(key, ast.Constant)}


def merged(found: Iterable[Line]) -> dict[str, Line]:
    """By event, one line with all levels and fields."""
    events: dict[str, Line] = {}
    for line in found:
        before = events.get(line.event, Line(line.event, frozenset(), frozenset()))
        events[line.event] = Line(line.event, before.levels | line.levels, before.fields | line.fields)
    return events


def page() -> str:
    """The page. Raises LookupError for an event without a meaning."""
    events = merged(lines())
    parts = []
    for title, meanings in MEANINGS.items():
        rows = [
            (code(event), ", ".join(sorted(events[event].levels)), codes(sorted(events[event].fields)), meaning, todo)
            for event, (meaning, todo) in meanings.items()
        ]
        parts.append(f"\n## {title}\n{table(('event', 'level', 'fields', 'meaning', 'what to do'), rows).rstrip()}\n")
    texts = "".join(f"- `{text.strip()}`\n" for text in sorted(LIBRARY_TEXTS))
    return head("Log events", "tools/reference/log_meanings.py") + _INTRO + "".join(parts) + _LIBRARIES + texts


_INTRO = """
The hub writes one JSON object a line to standard output ([OPS-2](../behaviour.md#ops-2)).
[Logs, and how to rotate them](../how-to/logs.md) says how to keep the lines. This page says what each event means.
The event is the member `event`, always with one of the texts below. Alert on the event, and not on `reason`.

Each line has `timestamp`, `level` and `event`. With several workers each line has `worker` too.
A field is `null`, or is left out, where there is nothing to say. No other fields exist, and none holds a secret ([SEC-1](../behaviour.md#sec-1)):

- `topic` is a keyed hash. `fhircast-hub topic-hash --config FILE TOPIC` prints the hash of a topic ([OPS-30](../behaviour.md#ops-30)).
- `request_id` is the header `x-request-id` of the answer.
- `route` is a word of the hub, or the template of a path. `name` is an event's name.
- `reason` is a text of the hub, without the client's own text.
- `error` and `where` are type and place of an exception, never its text. An error of the system has its usual text as `reason`.
- `ms` and `seconds` are durations, `bytes` and `count` are numbers.

Levels: `info` is normal work. `warning` needs somebody on a working day. `error` needs somebody soon.
Lines of `info` are left out with `FHIRCAST_LOG_LEVEL=warning`.
"""
_LIBRARIES = """
## Close codes

`code` of `socket closed` is the code of the side that closed first ([SYN-25](../behaviour.md#syn-25)).

| code | closed by the application | closed by the hub |
| --- | --- | --- |
| 1000 | leaves | unsubscribed, or the lease has ended |
| 1001 | leaves, as a page that is closed | the hub stops |
| 1006 | the connection broke, or no ping was answered | |
| 1007 | | a text frame was no UTF-8 ([SYN-33](../behaviour.md#syn-33)) |
| 1008 | | another socket took over ([SUB-33](../behaviour.md#sub-33)), or too many frames came ([SYN-17](../behaviour.md#syn-17)) |
| 1009 | | a frame was over 64 KiB ([SYN-29](../behaviour.md#syn-29)) |
| 1012 | | this node begins anew, or missed a change ([NOD-8](../behaviour.md#nod-8), [NOD-14](../behaviour.md#nod-14)) |
| 1013 | | the reader was too slow ([SYN-14](../behaviour.md#syn-14)) |

## Texts of libraries

`library message` has a `reason` for these texts only. The other texts could quote a request, and are left out. `%s` stands for a number.

"""
