"""What the demo prints: who, which event, what it means to them; one line each."""

from __future__ import annotations

import os
import sys

#: ANSI colours, by who speaks.
COLOURS = {"hub": "34", "auth": "90", "ehr": "33", "viewer": "36", "chart": "32", "reporting": "35"}
BOLD = "1"


def say(who: str, what: str, words: str) -> None:
    """One line."""
    print(f"{paint(f'{who:<9}', COLOURS[who])}  {what:<18}  {words}", flush=True)


def title(words: str) -> None:
    """What the next lines are about."""
    print(f"\n{paint(words, BOLD)}", flush=True)


def paint(text: str, colour: str) -> str:
    """`text` in a colour, where colours are wanted (no-color.org, force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m" if os.environ.get("FORCE_COLOR") or sys.stdout.isatty() else text
