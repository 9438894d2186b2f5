"""The console's stream: server-sent events over an answer that does not end (CSL-8).

A stream sends each second what has changed. Nothing queues for a stream: a reader that is behind gets the newest state when
the reader reads again. A reader that reads nothing is cut as with any answer (budgets/table.py, STALLED). A reader that is
behind when its stream must end is cut too: else a reader by the byte would keep a megabyte for days, and not count as a stream.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from operator import itemgetter
from typing import Any

import msgspec
import structlog

from fhircast_hub.budgets.table import ALL_STREAMS, BIG_ANSWER, STREAMS
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import HubError, TooMany, Unauthenticated
from fhircast_hub.http.request import Receive, Send

#: Open streams of one operator, and of all.
OF_OPERATOR, OF_ALL = int(STREAMS.most), int(ALL_STREAMS.most)
#: Seconds between two looks at what has changed.
INTERVAL = 1.0
#: Seconds of a look after which a comment is written. The page takes a stream without a byte for dead after 15.
ALIVE = 3.0
#: Seconds that a client has for what it has not read when its stream must end.
LAST = 1.0
#: Seconds until a client that was refused may try again.
RETRY_AFTER = 30

#: Encoded parts that are kept for other streams.
ENCODED = 64

Part = Mapping[str, Any]
#: The present parts, by name. Raises HubError where the token counts no more.
Look = Callable[[], Awaitable[Mapping[str, Part]]]
#: Raises HubError where the token counts no more.
Check = Callable[[], Awaitable[object]]

_COMMENT = b":\n\n"
_STOP = b'event: end\ndata: {"reason":"stop"}\n\n'
_TAKEN = b'event: end\ndata: {"reason":"taken"}\n\n'

_encode = msgspec.json.encode
_log = structlog.get_logger()


class Place:
    """The place of a stream. `taken` is set when a newer stream got the place."""

    def __init__(self, operator: Principal) -> None:
        self.realm, self.operator = operator.realm, (operator.realm, operator.subscriber)
        self.taken = asyncio.Event()


class Streams:
    """The open streams of this process."""

    def __init__(self) -> None:
        #: The oldest first.
        self._places: list[Place] = []
        self._stopped = asyncio.Event()
        self._encoded = _Encoded()

    def __len__(self) -> int:
        return len(self._places)

    def stop(self) -> None:
        """End all streams: the hub stops."""
        self._stopped.set()

    @contextmanager
    def place(self, operator: Principal) -> Iterator[Place]:
        """A place for a stream, within the block. Raises TooMany.

        Beyond OF_OPERATOR, a stream takes the place of the operator's oldest one. Beyond OF_ALL, it takes the place of the
        oldest one of the realm with the most streams, if that has more than the operator's realm would have.
        """
        place = Place(operator)
        own = [each for each in self._places if each.operator == place.operator]
        if len(own) >= OF_OPERATOR:
            self._take(own[0])
        elif len(self) >= OF_ALL:
            self._take(self._of_biggest_realm(place.realm))
        self._places.append(place)
        try:
            yield place
        finally:
            if place in self._places:
                self._places.remove(place)

    def _take(self, place: Place) -> None:
        self._places.remove(place)
        place.taken.set()

    def _of_biggest_realm(self, own: str) -> Place:
        counts = Counter(each.realm for each in self._places)
        realm, most = max(counts.items(), key=itemgetter(1))
        if most <= counts[own] + 1:
            raise TooMany("as many streams of the console are open as may be", retry_after=RETRY_AFTER)
        return next(each for each in self._places if each.realm == realm)

    async def run(
        self, receive: Receive, send: Send, look: Look, check: Check, place: Place, cut: Callable[[], None]
    ) -> None:
        """Send what changes until the client leaves, the token counts no more, the place is taken, or the hub stops.

        The head was sent. While a look takes long, comments say that the stream lives. `check` is asked while the client does
        not read. `cut` cuts the connection.
        """
        ends = [asyncio.ensure_future(each) for each in (_leave(receive), self._stopped.wait(), place.taken.wait())]
        leaving, stopping, _ = ends
        writer = _Writer(send, ends, check, cut)
        sent: dict[str, tuple[Part, bytes]] = {}
        try:
            while not any(each.done() for each in ends):
                looking = asyncio.ensure_future(look())
                await self._await(looking, ends, writer)
                if not looking.done():
                    looking.add_done_callback(_look_at_error)  # a look that others share goes on
                    break
                await writer.write(self._changes(looking.result(), sent))
                await asyncio.wait(ends, timeout=INTERVAL, return_when=asyncio.FIRST_COMPLETED)
            if not leaving.done():
                await writer.end(_STOP if stopping.done() else _TAKEN)
        except HubError as error:
            await writer.end(_end(error))
        except Exception as error:  # the head was sent: the answer can only end
            _log.error("console failed", exc_info=error)
            await writer.end(_end(HubError("the hub failed; its log says where")))
        finally:
            for task in ends:
                task.cancel()

    async def _await(self, looking: asyncio.Future[Any], ends: Sequence[asyncio.Future[Any]], writer: _Writer) -> None:
        """Wait for a look, or for an end. Comments are written meanwhile."""
        while True:
            done, _ = await asyncio.wait((looking, *ends), timeout=ALIVE, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            await writer.write(_COMMENT)

    def _changes(self, parts: Mapping[str, Part], sent: dict[str, tuple[Part, bytes]]) -> bytes:
        """The parts that changed since they were sent, as events. `sent` is what was sent last, by name."""
        events = []
        for name, part in parts.items():
            last, data = sent.get(name, (None, b""))
            if last is part:
                continue
            encoded = self._encoded.of(part)
            sent[name] = part, encoded
            if encoded != data:
                events.append(b"event: %b\ndata: %b\n\n" % (name.encode(), encoded))
        return b"".join(events) or _COMMENT


class _Encoded:
    """Parts that streams share, each encoded once. A part is never changed."""

    def __init__(self) -> None:
        self._held: OrderedDict[int, tuple[Part, bytes]] = OrderedDict()

    def of(self, part: Part) -> bytes:
        """The part as JSON."""
        held = self._held.get(id(part))
        if held is None:
            held = self._held[id(part)] = part, _encode(part)
            if len(self._held) > ENCODED:
                self._held.popitem(last=False)
        return held[1]


class _Writer:
    """Writes a stream. Once the stream must end, a client has LAST seconds for the rest. Then `cut` cuts the connection.

    The stream must end when one of `ends` is done, or when `check` raises HubError.
    """

    def __init__(self, send: Send, ends: Sequence[asyncio.Future[Any]], check: Check, cut: Callable[[], None]) -> None:
        self._send, self._ends, self._check, self._cut = send, ends, check, cut

    async def write(self, body: bytes) -> None:
        """Write, as far as the client reads. Raises HubError of `check`, once the rest is written or cut."""
        async with self._writing(body, more=True) as writing:
            while not any(each.done() for each in (writing, *self._ends)):
                await asyncio.wait((writing, *self._ends), timeout=INTERVAL, return_when=asyncio.FIRST_COMPLETED)
                if not writing.done():
                    await self._check()

    async def end(self, body: bytes) -> None:
        """Write the last event, and end the answer."""
        async with self._writing(body, more=False):
            pass

    @asynccontextmanager
    async def _writing(self, body: bytes, *, more: bool) -> AsyncIterator[asyncio.Future[None]]:
        """Write meanwhile. Behind the block, the client has LAST seconds for the rest."""
        writing = asyncio.ensure_future(self._parts(body, more))
        try:
            try:
                yield writing
            finally:
                await asyncio.wait((writing,), timeout=LAST)
                if not writing.done():
                    self._cut()
                await writing
        finally:
            writing.cancel()

    async def _parts(self, body: bytes, more: bool) -> None:
        """A long body in parts, so that the server holds little of it."""
        start = 0
        while len(body) - start > BIG_ANSWER:
            await self._send(
                {"type": "http.response.body", "body": body[start : start + BIG_ANSWER], "more_body": True}
            )
            start += BIG_ANSWER
            await asyncio.sleep(0)  # other requests run now
        await self._send({"type": "http.response.body", "body": body[start:], "more_body": more})


async def _leave(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _end(error: HubError) -> bytes:
    reason = "token" if isinstance(error, Unauthenticated) else "failure"
    return b"event: end\ndata: %b\n\n" % _encode({"reason": reason, "message": str(error)})


def _look_at_error(looking: asyncio.Future[Any]) -> None:
    """Nobody else does, and asyncio would report the error."""
    if not looking.cancelled():
        looking.exception()
