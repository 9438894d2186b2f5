"""Subscription requests (FHIRcast 3.0.0, 2.4): the parameters by which a client subscribes, renews or unsubscribes.

Clients send them as a form, or as JSON (SUB-16).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

import msgspec

from fhircast_hub.core.errors import BadRequest, TooLarge
from fhircast_hub.core.limits import MAX_FORM, MAX_NAME, MAX_PARAMETERS, MAX_SECRET
from fhircast_hub.core.wire.acknowledgement import displayable
from fhircast_hub.core.wire.callback_url import check_callback
from fhircast_hub.core.wire.event import check_topic
from fhircast_hub.core.wire.event_names import parse_events
from fhircast_hub.core.wire.json import decode, pairs_of, reject_control_characters, strip_bom

_LEASE = re.compile(r"0*[1-9][0-9]*", re.ASCII)
#: Digits of a lease in seconds. A longer lease is beyond every maximum, and counts as 10 to this power.
_MAX_LEASE_DIGITS = 18
#: An unpaired surrogate, escaped in JSON. No parameter may have one (SUB-5).
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_STRING_OR_NULL = msgspec.json.Decoder(str | None)
_STRINGS = msgspec.json.Decoder(str | list[str] | None)
#: How a number begins in JSON.
_NUMBER = b"-0123456789"
#: The hub.channel.type of a webhook (WHK-16).
_WEBHOOKS = frozenset(("webhook", "rest-hook", "websub"))
#: The names of parameters that the hub reads.
_PARAMETERS = frozenset(
    {
        *("hub.callback", "hub.channel.endpoint", "hub.channel.type", "hub.events", "hub.lease", "hub.lease_seconds"),
        *("hub.mode", "hub.secret", "hub.topic", "endpoint", "subscriber.name"),
    }
)
#: Characters of a mode or a channel type that an error may quote.
_MAX_QUOTED = 32


class SubscriptionRequest(msgspec.Struct, frozen=True):
    """A subscription request that was checked."""

    #: True: hub.mode is subscribe. False: unsubscribe.
    subscribe: bool
    #: hub.topic.
    topic: str
    #: Event names as the client spells them. Empty when unsubscribing.
    events: tuple[str, ...]
    #: The lease asked for, in seconds. None: not given, or unsubscribing.
    lease: int | None
    #: subscriber.name, on one line. None: not given.
    name: str | None
    #: hub.channel.endpoint. None: not given.
    endpoint: str | None
    #: hub.callback. None: the request is about a WebSocket.
    callback: str | None = None
    #: hub.secret, which signs the posts to the callback. None: not given, or a WebSocket.
    secret: str | None = None


def parse_subscription_request(body: bytes) -> SubscriptionRequest:
    """Read an application/x-www-form-urlencoded body. Raises BadRequest (SUB-4 to SUB-6) or TooLarge."""
    if len(body) > MAX_FORM:
        raise TooLarge(f"the body may have at most {MAX_FORM} bytes, and this one has {len(body)}")
    if body.count(b"&") >= MAX_PARAMETERS:
        raise BadRequest(f"the body may have at most {MAX_PARAMETERS} parameters, and this one has more")
    # urllib's parse_qsl takes ten times as long where a client escapes no characters.
    pairs = (parameter.partition(b"=") for parameter in body.replace(b"+", b" ").split(b"&") if parameter)
    try:
        return _read([(unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()) for name, _, value in pairs])
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body must be UTF-8, and the byte at {error.start} of a value is not") from None


def parse_json_subscription_request(body: bytes) -> SubscriptionRequest | None:
    """Read the same parameters from a JSON object with hub.mode (SUB-16). There hub.events may be an array.

    None: the body has no hub.mode, so it may be an event. Raises BadRequest as `parse_subscription_request` does.
    """
    if b'"hub.mode"' not in body or len(body) > MAX_FORM:
        return None
    try:
        body.decode()
        pairs = pairs_of(strip_bom(body), "the body")
    except (UnicodeDecodeError, BadRequest):
        if _SURROGATE.search(body):
            raise BadRequest("the body must have whole characters, and this one has half of one") from None
        return None
    if all(name != "hub.mode" for name, _ in pairs):
        return None
    return _read((name, _value(name, raw)) for name, raw in pairs)


def _value(name: str, raw: msgspec.Raw) -> str:
    """The value of a parameter in JSON: a string, a number, null for "". hub.events may be an array of strings."""
    if memoryview(raw)[0] in _NUMBER:
        return bytes(raw).decode()
    if name == "hub.events":
        names = decode(_STRINGS, raw, name)
        return ",".join(names) if isinstance(names, list) else names or ""
    return decode(_STRING_OR_NULL, raw, _quotable_name(name)) or ""


def _read(pairs: Iterable[tuple[str, str]]) -> SubscriptionRequest:
    """Check the parameters, which come as pairs of name and value."""
    given: dict[str, str] = {}
    for parameter, value in pairs:
        name = _quotable_name(parameter)
        if parameter in given:
            # "Each parameter SHALL appear at most one time" (2.4 Subscription Request)
            raise BadRequest(f"{name} may be given once, not twice")
        given[parameter] = reject_control_characters(name, value.strip())
    webhook = _is_webhook(given)
    subscribe = _is_subscribe(given)
    return SubscriptionRequest(
        subscribe=subscribe,
        topic=check_topic(_required(given, "hub.topic")),
        name=_subscriber_name(given),
        events=parse_events(_required(given, "hub.events").split(",")) if subscribe else (),
        lease=_lease(given) if subscribe else None,
        # Medplum's client says `endpoint` when it unsubscribes (UNS-5).
        endpoint=given.get("hub.channel.endpoint") or (None if subscribe else given.get("endpoint")) or None,
        callback=check_callback(_required(given, "hub.callback")) if webhook else None,
        secret=_secret(given) if webhook else None,
    )


def _required(given: dict[str, str], name: str) -> str:
    try:
        return given[name]
    except KeyError:
        raise BadRequest(f"{name} is required") from None


def _is_webhook(given: dict[str, str]) -> bool:
    # Many clients send an empty hub.callback beside the channel type websocket.
    # Only a hub.callback that is not empty means a webhook.
    channel = given.get("hub.channel.type") or ("webhook" if given.get("hub.callback") else "")
    if not channel:
        raise BadRequest("hub.channel.type is required, websocket or webhook")
    if channel != "websocket" and channel not in _WEBHOOKS:
        raise BadRequest("hub.channel.type must be websocket or webhook, not …", quoted=_quotable_value(channel))
    return channel in _WEBHOOKS


def _is_subscribe(given: dict[str, str]) -> bool:
    mode = _required(given, "hub.mode")
    if mode not in ("subscribe", "unsubscribe"):
        raise BadRequest("hub.mode must be subscribe or unsubscribe, not …", quoted=_quotable_value(mode))
    return mode == "subscribe"


def _subscriber_name(given: dict[str, str]) -> str | None:
    name = given.get("subscriber.name")
    if name is not None and len(name) > MAX_NAME:
        raise BadRequest(f"subscriber.name may have at most {MAX_NAME} characters, and this one has {len(name)}")
    return None if name is None else displayable(name)


def _lease(given: dict[str, str]) -> int | None:
    """The lease asked for, in seconds. Many clients call the parameter `hub.lease` (LEA-1)."""
    for name in ("hub.lease_seconds", "hub.lease"):
        if (value := given.get(name)) is not None:
            if not _LEASE.fullmatch(value):
                actual = f"{len(value)} characters of something else"
                raise BadRequest(f"{name} must be a positive whole number of seconds, not {actual}")
            digits = value.lstrip("0")
            return int(digits) if len(digits) <= _MAX_LEASE_DIGITS else 10**_MAX_LEASE_DIGITS
    return None


def _secret(given: dict[str, str]) -> str | None:
    secret = given.get("hub.secret") or None
    if secret is not None and len(secret.encode()) > MAX_SECRET:
        raise BadRequest(f"hub.secret may have at most {MAX_SECRET} bytes, and this one has {len(secret.encode())}")
    return secret


def _quotable_name(parameter: str) -> str:
    """A parameter's name for an error. The client chose the name, so only the names that mean something are quoted."""
    return parameter if parameter in _PARAMETERS else "a parameter"


def _quotable_value(value: str) -> str:
    """A mode or channel type for an error: quoted if short and plain, else its length."""
    plain = value.isascii() and value.isprintable() and 0 < len(value) <= _MAX_QUOTED
    return value if plain else f"{len(value)} characters"
