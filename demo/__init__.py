"""The demo: an EHR that drives the session, with viewers, a chart and a reporting application that follow. `python -m
demo`"""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on, or an application is out of sync. `str(error)` is shown to the user."""
