"""The hub over HTTP (FHIRcast 3.0.0, 2.4, 2.6, 2.7 and 2.9): subscribe, unsubscribe, publish, get the current context,
discover."""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx

from fhircast_client.errors import HubError, TokenError, in_one_line
from fhircast_client.events import WireMessage, decode, encode
from fhircast_client.pool import Pool
from fhircast_client.proxies import UnusableProxy
from fhircast_client.tokens import Tokens
from fhircast_client.unreachable import why_unreachable

_FORM = "application/x-www-form-urlencoded"
_ENDPOINT = "hub.channel.endpoint"
_UNAUTHORIZED = 401
_HUB_URL = re.compile(
    r"https?://(?P<user>[^/?#\s]*@)?(?:\[[0-9a-f:.]+\]|[^/?#\s:@%]+)(?::(?P<port>\d{1,5}))?(?:[/?#]\S*)?", re.IGNORECASE
)
_MOST_PORT = 65535
_NO_REASON = "no reason given"
#: "Values for the "error_description" attribute MUST NOT include characters outside the set %x20-21 / %x23-5B / %x5D-7E"
_DESCRIPTION = re.compile(r'\berror_description="([^"\\]*)"', re.IGNORECASE)
BUSY = frozenset((429, 503))
#: Headers of a refused handshake that are read.
_TELLING = frozenset(("content-type", "www-authenticate", "retry-after"))


@dataclass(frozen=True, slots=True)
class Configuration:
    """A hub's configuration: its event names in lower case, and whether it declares one order for all events (CFG-4)."""

    events: frozenset[str] = frozenset()
    orders_events: bool = False


class Hub:
    """The requests of one session to one hub. `timeout`: seconds for one answer. `wire` is called with each message,
    without tokens and endpoints. `tls`: the trusted certificates. Raises ValueError for an invalid hub.url or
    hub.topic.

    All requests raise HubError, with status 0 where there was no answer, and TokenError after a second 401.
    """

    def __init__(
        self,
        url: str,
        topic: str,
        *,
        tokens: Tokens,
        timeout: float,
        wire: Callable[[WireMessage], None],
        http: httpx.AsyncClient | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url, self._topic = checked_url(url).rstrip("/"), _checked_topic(topic)
        self._tokens, self._timeout, self._wire = tokens, timeout, wire
        self._pool = Pool(http, timeout, tls)

    async def subscribe(
        self,
        events: Iterable[str],
        *,
        name: str = "",
        lease_seconds: int | None = None,
        endpoint: str | None = None,
        fresh_token: bool = False,
    ) -> str:
        """Subscribe, or renew the subscription of an endpoint. Returns the endpoint, which is a secret."""
        form = self._form("subscribe", name, endpoint)
        form["hub.events"] = ",".join(events)
        if lease_seconds is not None:
            form["hub.lease_seconds"] = str(lease_seconds)
        if fresh_token:
            await self._tokens.renewed(await self._tokens.current())
        answer = _json(await self._send("subscribe", "POST", "", form=form))
        found = answer.get(_ENDPOINT) if isinstance(answer, dict) else None
        if not isinstance(found, str) or not found:
            raise HubError(0, f"the hub's answer to the subscription has no {_ENDPOINT}")
        return found

    async def unsubscribe(self, endpoint: str, name: str = "") -> None:
        """Unsubscribe an endpoint."""
        await self._send("unsubscribe", "POST", "", form=self._form("unsubscribe", name, endpoint))

    async def publish(self, body: Mapping[str, Any]) -> None:
        """Post an event. Retries once where a busy hub asks for a short wait."""
        try:
            await self._send("publish", "POST", "", event=body)
        except HubError as error:
            wait = error.retry_after if error.status in BUSY else None
            if not wait or wait > self._timeout:
                raise
            await asyncio.sleep(wait)
            await self._send("publish", "POST", "", event=body)

    async def context(self) -> Any:
        """The hub's answer to "Get Current Context", as received."""
        return _json(await self._send("context", "GET", f"/{quote(self._topic, safe='')}"))

    async def configuration(self) -> Configuration:
        """The hub's configuration (2.7). Raises HubError, also where the answer is not a JSON object."""
        answer = _json(await self._send("configuration", "GET", "/.well-known/fhircast-configuration", token=False))
        if not isinstance(answer, dict):
            raise HubError(0, "the hub's configuration must be a JSON object", is_hubs=False)
        names, capabilities = answer.get("eventsSupported"), answer.get("capabilities")
        events = [name.lower() for name in names if isinstance(name, str)] if isinstance(names, list) else []
        orders = isinstance(capabilities, dict) and capabilities.get("ordersEvents") is True
        return Configuration(frozenset(events), orders)

    def enter(self) -> None:
        """Raises RuntimeError where the given HTTP client belongs to another event loop."""
        self._pool.enter()

    async def close(self) -> None:
        """Close the client's own connections."""
        await self._pool.close()

    def _form(self, mode: str, name: str, endpoint: str | None) -> dict[str, str]:
        form = {"hub.channel.type": "websocket", "hub.mode": mode, "hub.topic": self._topic}
        if name:
            form["subscriber.name"] = name
        if endpoint is not None:
            form[_ENDPOINT] = endpoint
        return form

    async def _send(
        self,
        kind: str,
        method: str,
        path: str,
        *,
        form: dict[str, str] | None = None,
        event: Mapping[str, Any] | None = None,
        token: bool = True,
    ) -> httpx.Response:
        """Send a request, and send it again with a new token after a 401 (RFC 6750)."""
        bearer = await self._tokens.current() if token else None
        response = await self._exchange(kind, method, path, form, event, bearer)
        if response.status_code == _UNAUTHORIZED and token and self._tokens.changes:
            bearer = await self._tokens.renewed(bearer)
            response = await self._exchange(kind, method, path, form, event, bearer)
        is_hubs = _is_hubs(response)
        reason = (is_hubs and words(response)) or httpx.codes.get_reason_phrase(response.status_code) or _NO_REASON
        if response.status_code == _UNAUTHORIZED:
            raise TokenError(reason, is_hubs=is_hubs)
        if response.is_success and _is_page(response):
            raise HubError(
                0, f"something else than the hub answered, with a page ({response.status_code})", is_hubs=False
            )
        if not response.is_success:
            raise HubError(response.status_code, reason, _retry_after(response), is_hubs=is_hubs)
        return response

    async def _exchange(
        self,
        kind: str,
        method: str,
        path: str,
        form: dict[str, str] | None,
        event: Mapping[str, Any] | None,
        bearer: str | None,
    ) -> httpx.Response:
        """Send one request. Reports the request and its answer to `wire`."""
        self._wire(WireMessage("out", kind, _shown(event if event is not None else form)))
        response = await self._request(method, self._url + path, form, event, bearer)
        self._wire(WireMessage("in", kind, _shown(_json(response)), response.status_code))
        return response

    async def _request(
        self,
        method: str,
        url: str,
        form: dict[str, str] | None,
        event: Mapping[str, Any] | None,
        bearer: str | None,
    ) -> httpx.Response:
        headers = {"Accept": "application/json"}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        content = None
        if event is not None:
            headers["Content-Type"], content = "application/json", encode(event)
        http, outer = await self._pool.http(), sys.exception()
        try:
            async with asyncio.timeout(self._timeout):
                return await http.request(
                    method, url, headers=headers, content=content, data=form, timeout=self._timeout
                )
        except (TimeoutError, httpx.TimeoutException):
            raise HubError(0, f"the hub did not answer within {self._timeout:g} s") from None
        except UnusableProxy as error:
            raise HubError(0, f"the hub cannot be reached: {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, RuntimeError) as error:
            raise HubError(0, f"the hub cannot be reached: {why_unreachable(error, self._url, outer)}") from None


def refusal(error: Exception) -> HubError | None:
    """The HTTP answer that refused a handshake. `message` is "" where the hub gave no text. None where there was no
    answer. `error`: the exception of websockets, or a HubError."""
    if isinstance(error, HubError):
        return error if error.status else None
    answer = getattr(error, "response", None)
    status, body = getattr(answer, "status_code", None), getattr(answer, "body", None)
    if not isinstance(status, int):
        return None
    given: Iterable[tuple[str, str]] = getattr(getattr(answer, "headers", None), "raw_items", tuple)()
    headers = [
        (name.encode(), value.encode(errors="surrogateescape")) for name, value in given if name.lower() in _TELLING
    ]
    response = httpx.Response(
        status, headers=headers, content=bytes(body) if isinstance(body, bytes | bytearray) else b""
    )
    is_hubs = _is_hubs(response)
    return HubError(status, words(response) if is_hubs else "", _retry_after(response), is_hubs=is_hubs)


def checked_url(url: object) -> str:
    """hub.url, unchanged. Raises ValueError for a URL that is not http or https, or that contains a password."""
    parts = _HUB_URL.fullmatch(url) if isinstance(url, str) else None
    if not isinstance(url, str) or parts is None or not _is_url(url) or int(parts["port"] or 0) > _MOST_PORT:
        shown = "a text with @" if "@" in str(url) else repr(url)  # a password may stand before the @
        raise ValueError(f"hub.url must be a URL such as https://hub.example.org/api/hub, not {shown}")
    if parts["user"]:
        raise ValueError("hub.url must not contain a user or password: the token authenticates the client")
    return url


def _checked_topic(topic: object) -> str:
    if not isinstance(topic, str) or not topic:
        raise ValueError(f"hub.topic must be a text that is not empty, not {topic!r}")
    return topic


def _is_url(url: str) -> bool:
    try:
        return bool(httpx.URL(url).host)
    except (ValueError, httpx.InvalidURL):
        return False


def _json(response: httpx.Response) -> Any:
    """The body as JSON, None where it is not JSON."""
    try:
        return decode(response.content)
    except (ValueError, RecursionError):
        return None


def _shown(body: Any) -> dict[str, Any]:
    """A body without the endpoint, which is a secret."""
    return {name: value for name, value in body.items() if name != _ENDPOINT} if isinstance(body, Mapping) else {}


def words(response: httpx.Response) -> str:
    """The hub's text in a refusal, in one line: the `message` of a JSON object, a plain text, or the
    `error_description` of the challenge (RFC 6750, 3). "" where there is none."""
    answer = _json(response)
    text = answer.get("message") if isinstance(answer, dict) else None
    if not isinstance(text, str):
        text = response.text if _is_text(response) and not isinstance(answer, dict) else ""
    if not text.strip() and (described := _DESCRIPTION.search(response.headers.get("www-authenticate", ""))):
        text = described[1]
    return in_one_line(text)


def _is_hubs(response: httpx.Response) -> bool:
    """Whether the hub itself refused: by a plain text, JSON with a `message`, or a challenge. Ingresses answer with
    HTML, or without a body."""
    if response.status_code == _UNAUTHORIZED and "www-authenticate" in response.headers:
        return True
    answer = _json(response)
    if isinstance(answer, dict):
        return isinstance(answer.get("message"), str)
    return _is_text(response) and bool(response.text.strip())


def _is_text(response: httpx.Response) -> bool:
    return _media_type(response) == "text/plain"


def _is_page(response: httpx.Response) -> bool:
    """Whether the answer is an HTML page. Maintenance and login pages come with 200 too."""
    return _media_type(response) == "text/html"


def _media_type(response: httpx.Response) -> str:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


def _retry_after(response: httpx.Response) -> float | None:
    """Retry-After in seconds, from a number or a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
