"""What a client does about each status of a refusal, and what the refusals of each module are about."""

from __future__ import annotations

#: By status: its name (RFC 9110, 15.5; RFC 6585), when the hub answers so, and what the client does.
STATUSES = {
    400: (
        "Bad Request",
        "The form, the event or the path is not as the specification asks.",
        "Mend the request. The same request is refused again. "
        "[SUB-5](../behaviour.md#sub-5), [EVT-5](../behaviour.md#evt-5) and [EVT-26](../behaviour.md#evt-26) have the rules.",
    ),
    401: (
        "Unauthorized",
        "The request has no token, or the token is not valid. The header `WWW-Authenticate` says which of both ([AUT-1](../behaviour.md#aut-1)).",
        "Get a new token, and try once more. A second 401 needs a person: compare issuer, audience and clocks "
        "([Authorization servers](../issuers.md)). The audience that the hub expects is in the line `issuer` of its log; "
        "`fhircast check` shows the token's. An unknown issuer leaves no name in the log: run `fhircast check` at the application.",
    ),
    403: (
        "Forbidden",
        "The token is valid, and does not reach so far: another user's topic, or a missing scope.",
        "Ask the authorization server for the scope that `WWW-Authenticate` names, or use the user's own topic. "
        "[AUT-6](../behaviour.md#aut-6) and [AUT-9](../behaviour.md#aut-9) have the rules.",
    ),
    404: (
        "Not Found",
        "There is no such path, endpoint or session. Another user's endpoint is answered in the same way ([UNS-3](../behaviour.md#uns-3)).",
        "For an endpoint: subscribe anew. For a path: compare with `hub.url`.",
    ),
    405: ("Method Not Allowed", "The path exists, and the method does not.", "Use a method of the header `Allow`."),
    408: (
        "Request Timeout",
        "The body did not end in time ([EVT-7](../behaviour.md#evt-7)).",
        "Try again. Look at the network.",
    ),
    409: (
        "Conflict",
        "The session is in another state than the request needs.",
        "For a stale version: read the current context, apply the change there, and try again ([CON-3](../behaviour.md#con-3)). "
        "For a context that is not open: open the context first ([CON-11](../behaviour.md#con-11), [CON-14](../behaviour.md#con-14)). "
        "For a system client: let the user subscribe first ([AUT-29](../behaviour.md#aut-29)).",
    ),
    413: (
        "Content Too Large",
        "The request, or what the session would hold, is too large ([LIM-1](../behaviour.md#lim-1), [LIM-2](../behaviour.md#lim-2)).",
        "Share less, or in several updates. Close contexts that nobody needs.",
    ),
    415: (
        "Unsupported Media Type",
        "The body is neither a form nor JSON.",
        "Set `Content-Type` to one that the line names.",
    ),
    426: (
        "Upgrade Required",
        "The path is that of a WebSocket, and no upgrade was asked for ([SUB-25](../behaviour.md#sub-25)).",
        "Let the proxy pass the headers `Upgrade` and `Connection` on.",
    ),
    429: (
        "Too Many Requests",
        "A limit of the user, the topic, the token or the address is reached ([LIM-3](../behaviour.md#lim-3), [RAT-1](../behaviour.md#rat-1)).",
        "Wait as long as `Retry-After` says, and then try again. Unsubscribe what is not needed any more.",
    ),
    500: (
        "Internal Server Error",
        "The hub has a fault.",
        "Try again later, with the same id and body. Tell the operator the header `x-request-id`.",
    ),
    503: (
        "Service Unavailable",
        "An issuer or the store does not answer, the memory is full, or the hub stops.",
        "Wait as long as `Retry-After` says, and repeat the event with the same id, timestamp and body. "
        "A repeat that was accepted before does no harm ([EVT-17](../behaviour.md#evt-17), [NOD-12](../behaviour.md#nod-12)).",
    ),
}

#: What the refusals of a module are about, in the order of the tables. The longest name that fits counts.
ABOUT = {
    "http": "request",
    "edge": "request",
    "ws": "handshake",
    "auth": "token",
    "core.access": "scopes",
    "core.access.topic_access": "topic",
    "core.wire.json": "JSON",
    "core.wire.subscription_request": "subscription",
    "core.rules.subscriptions": "subscription",
    "core.rules.connections": "subscription",
    "core.wire.callback_url": "webhook",
    "webhook": "webhook",
    "core.wire.event_names": "event names",
    "core.wire": "event",
    "core.rules": "event",
    "core.wire.update_bundle": "update",
    "core.rules.content": "update",
    "core.rules.contexts": "current context",
    "service": "session",
    "core.rules.administration": "session API",
    "http.sessions": "session API",
    "service.usage": "limits",
    "budgets": "limits",
    "http.rate_limit": "limits",
    "console": "console",
    "storage": "store",
    "postgresql": "store",
}
