"""The servers that bench.py measures: hubs with an issuer made for the run, and the baselines of loadgen/drive.py."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "loadgen"))
import drive as drive  # noqa: E402  # it stands where the line above looks, and others import it from here

ROOT = HERE.parents[1]
HUB = ["-m", "fhircast_hub"]
STORES = {"sqlite": "sqlite:///{folder}/hub.db", "memory": "memory:"}
AUDIENCE = "hub"
TOKEN_SECONDS = 12 * 3600  # longer than any run
SERVER_CPU, LOAD_CPU = 0, 1  # as loadgen/drive.py pins them
SECRET_KEY = "the-secret-key-of-all-nodes-of-this-run"


# --- the interpreter -------------------------------------------------------------------------------------------------


class Interpreter(NamedTuple):
    """A Python for the hub and the baselines in Python, and the variables with which the Python finds their packages."""

    path: str = sys.executable
    env: Mapping[str, str] = MappingProxyType({})

    def says(self, code: str) -> str:
        """The output of the code. Raises OSError, and CalledProcessError where the code fails."""
        command, env = [self.path, "-c", code], os.environ | dict(self.env)
        return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


THIS = Interpreter()


def interpreter(path: str) -> Interpreter:
    """The Python at the path, with this one's packages. Ends the program where these would not work on that version."""
    packages = [str(ROOT / "hub"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    other = Interpreter(path, {"PYTHONPATH": os.pathsep.join(dict.fromkeys(packages))})
    try:
        version = other.says("import sys; print(*sys.version_info[:2])")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: --python: {error}")
    if version != "{} {}".format(*sys.version_info):
        sys.exit(f"bench: --python: the packages are for Python {sys.version.split()[0]}, not {version}")
    return other


# --- the issuer ------------------------------------------------------------------------------------------------------


class Issuer(NamedTuple):
    """The hub's setting for the issuer, and a token that allows everything."""

    settings: str
    token: str


@contextmanager
def issuer() -> Iterator[Issuer]:
    """A key made now, served as a JWKS on the loopback for as long as the context lasts."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    jwks = json.dumps({"keys": [{**public, "kid": "bench", "use": "sig", "alg": "ES256"}]}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(jwks)))
            self.end_headers()
            self.wfile.write(jwks)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, now = f"http://127.0.0.1:{server.server_port}", int(time.time())
    claims = {"iss": url, "aud": AUDIENCE, "sub": "a-user", "client_id": "bench", "scope": "fhircast/*.*"}
    token = jwt.encode({**claims, "iat": now, "exp": now + TOKEN_SECONDS}, key, "ES256", {"kid": "bench"})
    try:
        yield Issuer(json.dumps([{"issuer": url, "audience": AUDIENCE, "jwks_uri": f"{url}/jwks"}]), token)
    finally:
        server.shutdown()
        server.server_close()


# --- the servers -----------------------------------------------------------------------------------------------------


def environment(issuers: str, store: str, log_level: str) -> dict[str, str]:
    """The hub's settings, its limits out of the way; drive.py fills in {port}."""
    return {
        "FHIRCAST_PORT": "{port}",
        "FHIRCAST_PUBLIC_URL": "http://127.0.0.1:{port}/api/hub",
        "FHIRCAST_ISSUERS": issuers,
        "FHIRCAST_STORE": store,
        "FHIRCAST_SECRET_KEY": SECRET_KEY,
        "FHIRCAST_LOG_LEVEL": log_level,
        "FHIRCAST_WEBHOOK_ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        "FHIRCAST_MAX_SUBSCRIPTIONS_PER_TOPIC": "2000",
        "FHIRCAST_MAX_SUBSCRIPTIONS_PER_USER": "20000",
        "FHIRCAST_MAX_TOPICS_PER_USER": "10000",
        "FHIRCAST_MAX_BYTES_PER_USER": str(512 << 20),  # one user has 2,500 sessions with big bodies
        "FHIRCAST_RATE_LIMIT_TOKEN": "0",
        "FHIRCAST_RATE_LIMIT_ADDRESS": "0",
    }


class Hub(drive.Target):  # type: ignore[misc]  # drive.py has no types
    """A hub that is started anew, with an empty store, for each shape. `store` is a name of STORES, or a database's URL."""

    def __init__(
        self,
        name: str,
        store: str,
        issuer: Issuer,
        log_level: str,
        cpus: str = str(SERVER_CPU),
        python: Interpreter = THIS,
    ) -> None:
        super().__init__(name, headers=[f"Authorization: Bearer {issuer.token}"])
        self._python = python
        self.settings = functools.partial(environment, issuer.settings, log_level=log_level)
        self.store, self.folder, self.cpus = STORES.get(store, store), "", cpus

    def start(self) -> Hub:
        self.folder = tempfile.mkdtemp(prefix="fhircast-bench-")
        settings = self.settings(self.store.replace("{folder}", self.folder))
        self.spec: dict[str, Any] = {"cmd": [self._python.path, *HUB, "serve"], "env": {**self._python.env, **settings}}
        super().start()
        return self

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def check(self) -> None:
        """Ends the program where the settings are wrong, with the hub's complaint. Nobody sees the output of a started hub."""
        env = {k: v.replace("{port}", "8080") for k, v in self.settings(STORES["memory"]).items()}
        command = [self._python.path, *HUB, "check-config"]
        env = os.environ | dict(self._python.env) | env
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"{done.stdout}bench: `{' '.join(command[1:])}` ended with {done.returncode}")


def node_modules() -> Path:
    """The folder where `make bench` puts `ws` for node."""
    return Path(os.environ.get("NODE_PATH") or HERE / ".node" / "node_modules")


def baseline(name: str, python: Interpreter = THIS) -> drive.Target:
    """One of drive.py's servers, on this Python where it is written in Python."""
    spec = drive.SERVERS[name]
    command = [python.path if word == drive.PY else word for word in spec["cmd"]]
    env = {**spec.get("env", {}), **(python.env if command != spec["cmd"] else {})}
    if name == "node-ws":
        env["NODE_PATH"] = str(node_modules())
    return drive.Target(name, {**spec, "cmd": command, "env": env})
