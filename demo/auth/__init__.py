"""An authorization server like that of an EHR: SMART App Launch 2.2, a login without passwords, and failures on
request.

    app = make_app(AuthServer(issuer="http://localhost:9001", ...))

Several can run in one process, each with its own AuthServer. The code is meant to be copied, with two exceptions:
anybody may log in as any clinician, and all state is lost with the process.
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
