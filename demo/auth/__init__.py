"""An authorization server as an EHR has it: SMART App Launch 2.2, a login without passwords, and failures to order.

    app = make_app(AuthServer(issuer="http://localhost:9001", ...))

Several run side by side in one process, each with its own AuthServer. What it does is meant to be copied; that anybody may be
any clinician, and that nothing outlives the process, is not.
"""

from __future__ import annotations

from demo.auth.app import make_app
from demo.auth.discovery import smart_configuration
from demo.auth.model import Client, Clinician, HubSessions
from demo.auth.server import CLINICIANS, AuthServer
from demo.auth.signing import InvalidToken
from demo.auth.texts import Text

__all__ = [
    "CLINICIANS",
    "AuthServer",
    "Client",
    "Clinician",
    "HubSessions",
    "InvalidToken",
    "Text",
    "make_app",
    "smart_configuration",
]
