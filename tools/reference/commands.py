"""docs/reference/cli.md: the commands `fhircast-hub` and `fhircast`, from the parsers that read them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from fhircast_client.cli import _parser
from fhircast_hub.cli import app
from tools.reference.markdown import code, head, table

_HEADS = ("option", "default", "meaning")
#: Words for the values of options.
_VALUES = {Path: "FILE", int: "NUMBER", str: "TEXT", list[str]: "TEXT"}
Row = tuple[str, str, str]


def hub_commands(command: Any = None, name: str = "fhircast-hub") -> Iterator[tuple[str, Any]]:
    """Each command with its full name, such as `fhircast-hub store upgrade`."""
    command = command or typer.main.get_command(app)
    for word, each in getattr(command, "commands", {}).items():
        yield from hub_commands(each, f"{name} {word}")
    if not hasattr(command, "commands"):
        yield name, command


def hub_rows(command: Any) -> list[Row]:
    """Arguments and options of a command of the hub."""
    rows = []
    for each in command.params:
        is_flag = bool(getattr(each, "is_flag", False))
        is_argument = not each.opts[0].startswith("-")
        word = each.name.upper() if is_argument else each.opts[0]
        value = "" if is_flag or is_argument else f" {_VALUES[each.type_descriptor.annotation]}"
        several = ", several times" if each.multiple else ""
        default = "" if each.default in (None, False, [], ()) or each.required else str(each.default)
        rows.append((f"{code(word + value)}{several}", code(default), _without_default(each.help or "")))
    return rows


def client_commands() -> dict[str, argparse.ArgumentParser]:
    """The commands of `fhircast`, by name."""
    (commands,) = (each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(commands.choices)


def client_help() -> dict[str, str]:
    """What each command of `fhircast` does, in one line."""
    (commands,) = (each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
    return {each.dest: each.help or "" for each in commands._choices_actions}


def client_rows(actions: Sequence[argparse.Action]) -> list[Row]:
    """Arguments and options of `fhircast`."""
    rows = []
    for each in actions:
        if each.dest == "help":
            continue
        word = each.option_strings[0] if each.option_strings else str(each.metavar)
        value = f" {each.metavar or each.dest.upper()}" if each.option_strings and each.nargs != 0 else ""
        several = "" if each.nargs in (None, 0) else ", several"
        # An environment variable may set the default of an option. The page must not show this machine's value.
        is_own = isinstance(each.default, str) and "FHIRCAST_" not in (each.help or "")
        default = each.default if is_own and each.default != argparse.SUPPRESS else ""
        rows.append((f"{code(word + value)}{several}", code(default), _without_default(each.help or "")))
    return rows


def _without_default(text: str) -> str:
    """The help text, without the default, which has a column. Names of events become code: they are no words."""
    text = text.replace(" (default: %(default)s)", "")
    return re.sub(r"by default (.*)", lambda match: f"By default: `{match[1]}`", text)


def _common() -> list[argparse.Action]:
    """The options that all commands of `fhircast` share."""
    first, *others = client_commands().values()
    known = [{each.dest for each in other._actions} for other in others]
    return [each for each in first._actions if all(each.dest in names for names in known)]


def page() -> str:
    """The page."""
    hub = "".join(
        f"\n### {name}\n\n{_paragraphs(command.help)}\n{table(_HEADS, hub_rows(command)).rstrip()}\n"
        for name, command in hub_commands()
    )
    shared = {each.dest for each in _common()}
    client = ""
    for name, command in client_commands().items():
        rows = client_rows([each for each in command._actions if each.dest not in shared])
        about = client_help()[name]
        client += f"\n### fhircast {name}\n\n{about[:1].upper()}{about[1:]}.\n{table(_HEADS, rows).rstrip() if rows else ''}\n"
    common = table(_HEADS, client_rows(_common()))
    return head("Command line", "tools/reference/commands.py") + _HUB + hub + _CLIENT + common.rstrip() + "\n" + client


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


_HUB = """
## fhircast-hub

The package `fhircast-hub` brings this command. `--help` prints the options of each command, `--version` the versions.
[Settings](../settings.md) come from the environment (`FHIRCAST_…`) and from a TOML file, never from options.

| exit code | meaning |
| --- | --- |
| 0 | The command has done its work. `serve` has stopped after a signal. |
| 1 | `serve` could not start, and may later: the database is away, or another program locks the store's file ([OPS-42](../behaviour.md#ops-42)). One line on stderr says why. Or a check of `check-config` failed, or output could not be written. Or a worker had to be killed at the end. |
| 2 | A setting or an option is wrong, or a command could not do its work. One line for each mistake is on stderr ([SEC-3](../behaviour.md#sec-3)). |

| signal to `serve` | effect |
| --- | --- |
| SIGTERM, SIGINT | The hub stops within 10 s ([OPS-3](../behaviour.md#ops-3)). |
| SIGHUP | The hub reads issuers, log settings and the certificate again ([OPS-20](../behaviour.md#ops-20)). |
"""
_CLIENT = """
## fhircast

The package `fhircast-client` brings this command. `fhircast` speaks to any FHIRcast hub, as an application does.
The token is no option, since all users of a machine can read the options of a program.

| exit code | meaning |
| --- | --- |
| 0 | The command has done its work. |
| 1 | The hub refused, a step of `check` failed, or output could not be written. |
| 2 | An option or a file is wrong. |
| 130 | Ctrl-C. `listen` ends with 0. |

All commands have these options. `FHIRCAST_HUB`, `FHIRCAST_TOPIC` and `FHIRCAST_TOKEN` of the environment stand in for them:
"""
