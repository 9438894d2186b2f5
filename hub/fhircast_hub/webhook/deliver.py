"""Delivery to webhooks: events are posted to callbacks in order, and retried.

Each callback of a user has a queue, and at most one post under way. The posts of all callbacks share slots, fairly by user.
The answer of a callback is its acknowledgement, and becomes a command. An unanswered post stays in the session's outbox.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable

import structlog

from fhircast_hub.budgets import table
from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.state.commands import PostFinished, Undeliverable
from fhircast_hub.core.state.effects import EndWebhook, Post, Verify, WebhookEffect
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.service.service import Service
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.webhook.address_guard import ForbiddenAddress
from fhircast_hub.webhook.backoff import FIRST_PAUSE, LONGEST_PAUSE, jittered
from fhircast_hub.webhook.client import NO_ANSWER, Answer, Client
from fhircast_hub.webhook.fair_slots import FairSlots, User, user_of
from fhircast_hub.webhook.sealing import Sealer, signature
from fhircast_hub.webhook.verify import CallbackVerifier

#: Posts under way at once; verifications and denials have slots of their own. Each user has a share (WHK-15).
POSTS_AT_ONCE = int(table.AT_WORK.most)
#: Denials that wait or are under way. Above this number no denial is sent. The callback notices that posts stop.
MAX_DENIALS = 2048
#: Seconds between two looks whether this node may post again.
_DOUBT_SECONDS = 0.2
#: Seconds in which the answer to a post is stored before the next post begins all the same: a session that cannot be changed
#: must not hold up the others.
STORED_SECONDS = 5.0
#: Seconds for unfinished work when the hub stops.
STOP_SECONDS = 3.0

#: The first digit of a successful HTTP status, and of a client error.
_SUCCESS, _CLIENT_ERROR = 2, 4
#: Request Timeout and Too Many Requests: with Retry-After, both ask for another attempt.
_RETRYABLE = (408, 429)

#: `sure_for` of the only process.
FOR_EVER: Callable[[], float] = lambda: math.inf  # noqa: E731  # a value

#: A user, and a callback of that user.
_Recipient = tuple[User, str]

_log = structlog.get_logger()


class Webhooks:
    """All callbacks of this process. `timeout` is ACK_TIMEOUT in seconds: a post is retried for so long.

    `sure_for()` says for how many seconds this node may work on posts: then another node may take them over.
    """

    def __init__(
        self,
        service: Service,
        verifier: CallbackVerifier,
        client: Client,
        sealer: Sealer,
        timeout: float,
        metrics: Metrics,
        sure_for: Callable[[], float] = FOR_EVER,
    ) -> None:
        self._sure_for = sure_for
        self._service = service
        self._verifier = verifier
        self._client = client
        self._sealer = sealer
        self._timeout = timeout
        self._metrics = metrics
        self._queues: dict[_Recipient, deque[Post]] = {}
        #: Those that post the queues.
        self._posting: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self._slots = FairSlots(POSTS_AT_ONCE)
        #: Subscription id -> the verification of its callback.
        self._verifying: dict[str, asyncio.Task[None]] = {}
        self._denials = FairSlots(MAX_DENIALS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def check(self, callback: str, principal: Principal) -> None:
        """Check a callback before it is subscribed: see CallbackVerifier.check."""
        await self._verifier.check(callback, principal)

    def seal(self, secret: str | None) -> bytes:
        """The sealed secret, for the store: see Sealer.seal."""
        return self._sealer.seal(secret)

    def handle(self, effect: WebhookEffect) -> None:
        """Carry out an effect. Effects come in the order of the commits."""
        if self._is_stopped:
            return  # the session has it, for another node or the next start
        match effect:
            case Verify():
                self._begin_verification(effect)
            case Post():
                self._enqueue(effect)
            case EndWebhook():
                self._end(effect)

    def forget(self) -> None:
        """Drop all queued posts and verifications, which another node begins anew. Attempts under way end."""
        for task in self._posting:
            task.cancel()
        for queue in self._queues.values():
            queue.clear()
        self._queues.clear()
        verifying, self._verifying = self._verifying, {}
        for task in verifying.values():
            task.cancel()

    def posts_of(self, key: SessionKey) -> list[Post]:
        """The posts of a session that wait or are under way."""
        return [post for queue in self._queues.values() for post in queue if post.key == key]

    def drop(self, posts: Iterable[Post]) -> None:
        """Drop these posts, if they are still queued."""
        for post in posts:
            if (queue := self._queues.get((user_of(post), post.callback))) is not None and post in queue:
                queue.remove(post)

    def queued(self) -> int:
        """Posts that wait for their callbacks."""
        return sum(map(len, self._queues.values()))

    def verifications(self) -> int:
        """Verifications of callbacks that wait or are under way."""
        return len(self._verifying)

    async def stop(self) -> None:
        """Finish the work of at most STOP_SECONDS. Unfinished posts stay in their sessions' outboxes."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        self._is_stopped = True
        unfinished = list(self._tasks)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await self._client.aclose()

    def _begin_verification(self, effect: Verify) -> None:
        if effect.subscription_id in self._verifying:
            return  # begun anew, and still under way
        verifying = self._verifying[effect.subscription_id] = self._spawn(self._verifier.verify(effect))

        def done(_: object) -> None:
            if self._verifying.get(effect.subscription_id) is verifying:
                del self._verifying[effect.subscription_id]

        verifying.add_done_callback(done)

    def _enqueue(self, post: Post) -> None:
        recipient = user_of(post), post.callback
        if (queue := self._queues.get(recipient)) is None:
            queue = self._queues[recipient] = deque()
            posting = self._spawn(self._post_all(recipient, queue))
            self._posting.add(posting)
            posting.add_done_callback(self._posting.discard)
        if not _is_there(post, queue):
            queue.append(post)

    def _end(self, effect: EndWebhook) -> None:
        """Cancel the verification, drop queued posts, and deny the subscription if there is a reason to tell."""
        user = user_of(effect)
        if (verifying := self._verifying.pop(effect.subscription_id, None)) is not None:
            verifying.cancel()
        queue = self._queues.get((user, effect.callback), ())
        self.drop([post for post in queue if post.key == effect.key and post.number in effect.numbers])
        if effect.reason and self._denials.take(user):
            self._spawn(self._verifier.deny(effect)).add_done_callback(lambda _: self._denials.release(user))

    async def _post_all(self, recipient: _Recipient, queue: deque[Post]) -> None:
        """Post the queue in order, until it is empty. The result of each post is stored before the next post."""
        while queue:
            post = queue[0]
            try:
                status = await self._post(post, queue)
            except Exception as error:  # after a mistake of ours, the rest of the queue is still posted
                _log.error("webhook failed", exc_info=error)
                status = 0
            if not queue or queue[0] is not post:
                continue  # dropped meanwhile
            if status is not None:
                self._metrics.posts.inc()
                if status // 100 != _SUCCESS:
                    self._metrics.posts_failed.inc()
                # Until this is stored, the post may be begun anew: a later one must not have been posted then.
                storing = self._service.submit_soon(post.key, PostFinished(post.number, status))
                await asyncio.wait([storing], timeout=STORED_SECONDS)
            if queue and queue[0] is post:
                queue.popleft()
        del self._queues[recipient]  # in the same turn: nothing is put into this queue any more

    async def _post(self, post: Post, queue: deque[Post]) -> int | None:
        """Post an event, and retry (WHK-6). Returns the last status, 0 without an answer. None: it cannot be signed."""
        secret = self._sealer.open(post.secret)
        if secret is None:
            lost = Undeliverable(post.subscription_id, "its hub.secret was lost with the hub's process")
            self._service.submit_soon(post.key, lost)
            return None
        headers = {"Content-Type": "application/json"}
        if secret:
            headers["X-Hub-Signature"] = signature(secret, post.frame)
        now = asyncio.get_running_loop().time
        deadline, pause, status = now() + self._timeout, FIRST_PAUSE, 0
        while True:
            deadline += await self._doubt(post, queue)
            if not queue or queue[0] is not post:
                return 0  # dropped meanwhile
            # A callback that hangs has a second chance within the time.
            seconds = min(deadline - now(), max(self._timeout / 2, 1.0))
            answer = await self._attempt(post, headers, seconds)
            if answer is None:
                continue
            status = answer.status or status  # an earlier status says more than a timeout
            wait = max(jittered(pause), answer.retry_after or 0.0)
            if not _is_retryable(answer) or now() + wait >= deadline:
                return status
            await asyncio.sleep(wait)
            if not queue or queue[0] is not post:
                return 0  # dropped meanwhile
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _doubt(self, post: Post, queue: deque[Post]) -> float:
        """Wait until this node may work on posts, or the post is dropped. Returns how long that took, in seconds."""
        now = asyncio.get_running_loop().time
        begun = now()
        while self._sure_for() <= 0 and queue and queue[0] is post:  # noqa: ASYNC110  # until a sign of life
            await asyncio.sleep(_DOUBT_SECONDS)
        return now() - begun

    async def _attempt(self, post: Post, headers: dict[str, str], seconds: float) -> Answer | None:
        """Make one attempt, as soon as a slot is free. A forbidden address counts as no answer.

        None: while the post waited for its slot, another node may have taken it over. No attempt was made.
        """
        user = user_of(post)
        try:
            async with self._slots.slot(user):
                seconds = min(seconds, self._sure_for())
                if seconds <= 0:
                    return None
                return await self._client.request("POST", post.callback, seconds, post.frame, headers, user)
        except ForbiddenAddress:
            return NO_ANSWER

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_without_request_id(work))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("webhook failed", exc_info=error)


async def _without_request_id(work: Coroutine[None, None, None]) -> None:
    """Do background work under no request's id: it may serve many requests."""
    REQUEST_ID.set(None)
    await work


def _is_there(post: Post, queue: deque[Post]) -> bool:
    """Whether the queue has this post already: posts that are begun anew come again, in order.

    Later posts of the session leave the queue then, for they come again too.
    """
    newest = next((each for each in reversed(queue) if each.key == post.key), None)
    if newest is None or newest.number < post.number:
        return False
    for each in [each for each in queue if each.key == post.key and each.number > post.number]:
        queue.remove(each)
    return any(each.key == post.key and each.number == post.number for each in queue)


def _is_retryable(answer: Answer) -> bool:
    """Whether to post again: "409 and other 4xx: SyncError at once; 3xx, 5xx, timeouts: retried" (WHK-6)."""
    if answer.status in _RETRYABLE and answer.retry_after is not None:
        return True
    return answer.status // 100 not in (_SUCCESS, _CLIENT_ERROR)
