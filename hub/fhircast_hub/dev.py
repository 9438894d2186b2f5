"""`fhircast-hub dev`: a hub for development. The hub trusts a key that the hub makes at its start, and listens on loopback only.

`fhircast-hub token` makes tokens with that key. The command finds the key in a file that only this user can read. The hub deletes the file
when it stops. Each dev hub has a file of its own, named by port. Never for patients: a reader of the file can be any clinician.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import CONSOLE_WRITE, Scopes

AUDIENCE = "fhircast-hub-dev"
#: The default user of tokens, and the user of requests without a token (`dev --legacy`).
USER = "clinician-1"
#: Seconds until a token expires, by default.
LIFETIME = 8 * 3600
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Networks that callbacks may lead to, by default: developers run their webhooks on this machine.
_CALLBACKS = ("127.0.0.0/8", "::1/128")


class DevIssuer(msgspec.Struct, frozen=True):
    """An authorization server in a few lines: it signs any token."""

    issuer: str
    #: The private key, in PEM.
    key: str

    @classmethod
    def make(cls, origin: str) -> DevIssuer:
        """An issuer with a new key, for the hub at this origin."""
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(issuer=f"{origin}/dev", key=pem.decode())

    def token(
        self,
        *,
        user: str = USER,
        scope: str = "fhircast/*.*",
        client: str = "dev",
        topic: str | None = None,
        lifetime: int = LIFETIME,
    ) -> str:
        """A signed token; `topic` becomes its hub.topic claim, `lifetime` is in seconds."""
        now = int(time.time())
        claims: dict[str, Any] = {"iss": self.issuer, "aud": AUDIENCE, "iat": now, "exp": now + lifetime}
        claims |= {"sub": user, "client_id": client, "scope": scope}
        if topic is not None:
            claims["hub.topic"] = topic
        return jwt.encode(claims, self.key, "ES256", {"kid": "dev"})

    def console_link(self) -> str:
        """The URL of the operator's console, with a token for it in the fragment, which no server is sent (CSL-12)."""
        origin = self.issuer.removesuffix("/dev").replace("//127.0.0.1:", "//localhost:")
        return f"{origin}/console#token={self.token(user='operator', scope=CONSOLE_WRITE, client='console')}"

    async def jwks(self) -> dict[str, Any]:
        """The key set with the public key, as the hub fetches it."""
        public = serialization.load_pem_private_key(self.key.encode(), None).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return {"keys": [ECAlgorithm.to_jwk(public, as_dict=True) | {"kid": "dev", "use": "sig", "alg": "ES256"}]}

    def anonymous(self) -> Principal:
        """The principal of requests without a token (`dev --legacy`): the default user of tokens, so that both share topics."""
        everything = frozenset("*")
        return Principal(self.issuer, USER, "legacy", Scopes(everything, everything), expires=float("inf"))


def environment(
    environ: Mapping[str, str], port: int | None, *, legacy: bool = False
) -> tuple[dict[str, str], DevIssuer]:
    """The settings of a dev hub, as environment variables, and its issuer.

    `port` wins over FHIRCAST_PORT. Raises ValueError if FHIRCAST_HOST is not a loopback address.
    """
    host = environ.get("FHIRCAST_HOST", _LOOPBACK[0])
    if host not in _LOOPBACK:
        raise ValueError(f"FHIRCAST_HOST must be a loopback address, not {host!r}: a dev hub is for this machine only")
    chosen = str(port) if port is not None else environ.get("FHIRCAST_PORT", "8080")
    issuer = DevIssuer.make(f"http://{_in_url(host)}:{chosen}")
    own = {"issuer": issuer.issuer, "audience": AUDIENCE, "jwks_uri": f"{issuer.issuer}/jwks"}
    defaults = _defaults(host, chosen, legacy=legacy)
    return {**defaults, **environ, "FHIRCAST_PORT": chosen, "FHIRCAST_ISSUERS": json.dumps([own])}, issuer


def _defaults(host: str, port: str, *, legacy: bool) -> dict[str, str]:
    """Settings of a dev hub, where the environment has none."""
    shown = "localhost" if host == _LOOPBACK[0] else host
    return {
        "FHIRCAST_HOST": host,
        "FHIRCAST_PUBLIC_URL": f"http://{_in_url(shown)}:{port}/api/hub",
        "FHIRCAST_STORE": "memory:",
        # If no token is needed, any web page could make the hub send requests to this machine's ports.
        "FHIRCAST_WEBHOOK_ALLOWED_NETWORKS": json.dumps(() if legacy else _CALLBACKS),
        # No limits: tests of applications are faster than clinicians, and share one address.
        "FHIRCAST_RATE_LIMIT_TOKEN": "0",
        "FHIRCAST_RATE_LIMIT_ADDRESS": "0",
        "FHIRCAST_LOG_FORMAT": "console",
        "FHIRCAST_CONSOLE": "true",
    }


def _in_url(host: str) -> str:
    """The host as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


@contextmanager
def published(issuer: DevIssuer, port: int) -> Iterator[None]:
    """Publish the issuer in a locked file inside of the block, so that `fhircast-hub token` of this user finds it.

    Raises ValueError if the file cannot be made: it may be another user's.
    """
    path = _folder() / f"{_prefix()}{port}.json"
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; set XDG_RUNTIME_DIR to a folder of your own") from None
    with open(descriptor, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(msgspec.json.encode(issuer))
        file.flush()
        try:
            yield
        finally:
            # A later dev hub at this port may have replaced the file.
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                path.unlink()


def running(port: int | None = None) -> DevIssuer:
    """The issuer of the dev hub at `port`; without `port`, of the only dev hub that runs.

    Raises ValueError if there is none, or if several run and `port` is not given. The text names their ports.
    """
    found = _running()
    start = "start one with: fhircast-hub dev"
    if not found:
        raise ValueError(f"no dev hub runs for this user; {start}")
    ports = ", ".join(map(str, found))
    if port is None and len(found) > 1:
        raise ValueError(f"--port is required: this user's dev hubs run at the ports {ports}")
    if port is not None and port not in found:
        raise ValueError(f"--port must be {ports}, where this user's dev hubs run, not {port}; {start} --port {port}")
    return found[port] if port is not None else next(iter(found.values()))


def _running() -> dict[int, DevIssuer]:
    """The issuers of this user's running dev hubs, by port. The file of a killed hub is not locked, and is ignored."""
    found: dict[int, DevIssuer] = {}
    for path in _folder().glob(f"{_prefix()}*.json"):
        port = re.fullmatch(r"(\d{1,5})\.json", path.name.removeprefix(_prefix()), re.ASCII)
        if port is None:
            continue
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
                continue  # another user made it: the folder may be /tmp
            with path.open("rb") as file:
                if _is_locked(file):
                    found[int(port[1])] = msgspec.json.decode(file.read(), type=DevIssuer)
        except (OSError, msgspec.MsgspecError):
            continue
    return dict(sorted(found.items()))


def _is_locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _folder() -> Path:
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())


def _prefix() -> str:
    return f"fhircast-hub-dev-{os.getuid()}-"


_EVENT = {
    # The shell fills these in: applications that compare timestamps ignore old events.
    "timestamp": "$(date -u +%FT%TZ)",
    "id": "by-hand-$(date +%s)",
    "event": {
        "hub.topic": "demo",
        "hub.event": "Patient-open",
        "context": [{"key": "patient", "resource": {"resourceType": "Patient", "id": "p1"}}],
    },
}
_COMMANDS = (
    "# Subscribe to the topic `demo`; the answer contains a WebSocket endpoint:",
    'curl -sS $HUB -H "Authorization: Bearer $TOKEN" -d hub.channel.type=websocket -d hub.mode=subscribe \\',
    "  -d hub.topic=demo -d hub.events=Patient-open,Patient-close",
    "# Follow the topic (in another terminal):",
    "websockets ENDPOINT",
    "# Open a patient:",
    'curl -sSi $HUB -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" -d @- <<END',
    json.dumps(_EVENT),
    "END",
    "# Read the current context:",
    'curl -sS $HUB/demo -H "Authorization: Bearer $TOKEN"',
    "",
    "# For `fhircast check` and `fhircast listen` of the client library:",
    "export FHIRCAST_HUB=$HUB FHIRCAST_TOPIC=demo FHIRCAST_TOKEN=$TOKEN",
)


def banner(hub_url: str, token: str, port: int, *, legacy: bool, console: str = "") -> str:
    """The text printed at the start: commands to paste into a shell. `console`: the console's URL. "": there is no console."""
    lines = [
        "INSECURE: a development hub, for this machine only. It trusts a key that it has just made. Not for patients.",
        *(
            ["INSECURE: --legacy accepts requests without a token, and endpoints that clients choose."]
            if legacy
            else []
        ),
        "",
        f"export HUB={hub_url}",
        f"export TOKEN={token}",
        "",
        *_COMMANDS,
        "",
        f"Another token: fhircast-hub token --port {port} --user clinician-2 --scope 'fhircast/*.read'",
        "A restarted hub has a new key, and accepts new tokens only.",
        *(["", f"console   {console}"] if console else []),
    ]
    return "\n".join(lines)
