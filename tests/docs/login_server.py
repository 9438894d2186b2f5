"""An authorization server in a thread, for native applications: code and PKCE, and the session from the hub's `POST /sessions`.

Nobody types a password: who asks for a code is the clinician 9144889.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from tests.running import PATIENCE
from tests.tokens import Idp

USER, CLIENT, LAUNCHER = "9144889", "native-chart", "login"
SCOPES = "fhircast/Patient-open.* fhircast/Patient-close.* fhircast/SyncError.read"


class LoginServer:
    """Its address, its keys, and the codes that it has given."""

    def __init__(self, port: int, hub_url: str) -> None:
        self.origin, self.hub_url = f"http://127.0.0.1:{port}", hub_url
        self.idp = Idp(self.origin, hub_url)
        self.codes: dict[str, dict[str, str]] = {}

    def settings(self) -> list[dict[str, Any]]:
        """What FHIRCAST_ISSUERS says of it."""
        own = {"issuer": self.origin, "audience": self.hub_url, "user_claim": "hpr_number"}
        return [own | {"jwks_uri": f"{self.origin}/jwks", "system_clients": [LAUNCHER]}]

    def system_token(self) -> str:
        """The server's own token, with which it asks the hub for sessions."""
        return self.idp.token(LAUNCHER, "fhircast-hub/sessions.write", client_id=LAUNCHER)

    def user_token(self, client: str = CLIENT, scope: str = SCOPES) -> str:
        """A token of the clinician."""
        return self.idp.token("ingrid", scope, client_id=client, hpr_number=USER)

    def configuration(self) -> dict[str, Any]:
        """RFC 8414, as SMART on FHIR names the members."""
        return {
            "issuer": self.origin,
            "jwks_uri": f"{self.origin}/jwks",
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "grant_types_supported": ["authorization_code"],
            "code_challenge_methods_supported": ["S256"],
            "capabilities": ["launch-standalone", "client-public"],
        }

    def authorize(self, query: dict[str, str]) -> str:
        """The address to which the browser is sent back. Raises KeyError for a missing parameter."""
        assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
        assert (query["client_id"], query["resource"]) == (CLIENT, self.hub_url)
        assert urlsplit(query["redirect_uri"]).hostname == "127.0.0.1"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        """The answer to a code. Raises AssertionError where the proof (RFC 7636) is wrong, and KeyError for an unknown code."""
        asked = self.codes.pop(form["code"])
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
        assert (form["grant_type"], form["redirect_uri"]) == ("authorization_code", asked["redirect_uri"])
        session = httpx.post(
            f"{self.hub_url.removesuffix('/api/hub')}/sessions",
            json={"user": USER},
            headers={"Authorization": f"Bearer {self.system_token()}"},
            timeout=PATIENCE,
            trust_env=False,
        )
        granted = {
            "access_token": self.user_token(),
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": asked["scope"],
        }
        launch: dict[str, Any] = session.raise_for_status().json()
        return granted | launch


@contextmanager
def login_server(hub_url: str) -> Iterator[LoginServer]:
    """A server for applications of this hub; inside of the block the server answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/authorize":
                self._answer(302, b"", Location=server.authorize(_single(parts.query)))
            elif parts.path == "/jwks":
                self._json(server.idp.jwks())
            else:
                self._json(server.configuration())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._json(server.token(_single(body)))

        def _json(self, content: Any) -> None:
            self._answer(200, json.dumps(content).encode(), Content_Type="application/json", Cache_Control="no-store")

        def _answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content_Length": str(len(body))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server = LoginServer(http.server_port, hub_url)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def _single(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
