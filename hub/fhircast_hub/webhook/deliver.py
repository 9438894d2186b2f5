"""The webhook channel: callbacks are asked whether they want to be subscribed, posted to in order, and told when it is over.

Each callback of a user has a queue and at most one request under way; a number of them are at work at once, shared out by user.
What a callback answers is its acknowledgement, and becomes a command; what it has not answered stays in the session's outbox.

A question goes to whoever a subscriber names, and so do its retries and denials: each host is asked one at a time (WHK-14).
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import structlog

from fhircast_hub.budgets import table
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import BadRequest, TooMany
from fhircast_hub.core.rules.webhook_outbox import connection
from fhircast_hub.core.state.commands import Connected, PostFinished, Undeliverable, VerificationFailed
from fhircast_hub.core.state.effects import EndWebhook, Post, Verify, WebhookEffect
from fhircast_hub.core.wire.callback_url import origin_of, with_query
from fhircast_hub.service.service import REQUEST_ID, Service
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.webhook.address_guard import ForbiddenAddress, Guard
from fhircast_hub.webhook.client import NONE, Answer, Client
from fhircast_hub.webhook.resolver import one_name
from fhircast_hub.webhook.sealing import Sealer, signature
from fhircast_hub.webhook.shares import BURST, SECONDS_EACH, Newcomers, Shares, User

#: Requests to callbacks that are under way at once: of posts, of questions, and of denials so many each, so that those who only
#: ask to be asked do not keep the others' events waiting. Each user has a share of each (WHK-15).
AT_WORK = int(table.AT_WORK.most)
#: Denials that wait or are under way; beyond it a callback is not told, and learns by the silence.
MAX_DENIALS = 2048
#: Seconds until the first and the longest wait between two attempts; each is made uneven by half.
FIRST_WAIT, LONGEST_WAIT = 0.25, 4.0
#: Seconds and attempts for asking a callback, and for telling it that it is over.
VERIFY_SECONDS, VERIFY_ATTEMPTS = 10.0, 3
#: Seconds after which a denial that still waits is not said any more.
DENIAL_SECONDS = 60.0
#: Seconds that a subscription waits for its callback's name to be resolved (WHK-10).
RESOLVE_SECONDS = 1.0
#: Seconds for what is under way when the hub stops.
STOP_SECONDS = 3.0

#: What an address that may not be connected to answers.
FORBIDDEN = Answer(0, b"forbidden")
#: The first digit of an HTTP status, and the first status that says that the server fails.
_SUCCESS, _FAULT, _FAILURES = 2, 4, 500
#: Request Timeout and Too Many Requests: with Retry-After they ask to come again.
_LATER = (408, 429)

_log = structlog.get_logger()


class Webhooks:
    """All callbacks of this process. `timeout` is ACK_TIMEOUT, in seconds; `log_hash` makes of a topic what may be logged of it."""

    def __init__(
        self,
        service: Service,
        guard: Guard,
        client: Client,
        sealer: Sealer,
        timeout: float,
        metrics: Metrics,
        log_hash: Callable[[str], str],
    ) -> None:
        self._service = service
        self._guard = guard
        self._client = client
        self._sealer = sealer
        self._timeout = timeout
        self._metrics = metrics
        self._log_hash = log_hash
        self._places = {kind: Shares(AT_WORK) for kind in (Verify, Post, EndWebhook)}
        self._newcomers = Newcomers()
        self._turns: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()
        self._verifying: dict[str, asyncio.Task[None]] = {}
        self._denials = Shares(MAX_DENIALS)
        self._queues: dict[tuple[User, str], deque[Post]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def check(self, callback: str, principal: Principal) -> None:
        """Raise BadRequest if the callback's host is, or soon resolves to, an address that may not be posted to (WHK-10), and TooMany
        if `principal` brings more new callbacks than one may (WHK-13)."""
        user = principal.realm, principal.subscriber
        is_new = not self._service.usage.has_agreed(principal.realm, principal.application, origin_of(callback))
        if is_new:
            self._check_newcomer(user)
        parts = urlsplit(callback)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                await self._guard.addresses(parts.hostname or "", port, secure=secure, user=user)
        except ForbiddenAddress as error:
            raise BadRequest(f"hub.callback: expected a public https URL, got {error}") from None
        except (TimeoutError, OSError):
            pass  # it is checked again at every connection
        if is_new:
            self._check_newcomer(user)  # others may have come meanwhile
            self._newcomers.take(user, asyncio.get_running_loop().time())

    def _check_newcomer(self, user: User) -> None:
        wait = self._newcomers.wait(user, asyncio.get_running_loop().time())
        if wait:
            self._metrics.callbacks_refused.inc()
            raise TooMany(
                f"hub.callback: expected at most {BURST} new callbacks of one user at once, and one more each"
                f" {SECONDS_EACH:g} seconds, got more",
                retry_after=math.ceil(wait),
            )

    def seal(self, secret: str | None) -> bytes:
        """What may be stored of a secret."""
        return self._sealer.seal(secret)

    def do(self, effect: WebhookEffect) -> None:
        """Do what was decided; effects come in the order of the commits."""
        match effect:
            case Verify():
                asking = self._verifying[effect.subscription_id] = self._spawn(self._verify(effect))
                asking.add_done_callback(lambda _: self._verifying.pop(effect.subscription_id, None))
            case Post():
                to = _user(effect), effect.callback
                if (queue := self._queues.get(to)) is None:
                    queue = self._queues[to] = deque()
                    self._spawn(self._work(to, queue))
                queue.append(effect)
            case EndWebhook():
                if (asked := self._verifying.pop(effect.subscription_id, None)) is not None:
                    asked.cancel()
                if (queue := self._queues.get((_user(effect), effect.callback))) is not None:
                    gone = [post for post in queue if post.key == effect.key and post.number in effect.numbers]
                    for post in gone:
                        queue.remove(post)
                if effect.reason and self._denials.take(_user(effect)):
                    self._spawn(self._deny(effect))

    def queued(self) -> int:
        """Posts that wait for their callbacks."""
        return sum(map(len, self._queues.values()))

    def questions(self) -> int:
        """Callbacks that are being asked whether they want to be subscribed, or wait to be."""
        return len(self._verifying)

    async def stop(self) -> None:
        """Finish what is under way, within a few seconds. What is not is in the outbox."""
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        await self._client.aclose()

    async def _verify(self, asked: Verify) -> None:
        """ "The Hub SHALL consider other server response codes to mean that the verification request has failed" (STU2)."""
        challenge = secrets.token_urlsafe(32)
        url = with_query(
            asked.callback,
            {
                "hub.mode": "subscribe",
                "hub.topic": asked.key.topic,
                "hub.events": ",".join(asked.events),
                "hub.challenge": challenge,
                "hub.lease_seconds": str(asked.lease),
            },
        )
        answer = await self._ask(asked, url)
        if answer.status // 100 == _SUCCESS and answer.body.strip() == challenge.encode():
            self._service.submit_soon(asked.key, Connected(asked.subscription_id, connection(asked.subscription_id)))
        else:
            _log.info("callback not verified", topic=self._log_hash(asked.key.topic), status=answer.status)
            self._service.submit_soon(asked.key, VerificationFailed(asked.subscription_id))

    async def _deny(self, ended: EndWebhook) -> None:
        """Tell a callback that its subscription is over (WHK-11)."""
        parameters = {
            "hub.mode": "denied",
            "hub.topic": ended.key.topic,
            "hub.events": ",".join(ended.events),
            "hub.reason": ended.reason,
        }
        try:
            async with asyncio.timeout(DENIAL_SECONDS):
                await self._ask(ended, with_query(ended.callback, parameters))
        except TimeoutError:
            pass  # the callback learns by the silence
        finally:
            self._denials.release(_user(ended))

    async def _ask(self, why: Verify | EndWebhook, url: str) -> Answer:
        """GET, again for a server that fails or does not answer; one request at a time to each host (WHK-14)."""
        user, kind, host = _user(why), type(why), one_name(urlsplit(url).hostname or "")
        answer, wait = NONE, FIRST_WAIT
        for attempt in range(VERIFY_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_uneven(wait := wait * 2))
            # A user takes one place at most to wait for a host, so that other hosts need not wait for this one.
            async with self._turn(user, kind, host), self._places[kind].of(user), self._turn(host):
                answer = await self._request(user, "GET", url, VERIFY_SECONDS)
            if answer is FORBIDDEN or 0 < answer.status < _FAILURES:
                break
        return answer

    def _turn(self, *key: object) -> asyncio.Lock:
        """What one task at a time has; it is gone when no task wants it."""
        return self._turns.setdefault(key, asyncio.Lock())

    async def _work(self, to: tuple[User, str], queue: deque[Post]) -> None:
        """Post what is in the queue, one after the other, until nothing is."""
        while queue:
            post = queue[0]
            try:
                status = await self._deliver(post, queue)
            except Exception as error:  # a mistake of ours must not leave the queue without anybody who works on it
                _log.error("webhook failed", exc_info=error)
                status = 0
            if not queue or queue[0] is not post:
                continue  # it was dropped meanwhile
            queue.popleft()
            if status is None:
                continue
            self._metrics.posts.inc()
            if status // 100 != _SUCCESS:
                self._metrics.posts_failed.inc()
            self._service.submit_soon(post.key, PostFinished(post.number, status))
        del self._queues[to]

    async def _deliver(self, post: Post, queue: deque[Post]) -> int | None:
        """The status that a callback answers in the end, 0 without an answer (WHK-6); None if nothing can be posted to it."""
        secret = self._sealer.open(post.secret)
        if secret is None:
            self._service.submit_soon(
                post.key, Undeliverable(post.subscription_id, "its hub.secret was lost with the hub's process")
            )
            return None
        headers = {"Content-Type": "application/json"}
        if secret:
            headers["X-Hub-Signature"] = signature(secret, post.frame)
        user, loop = _user(post), asyncio.get_running_loop()
        end, wait, status = loop.time() + self._timeout, FIRST_WAIT, 0
        while True:
            # One that hangs has a second chance within the time.
            seconds = min(end - loop.time(), max(self._timeout / 2, 1.0))
            async with self._places[Post].of(user):
                answer = await self._request(user, "POST", post.callback, seconds, post.frame, headers)
            status = answer.status or status  # what it said says more than that it was too slow to say it again
            pause = max(_uneven(wait), answer.retry_after or 0.0)
            if not _may_change(answer) or loop.time() + pause >= end:
                return status
            await asyncio.sleep(pause)
            if not queue or queue[0] is not post:
                return 0
            wait = min(wait * 2, LONGEST_WAIT)

    async def _request(
        self,
        user: User,
        method: str,
        url: str,
        seconds: float,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One attempt; a forbidden address is as one that does not answer."""
        try:
            return await self._client.request(method, url, seconds, body, headers, user)
        except ForbiddenAddress:
            return FORBIDDEN

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._without_request(work))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def _without_request(self, work: Coroutine[None, None, None]) -> None:
        REQUEST_ID.set(None)
        await work

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("webhook failed", exc_info=error)


def _user(effect: WebhookEffect) -> User:
    return effect.key.realm, effect.user


def _may_change(answer: Answer) -> bool:
    """Whether to post again: "409 and other 4xx: SyncError at once; 3xx, 5xx, timeouts: retried" (WHK-6)."""
    if answer.status in _LATER and answer.retry_after is not None:
        return True
    return answer.status // 100 not in (_SUCCESS, _FAULT)


def _uneven(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311  # so that callbacks of one server do not come back together
