"""The login of the demo's pages (web/smart.js), in Node: whose answer to a login is believed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.node import NODE

SMART = Path(__file__).parents[2] / "demo" / "web" / "smart.js"
ISSUER = "http://localhost:8082"
#: A page that begins a login at a server which announces what `found` says, and comes back with the query `answer`.
PAGE = """
const kept = {};
globalThis.sessionStorage = new Proxy(kept, {
  get: (_, name) => ({
    getItem: (key) => kept[key] ?? null,
    setItem: (key, value) => (kept[key] = value),
    removeItem: (key) => delete kept[key],
  })[name],
});
globalThis.document = Object.assign(new EventTarget(), { documentElement: {} });
globalThis.history = { replaceState() {} };
const gone = Promise.withResolvers();
globalThis.location = { origin: "http://localhost:8084", pathname: "/", search: "", assign: gone.resolve };
const [smart, found, answer] = process.argv.slice(1);
const asked = [];
globalThis.fetch = async (url) => {
  asked.push(url);
  return Response.json(url.endsWith("/token") ? { access_token: "a-token" } : JSON.parse(found));
};
const { beginLogin, finishLogin, keptLogin } = await import(smart);
beginLogin({ key: "viewer", server: "http://localhost:8082", clientId: "viewer", scope: "openid", aud: "x" });
const state = new URL(await gone.promise).searchParams.get("state");
location.search = `?state=${state}&${answer}`;
const refused = await finishLogin().then(() => null, (error) => error.name);
console.log(JSON.stringify({ refused, kept: keptLogin("viewer") !== null, asked: asked.length }));
"""
ANNOUNCED = {"authorization_response_iss_parameter_supported": True}
NOT_ANNOUNCED = {"authorization_response_iss_parameter_supported": False}


def login(found: dict[str, Any], answer: str) -> dict[str, Any]:
    """What became of it."""
    metadata = {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "end_session_endpoint": f"{ISSUER}/end-session",
    }
    command = [str(NODE), "--no-warnings", "--input-type=module", "--eval", PAGE, str(SMART)]
    ended = subprocess.run(
        [*command, json.dumps(metadata | found), answer], capture_output=True, text=True, timeout=30, check=True
    )
    return dict(json.loads(ended.stdout))


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (ANNOUNCED, "code=c"),
        (ANNOUNCED, "code=c&iss="),
        (ANNOUNCED, "code=c&iss=http://localhost:8083"),
        (ANNOUNCED, "error=access_denied"),
        (NOT_ANNOUNCED, "code=c&iss=http://localhost:8083"),
        ({}, "code=c&iss=http://localhost:8083"),
    ],
)
def test_an_answer_of_another_server_is_refused(found: dict[str, Any], answer: str) -> None:
    """RFC 9207, 2.4: and so is one that does not say whose it is, of a server that announces that it does. No code is redeemed."""
    assert login(found, answer) == {"refused": "LoginError", "kept": False, "asked": 1}


@pytest.mark.parametrize(
    ("found", "answer"),
    [(ANNOUNCED, f"code=c&iss={ISSUER}"), (NOT_ANNOUNCED, "code=c"), ({}, "code=c"), ({}, f"code=c&iss={ISSUER}")],
)
def test_an_answer_of_the_server_that_was_asked_is_taken(found: dict[str, Any], answer: str) -> None:
    """Also of one that knows nothing of RFC 9207."""
    assert login(found, answer) == {"refused": None, "kept": True, "asked": 2}
