"""`fhircast check`: joins a session step by step. Tells which step fails, and the usual reason.

The steps are those of the specification: discovery (FHIRcast 3.0.0, 2.7), token (2.2), subscription, socket,
confirmation (2.4), and the echo of an own event (2.5, 2.6). The event has a reverse-domain name, so that no context
changes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from fhircast_client.errors import in_one_line
from fhircast_client.event_names import never_matches, shown
from fhircast_client.hub import checked_url, words
from fhircast_client.proxies import UnusableProxy, http_client
from fhircast_client.socket import Connect, Socket
from fhircast_client.socket import connect as open_channel
from fhircast_client.tokens import can_be_sent
from fhircast_client.unreachable import why_unreachable

#: Published by the check, which also subscribes to it. No application should follow it.
EVENT = "org.fhircast.check"
#: Seconds that each step may take.
PATIENCE = 10


class Step(NamedTuple):
    """The result of a step. `good` is None where the step could not be tried. `text`: the result, or what to look at."""

    name: str
    good: bool | None
    text: str


class _Failed(Exception):
    """A step failed. The text is for users."""


async def check(
    hub_url: str,
    topic: str,
    token: str | None,
    name: str,
    events: str,
    *,
    http: httpx.AsyncClient | None = None,
    connect: Connect = open_channel,
) -> AsyncIterator[Step]:
    """Run the steps, until a step fails that the next ones need. `events`: event names with commas.

    `http` and `connect` (from an endpoint to a WebSocket) replace the check's own. A given `http` is closed at the end.
    """
    async with http or http_client(PATIENCE) as http:
        try:
            checked_url(hub_url)
        except ValueError as error:
            yield Step("discovery", False, str(error))
            return
        yield await _tried("discovery", _discovery(http, hub_url), hub_url)
        yield await _tried("token", _token(token), hub_url)
        if token and not can_be_sent(token):
            return
        hub = _Hub(http, connect, hub_url, topic, token, name, events)
        if said := hub.names():
            yield Step("names", False, said)
        try:
            for step, attempt in hub.steps():
                last = await _tried(step, attempt(), hub_url)
                yield last
                if last.good is False:
                    break
            else:
                if said := await hub.others():
                    yield Step("participants", None, said)
        finally:
            await hub.leave()


async def _tried(name: str, attempt: Awaitable[str], hub_url: str) -> Step:
    try:
        return Step(name, True, await attempt)
    except _Failed as failure:
        return Step(name, False, str(failure))
    except _NotTried as reason:
        return Step(name, None, str(reason))
    except (TimeoutError, httpx.TimeoutException):
        return Step(name, False, f"nothing came within {PATIENCE} seconds")
    except UnusableProxy as error:
        return Step(name, False, str(error))
    except (httpx.HTTPError, OSError) as error:
        return Step(name, False, f"the hub cannot be reached: {why_unreachable(error, hub_url)}")


class _NotTried(Exception):
    """A step that cannot be tried here."""


async def _discovery(http: httpx.AsyncClient, hub_url: str) -> str:
    answer = await http.get(f"{hub_url.rstrip('/')}/.well-known/fhircast-configuration")
    if answer.status_code != httpx.codes.OK:
        raise _Failed(
            f"HTTP {answer.status_code}: is {hub_url} the hub.url? It has no .well-known/fhircast-configuration"
        )
    found = _object(answer)
    if found.get("websocketSupport") is not True:
        raise _Failed("the hub declares no websocketSupport")
    names = found.get("eventsSupported")
    count = len(names) if isinstance(names, list) else 0
    return f"FHIRcast {found.get('fhircastVersion', 'of unknown version')}, {count} events"


async def _token(token: str | None) -> str:
    """The claims of the token. The next step shows whether the hub accepts the token."""
    if not token:
        raise _NotTried("no token given: only a hub without authorization accepts that")
    if not can_be_sent(token):
        raise _Failed("the token has invalid characters, such as spaces")
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, binascii.Error):
        raise _NotTried("an opaque token: only its issuer can read it") from None
    if not isinstance(claims, dict):
        raise _Failed("the token is a JWT, but its claims are not a JSON object")
    if not isinstance(claims.get("exp"), int | float):
        raise _Failed("the token has no exp (time of expiry)")
    left = claims["exp"] - time.time()
    if left <= 0:
        raise _Failed(f"the token expired {-left:.0f} seconds ago")
    scopes = claims.get("scope") or claims.get("scp")
    given = scopes.split(" ") if isinstance(scopes, str) else map(str, scopes if isinstance(scopes, list) else ())
    fhircast = [scope for scope in given if scope.lower().startswith("fhircast/")]
    if not fhircast:
        raise _Failed("the token has no fhircast/ scope")
    return f"issuer {claims.get('iss')}, audience {claims.get('aud')}, {left:.0f} s left, {' '.join(fhircast)}"


class _Hub:
    """One subscription, step by step."""

    def __init__(
        self, http: httpx.AsyncClient, connect: Connect, url: str, topic: str, token: str | None, name: str, events: str
    ) -> None:
        self._http, self._open, self._url, self._topic, self._name = http, connect, url.rstrip("/"), topic, name
        self._asked = [name.strip() for name in events.split(",") if name.strip()]
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._endpoint = ""
        self._socket: Socket | None = None
        self._granted: list[str] = []
        self._takes_any_name = True

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        return [
            ("subscribe", self._subscribe),
            ("socket", self._connect),
            ("confirmation", self._confirmation),
            ("echo", self._echo),
        ]

    def names(self) -> str:
        """Requested names that no event can have, as a sentence; "" where there is none. A hub may grant them all the
        same."""
        never = [shown(name) for name in self._asked if never_matches(name)]
        return f"no event can have this name, so no event will come: {', '.join(never)}" if never else ""

    async def others(self) -> str:
        """Other participants with such names, where the hub lists participants. Most hubs do not."""
        try:
            url = httpx.URL(self._url).copy_with(
                raw_path=f"/sessions/{quote(self._topic, safe='')}/participants".encode()
            )
            answer = await self._http.get(url, headers=self._headers)
            found = answer.json() if answer.status_code == httpx.codes.OK else []
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError):
            return ""
        said = [
            f"{each.get('name') or 'somebody without a name'} has subscribed to {', '.join(map(shown, names))}"
            for each in (found if isinstance(found, list) else [])
            if isinstance(each, dict) and each.get("name") != self._name and (names := _texts(each.get("neverMatch")))
        ]
        return "; ".join(said) + ": no event can have such a name" if said else ""

    async def _subscribe(self) -> str:
        answer = await self._post(self._form("subscribe", ",".join([*self._asked, EVENT])))
        if answer.status_code == httpx.codes.BAD_REQUEST:
            # Some hubs accept only the names of the catalogue.
            self._takes_any_name = False
            answer = await self._post(self._form("subscribe", ",".join(self._asked)))
        if answer.status_code != httpx.codes.ACCEPTED:
            raise _Failed(_explained(answer))
        endpoint = _object(answer).get("hub.channel.endpoint")
        if not isinstance(endpoint, str) or not endpoint.startswith(("ws://", "wss://")):
            raise _Failed("202, but the answer has no hub.channel.endpoint that begins with wss://")
        self._endpoint = endpoint
        return "202 Accepted, with an endpoint"

    async def _connect(self) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                self._socket = await self._open(self._endpoint)
        except (TimeoutError, UnusableProxy):
            raise
        except OSError as error:
            raise _Failed(f"the hub cannot be reached: {why_unreachable(error, self._endpoint)}") from None
        except Exception as error:
            # Only type and status: the text may contain the endpoint, which is a secret.
            status = getattr(getattr(error, "response", None), "status_code", None)
            said = f"HTTP {status}" if status else type(error).__name__
            raise _Failed(f"the WebSocket's handshake failed ({said}): does a proxy let WebSockets pass?") from None
        return f"open at {httpx.URL(self._endpoint).host}"

    async def _confirmation(self) -> str:
        first = await self._next()
        if str(first.get("hub.mode")) != "subscribe":
            raise _Failed("the first frame is not a confirmation (hub.mode subscribe)")
        events = first.get("hub.events", "")
        self._granted = [name for name in (events.split(",") if isinstance(events, str) else events) if name]
        without = [name for name in self._asked if name.lower() not in {granted.lower() for granted in self._granted}]
        missing = f"; not granted: {', '.join(without)} (look at the token's scopes)" if without else ""
        return f"{', '.join(self._granted)}; a lease of {first.get('hub.lease_seconds')} s{missing}"

    async def _echo(self) -> str:
        """Publish an event, and wait for its echo."""
        if not self._takes_any_name:
            raise _NotTried("the hub accepts only event names of the catalogue")
        if EVENT not in {name.lower() for name in self._granted}:
            raise _NotTried(f"the token may not read {EVENT}")
        event = {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "id": str(uuid.uuid4()),
            "event": {"hub.topic": self._topic, "hub.event": EVENT, "context": []},
        }
        began = time.monotonic()
        answer = await self._http.post(self._url, json=event, headers=self._headers)
        if answer.status_code == httpx.codes.FORBIDDEN:
            raise _NotTried(f"the token may not publish {EVENT}")
        if not answer.is_success:
            raise _Failed(_explained(answer))
        while (message := await self._next()).get("id") != event["id"]:
            await self._acknowledge(message)
        await self._acknowledge(message)
        return f"an event of this check came back after {(time.monotonic() - began) * 1000:.0f} ms"

    async def _acknowledge(self, message: dict[str, Any]) -> None:
        assert self._socket
        if "id" in message:
            await self._socket.send(json.dumps({"id": message["id"], "status": 200}))

    async def _next(self) -> dict[str, Any]:
        assert self._socket
        async with asyncio.timeout(PATIENCE):
            try:
                frame = await self._socket.recv()
            except Exception:
                code = self._socket.close_code
                said = in_one_line(getattr(self._socket, "close_reason", None) or "")
                why = "the hub closed the socket" + (f" (code {code})" if code else "")
                raise _Failed(f"{why}: {said}" if said else why) from None
        try:
            message = json.loads(frame)
        except (ValueError, RecursionError):
            raise _Failed("the hub sent a frame that is not JSON") from None
        if not isinstance(message, dict):
            raise _Failed("the hub sent a frame that is not a JSON object")
        return message

    async def leave(self) -> None:
        """Unsubscribe and close, after whichever step."""
        if self._endpoint:
            form = self._form("unsubscribe") | {"hub.channel.endpoint": self._endpoint}
            try:
                await self._post(form)
            except httpx.HTTPError:
                pass  # the lease ends by itself
        if self._socket is not None:
            await self._socket.close()

    def _form(self, mode: str, events: str = "") -> dict[str, str]:
        form = {"hub.channel.type": "websocket", "hub.mode": mode, "hub.topic": self._topic}
        if events:
            form["hub.events"] = events
        return form | {"subscriber.name": self._name}

    async def _post(self, form: dict[str, str]) -> httpx.Response:
        return await self._http.post(self._url, data=form, headers=self._headers)


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


_USUAL = {
    400: "the hub does not accept the request",
    401: "the hub does not take the token: expired, another audience, or an issuer that the hub does not know",
    403: "the token's scopes do not allow it, or the session (hub.topic) is another user's",
    404: "not found: check hub.url, which may have the topic at its end",
    415: "the hub expects another Content-Type",
    429: "too many subscriptions or requests",
    503: "the hub cannot reach the token's issuer, or is starting",
}


def _explained(answer: httpx.Response) -> str:
    """Status, the hub's own words, and then the usual reason."""
    usual = _USUAL.get(answer.status_code, "the hub has a problem" if answer.is_server_error else "unexpected")
    said = words(answer).rstrip(".")
    return f"HTTP {answer.status_code}, the hub says: {said or 'nothing'}. Usual reason: {usual}"


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _Failed(f"HTTP {answer.status_code}, but the body is not a JSON object")
    return found
