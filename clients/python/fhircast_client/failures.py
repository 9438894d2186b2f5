"""Logging of exceptions: only type and place, because the text may name a patient. Debug logging shows the whole
exception."""

from __future__ import annotations

import logging
import traceback

_log = logging.getLogger("fhircast_client")


def log_failure(what: str, error: BaseException) -> None:
    """Log a failure, such as "the handler of Patient-open failed". With level DEBUG, the traceback and the text follow."""
    _log.error("%s: %s in %s", what, type(error).__name__, _place_of(error))
    _log.debug("%s", what, exc_info=error)


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
