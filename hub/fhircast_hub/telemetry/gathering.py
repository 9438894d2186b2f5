"""The metrics of all workers at one port, whichever worker is asked (OPS-15).

Each worker listens on a Unix socket of its own, and sends its text to any other worker that connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

#: Seconds that each worker has to send its text. A later text is left out.
PATIENCE_SECONDS = 1.0
#: Says of each worker whether its text is here.
_UP = b"""# HELP fhircast_worker_up Whether the worker answered when it was asked for its numbers
# TYPE fhircast_worker_up gauge
"""

#: The last line that a worker sends. A text without this line was cut off.
_END = b"# EOF\n"

#: Seconds from the start of a gathering for which its text is shown: a gathering costs every worker.
KEPT_SECONDS = 1.0

_log = structlog.get_logger()


class Gathering:
    """Asks the other workers for their texts. `folder`: where all of them listen. `render` makes the text of this one.

    `clock` gives seconds, from any start.
    """

    def __init__(
        self,
        render: Callable[[], bytes],
        folder: Path,
        number: int,
        count: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._render, self._folder, self._number, self._count = render, folder, number, count
        self._clock = clock
        self._server: asyncio.AbstractServer | None = None
        #: The last gathering, and the time of its start.
        self._gathered: asyncio.Task[bytes] | None = None
        self._began = 0.0

    async def start(self) -> None:
        """Answer the others, in the place of a worker that died."""
        try:
            self._path(self._number).unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._answer, self._path(self._number))
        except OSError as error:
            _log.error("the other workers cannot show the metrics of this one", worker=self._number, exc_info=error)

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()

    async def gather(self) -> bytes:
        """One text with the samples of all workers that answer, gathered at most KEPT_SECONDS ago.

        Requests at the same time await one gathering, which goes on where one of them is cancelled.
        """
        now = self._clock()
        if self._gathered is None or (self._gathered.done() and now - self._began >= KEPT_SECONDS):
            self._gathered, self._began = asyncio.create_task(self._gather()), now
        return await asyncio.shield(self._gathered)

    async def _gather(self) -> bytes:
        texts = await asyncio.gather(*map(self._ask, range(self._count)))
        up = (b'fhircast_worker_up{worker="%d"} %d.0\n' % (number, bool(text)) for number, text in enumerate(texts))
        return merged(texts) + _UP + b"".join(up)

    async def _ask(self, number: int) -> bytes:
        """The text of a worker. Empty: it does not answer, or ended amid the answer."""
        if number == self._number:
            return self._render()
        writer = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path(number))
                text = await reader.read()
                return text.removesuffix(_END) if text.endswith(_END) else b""
        except (OSError, TimeoutError):
            return b""
        finally:
            if writer is not None:
                writer.close()

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(self._render() + _END)
            await writer.drain()
        writer.close()

    def _path(self, number: int) -> Path:
        return self._folder / str(number)


def merged(texts: Iterable[bytes]) -> bytes:
    """Texts for /metrics as one, in which each metric has one head. Their samples differ by a label."""
    samples: dict[bytes, list[bytes]] = {}
    for text in texts:
        for metric in text.removeprefix(b"# HELP ").split(b"\n# HELP ") if text else ():
            help_line, type_line, *lines = metric.rstrip(b"\n").split(b"\n")
            samples.setdefault(b"# HELP %b\n%b\n" % (help_line, type_line), []).extend(lines)
    return b"".join(head + b"".join(b"%b\n" % line for line in lines) for head, lines in samples.items())
