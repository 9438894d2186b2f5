"""Subscription forms (FHIRcast 3.0.0, 2.4): what a client asks when it subscribes, renews or unsubscribes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

import msgspec

from fhircast_hub.core.errors import BadRequest, TooLarge
from fhircast_hub.core.limits import MAX_FORM, MAX_NAME, MAX_PARAMETERS, MAX_SECRET
from fhircast_hub.core.wire.acknowledgement import readable
from fhircast_hub.core.wire.callback_url import check_callback
from fhircast_hub.core.wire.event import check_topic
from fhircast_hub.core.wire.event_names import parse_events
from fhircast_hub.core.wire.json import check_controls, decoded, pairs_of, strip_bom

_LEASE = re.compile(r"0*[1-9][0-9]*", re.ASCII)
#: Any lease of more digits than this is beyond every maximum; Python need not make an int of it.
_MAX_LEASE_DIGITS = 18
#: Half of a surrogate pair, as JSON may write it: no text, and so in no value (SUB-5).
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_TEXT = msgspec.json.Decoder(str | None)
_TEXTS = msgspec.json.Decoder(str | list[str] | None)
#: How a number begins in JSON.
_NUMBER = b"-0123456789"
#: Names of the channel that posts to a callback (WHK-2).
_WEBHOOKS = frozenset(("webhook", "rest-hook", "websub"))


class SubscriptionRequest(msgspec.Struct, frozen=True):
    """A form that was read and makes sense. `events` is empty when unsubscribing; None marks what was not given.

    With a `callback` it is about a webhook, and `secret` is what signs what is posted there.
    """

    subscribe: bool
    topic: str
    events: tuple[str, ...]
    lease: int | None
    name: str | None
    endpoint: str | None
    callback: str | None = None
    secret: str | None = None


def parse_subscription_request(body: bytes) -> SubscriptionRequest:
    """Read an application/x-www-form-urlencoded body. Raises BadRequest (SUB-4 to SUB-6) or TooLarge."""
    if len(body) > MAX_FORM:
        raise TooLarge(f"the form: expected at most {MAX_FORM} bytes, got {len(body)}")
    if body.count(b"&") >= MAX_PARAMETERS:
        raise BadRequest(f"the form: expected at most {MAX_PARAMETERS} parameters, got more")
    # urllib's parse_qsl takes ten times as long where a client escapes no characters.
    pairs = (parameter.partition(b"=") for parameter in body.replace(b"+", b" ").split(b"&") if parameter)
    try:
        return _form([(unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()) for name, _, value in pairs])
    except UnicodeDecodeError as error:
        raise BadRequest(f"the form: expected UTF-8, got a byte that is not at {error.start} of a value") from None


def parse_json_subscription_request(body: bytes) -> SubscriptionRequest | None:
    """Read the same parameters from a JSON object with hub.mode (SUB-16), where hub.events may be an array.

    None if the body is no such object: it is an event, then, or refused as one. Raises BadRequest as `parse_subscription_request` does.
    """
    if b'"hub.mode"' not in body or len(body) > MAX_FORM:
        return None
    try:
        body.decode()
        pairs = pairs_of(strip_bom(body), "the body")
    except (UnicodeDecodeError, BadRequest):
        if _HALF.search(body):
            raise BadRequest("the form: expected whole characters, got half of one") from None
        return None
    if all(name != "hub.mode" for name, _ in pairs):
        return None
    return _form((name, _text(name, raw)) for name, raw in pairs)


def _text(name: str, raw: msgspec.Raw) -> str:
    """The value of a parameter: a text or number, "" for null, and of hub.events the names in an array too."""
    if memoryview(raw)[0] in _NUMBER:
        return bytes(raw).decode()
    if name == "hub.events":
        names = decoded(_TEXTS, raw, name)
        return ",".join(names) if isinstance(names, list) else names or ""
    return decoded(_TEXT, raw, _shown(name)) or ""


def _form(pairs: Iterable[tuple[str, str]]) -> SubscriptionRequest:
    given: dict[str, str] = {}
    for parameter, value in pairs:
        if parameter in given:
            # "Each parameter SHALL appear at most one time" (2.4 Subscription Request)
            raise BadRequest(f"{_shown(parameter)}: expected once, got twice")
        given[parameter] = check_controls(_shown(parameter), value.strip())
    webhook = _is_webhook(given)
    subscribe = _mode(given)
    topic = check_topic(_required(given, "hub.topic"))
    name = given.get("subscriber.name")
    if name is not None and len(name) > MAX_NAME:
        raise BadRequest(f"subscriber.name: expected at most {MAX_NAME} characters, got {len(name)}")
    return SubscriptionRequest(
        subscribe=subscribe,
        topic=topic,
        events=parse_events(_required(given, "hub.events").split(",")) if subscribe else (),
        lease=_lease(given) if subscribe else None,
        name=None if name is None else readable(name),
        # Medplum's client says `endpoint` when it unsubscribes (UNS-5).
        endpoint=given.get("hub.channel.endpoint") or (None if subscribe else given.get("endpoint")) or None,
        callback=check_callback(_required(given, "hub.callback")) if webhook else None,
        secret=_secret(given) if webhook else None,
    )


def _shown(name: str) -> str:
    """Parameter names are the client's own text: only those that FHIRcast knows are quoted."""
    return name if name.startswith(("hub.", "subscriber.")) and len(name) < 32 and name.isprintable() else "a parameter"


def _required(given: dict[str, str], name: str) -> str:
    try:
        return given[name]
    except KeyError:
        raise BadRequest(f"{name}: expected it, and it is missing") from None


def _is_webhook(given: dict[str, str]) -> bool:
    # An empty hub.callback beside channel type websocket is common; only one that says something means a webhook.
    channel = given.get("hub.channel.type") or ("webhook" if given.get("hub.callback") else "")
    if not channel:
        raise BadRequest("hub.channel.type: expected websocket or webhook, and it is missing")
    if channel != "websocket" and channel not in _WEBHOOKS:
        raise BadRequest(f"hub.channel.type: expected websocket or webhook, got {_quoted(channel)}")
    return channel in _WEBHOOKS


def _secret(given: dict[str, str]) -> str | None:
    secret = given.get("hub.secret") or None
    if secret is not None and len(secret.encode()) > MAX_SECRET:
        raise BadRequest(f"hub.secret: expected at most {MAX_SECRET} bytes, got {len(secret.encode())}")
    return secret


def _mode(given: dict[str, str]) -> bool:
    mode = _required(given, "hub.mode")
    if mode not in ("subscribe", "unsubscribe"):
        raise BadRequest(f"hub.mode: expected subscribe or unsubscribe, got {_quoted(mode)}")
    return mode == "subscribe"


def _quoted(value: str) -> str:
    """A mode or channel type for a message: quoted when it is short and plain, else its length."""
    return value if value.isascii() and value.isprintable() and 0 < len(value) <= 32 else f"{len(value)} characters"


def _lease(given: dict[str, str]) -> int | None:
    """The lease asked for, in seconds; `hub.lease` is what many clients call it (LEA-1)."""
    for name in ("hub.lease_seconds", "hub.lease"):
        if (value := given.get(name)) is not None:
            if not _LEASE.fullmatch(value):
                raise BadRequest(
                    f"{name}: expected a positive decimal integer of seconds, got {len(value)} characters that are not"
                )
            digits = value.lstrip("0")
            return int(digits) if len(digits) <= _MAX_LEASE_DIGITS else 10**_MAX_LEASE_DIGITS
    return None
