"""A session to look at: an EHR drives, a viewer, a chart and a late reporting application follow. `python -m demo`"""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on, or somebody is out of step. `str(error)` is what its user reads."""
