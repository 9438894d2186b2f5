"""`fhircast-hub dev`: a hub to try things with, that trusts a key made when it starts, and listens on loopback only.

Its tokens come from `fhircast-hub token`, which finds the key in a file that only this user can read and that is gone when the
hub stops. Several dev hubs have a file each, named by port. Never for patients: whoever can read that file is every clinician.
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
from fhircast_hub.core.access.scopes import Scopes

AUDIENCE = "fhircast-hub-dev"
#: Who the tokens name unless asked otherwise, and who a legacy client is.
USER = "clinician-1"
#: Seconds that a token is good for.
LIFETIME = 8 * 3600
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Where callbacks may be, unless the environment says otherwise: whoever tries a webhook out has it on this machine.
_CALLBACKS = ("127.0.0.0/8", "::1/128")


class DevIssuer(msgspec.Struct, frozen=True):
    """An authorization server in a few lines: it signs what it is asked to. `key` is its private key in PEM."""

    issuer: str
    key: str

    @classmethod
    def make(cls, origin: str) -> DevIssuer:
        """A new key, for the hub at this origin."""
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

    def jwks(self) -> dict[str, Any]:
        """Its public key, as the hub fetches it."""
        public = serialization.load_pem_private_key(self.key.encode(), None).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return {"keys": [ECAlgorithm.to_jwk(public, as_dict=True) | {"kid": "dev", "use": "sig", "alg": "ES256"}]}

    def anonymous(self) -> Principal:
        """Who sends no token (`dev --legacy`): the user that tokens name by default, so that old and new clients meet."""
        everything = frozenset("*")
        return Principal(self.issuer, USER, "legacy", Scopes(everything, everything), expires=float("inf"))


def environment(
    environ: Mapping[str, str], port: int | None, *, legacy: bool = False
) -> tuple[dict[str, str], DevIssuer]:
    """The settings of a dev hub, as environment variables, and its issuer. Raises ValueError where it would not be local."""
    host = environ.get("FHIRCAST_HOST", _LOOPBACK[0])
    if host not in _LOOPBACK:
        raise ValueError(
            f"FHIRCAST_HOST: got {host!r}, expected a loopback address: a dev hub is for this machine only"
        )
    chosen = str(port) if port is not None else environ.get("FHIRCAST_PORT", "8080")
    issuer = DevIssuer.make(f"http://{f'[{host}]' if ':' in host else host}:{chosen}")
    own = {"issuer": issuer.issuer, "audience": AUDIENCE, "jwks_uri": f"{issuer.issuer}/jwks"}
    shown = "localhost" if host == _LOOPBACK[0] else host
    defaults = {
        "FHIRCAST_HOST": host,
        "FHIRCAST_PUBLIC_URL": f"http://{f'[{shown}]' if ':' in shown else shown}:{chosen}/api/hub",
        "FHIRCAST_STORE": "memory:",
        # Without a token any web page could make the hub ask what else runs on this machine.
        "FHIRCAST_WEBHOOK_ALLOWED_NETWORKS": json.dumps(() if legacy else _CALLBACKS),
        # Tests of applications are faster than clinicians, and all come from here.
        "FHIRCAST_RATE_LIMIT_TOKEN": "0",
        "FHIRCAST_RATE_LIMIT_ADDRESS": "0",
        "FHIRCAST_LOG_FORMAT": "console",
    }
    return {**defaults, **environ, "FHIRCAST_PORT": chosen, "FHIRCAST_ISSUERS": json.dumps([own])}, issuer


@contextmanager
def published(issuer: DevIssuer, port: int) -> Iterator[None]:
    """Let `fhircast-hub token` of this user find the issuer while the hub runs: as long as it holds the file's lock.

    Raises ValueError where the file cannot be made, because it is another user's for instance.
    """
    path = _folder() / f"{_prefix()}{port}.json"
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; a folder of your own may be named by XDG_RUNTIME_DIR") from None
    with open(descriptor, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(msgspec.json.encode(issuer))
        file.flush()
        try:
            yield
        finally:
            if (
                path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino
            ):  # a later dev hub may have its own
                path.unlink()


def running(port: int | None = None) -> DevIssuer:
    """The issuer of the dev hub that runs on `port`, or of the only one that runs.

    Raises ValueError where none does, or where several do and `port` names none of them; the text names their ports.
    """
    found = _running()
    start = "start one with: fhircast-hub dev"
    if not found:
        raise ValueError(f"no dev hub runs for this user; {start}")
    ports = ", ".join(map(str, found))
    if port is None and len(found) > 1:
        raise ValueError(f"--port: got none, expected one of {ports}, where dev hubs of this user run")
    if port is not None and port not in found:
        raise ValueError(f"--port: got {port}, expected {ports}, where this user's dev hubs run; {start} --port {port}")
    return found[port] if port is not None else next(iter(found.values()))


def _running() -> dict[int, DevIssuer]:
    """The issuers of this user's dev hubs that run, by port. The file of a hub that was killed counts for nothing."""
    found: dict[int, DevIssuer] = {}
    for path in _folder().glob(f"{_prefix()}*.json"):
        port = re.fullmatch(r"(\d{1,5})\.json", path.name.removeprefix(_prefix()), re.ASCII)
        if port is None:
            continue
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
                continue  # in a folder for everybody, somebody else made it
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


def banner(hub_url: str, token: str, port: int, *, legacy: bool) -> str:
    """What a developer pastes to see it work."""
    event = {
        # Filled in by the shell: applications that go by timestamps ignore what is older than what they show.
        "timestamp": "$(date -u +%FT%TZ)",
        "id": "by-hand-$(date +%s)",
        "event": {
            "hub.topic": "demo",
            "hub.event": "Patient-open",
            "context": [{"key": "patient", "resource": {"resourceType": "Patient", "id": "p1"}}],
        },
    }
    lines = [
        "INSECURE: a development hub. It trusts a key made just now, and this machine only. Not for patients.",
        *(["INSECURE: --legacy takes requests without a token, and endpoints that clients choose."] if legacy else []),
        "",
        f"export HUB={hub_url}",
        f"export TOKEN={token}",
        "",
        "# Subscribe to the topic `demo`; the answer holds a WebSocket endpoint:",
        'curl -s $HUB -H "Authorization: Bearer $TOKEN" -d hub.channel.type=websocket -d hub.mode=subscribe \\',
        "  -d hub.topic=demo -d hub.events=Patient-open,Patient-close",
        "# Follow it (in another terminal):",
        "websockets ENDPOINT",
        "# Open a patient:",
        'curl -si $HUB -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" -d @- <<END',
        json.dumps(event),
        "END",
        "# What is open now?",
        'curl -s $HUB/demo -H "Authorization: Bearer $TOKEN"',
        "",
        "# With the client library, `fhircast check` and `fhircast listen` work after this:",
        "export FHIRCAST_HUB=$HUB FHIRCAST_TOPIC=demo FHIRCAST_TOKEN=$TOKEN",
        "",
        f"Another token: fhircast-hub token --port {port} --user clinician-2 --scope 'fhircast/*.read'",
        "A hub that is started again has a new key, and takes new tokens only.",
    ]
    return "\n".join(lines)
