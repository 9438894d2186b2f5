"""Scrubbing: deleted rows do not stay in SQLite's files. The log is emptied, and leftovers in the file are overwritten.

`secure_delete` overwrites deleted rows. Where SQLite moves rows between pages, copies may stay in the unused part of a page
("unallocated region", https://sqlite.org/fileformat2.html, 1.6 B-tree Pages). About one row in some thousand is affected. The unused
part means nothing to SQLite. So it may be overwritten in the file at any time, also in part.
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

#: Seconds to wait for another process that reads the file, as a backup does.
PATIENCE = 0.05
#: Bytes of the file's header (1.3).
_FILE_HEADER = 100
#: Bytes of the log's header (4.1 WAL File Format).
_LOG_HEADER = 32
#: Place of the salts in the log's header.
_SALTS = slice(16, 24)
#: Bytes of the header of each frame in the log. A frame is a page with a header.
_FRAME_HEADER = 24
#: Offset of the page size in the file's header.
_PAGE_SIZE_AT = 16
#: First byte of a B-tree page -> bytes of the page's header. Overflow pages begin with 0.
_TREE_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}


class _Frames:
    """The frames in the file of a log (4.2 WAL Frame Format). Frames of earlier logs may follow, with other salts."""

    def __init__(self, file: int, content: mmap.mmap) -> None:
        #: The descriptor of the file.
        self.file = file
        self._content = content
        self.salts = content[_SALTS]
        #: Bytes of a frame.
        self.size = _FRAME_HEADER + int.from_bytes(content[8:12])
        whole = (len(content) - _LOG_HEADER) // self.size
        #: How many there are.
        self.count = bisect.bisect_left(range(whole), True, key=lambda number: self._field(number, 8, 16) != self.salts)

    def _field(self, number: int, begin: int, end: int) -> bytes:
        place = _LOG_HEADER + number * self.size
        return self._content[place + begin : place + end]

    def pages(self, first: int) -> set[int]:
        """The numbers of the pages in the frames from `first` on. There may be thousands of frames, and few pages."""
        return {int.from_bytes(page) for page in {self._field(number, 0, 4) for number in range(first, self.count)}}


class WriteAheadLog:
    """The write-ahead log (WAL) of one file. Its methods run in one thread, one after the other. They raise sqlite3.Error or OSError.

    `file` is the file's descriptor.
    """

    def __init__(self, path: Path, file: int) -> None:
        self._path, self._file = path, file
        #: Frames of the log that were moved into the file, with the salts of the log. SQLite changes the salts with each new log.
        self._moved, self._salts = 0, b""
        #: Pages whose unused parts are to be overwritten once they are moved.
        self._unscrubbed: set[int] = set()

    def sync(self) -> int:
        """Wait until the log is on the disk. Others may write meanwhile. Returns the bytes of the log's frames."""
        with self._opened() as log:
            if log is None:
                return 0
            os.fdatasync(log.file)
            return log.count * log.size

    def move(self) -> None:
        """Move the log into the file. Others may write meanwhile."""
        with contextlib.closing(_connect(self._path)) as reader, contextlib.closing(_connect(self._path)) as connection:
            # This reader keeps later frames in the log. So all moved pages are in _unscrubbed.
            reader.execute("begin")
            reader.execute("select 1 from part limit 1").fetchone()
            self._move(connection, "passive")

    def reset(self) -> bool:
        """Move the log into the file. The next frame is written at the log's begin. Nobody may write meanwhile.

        The file of the log keeps its size: to truncate a file takes more than a millisecond for each megabyte.
        Returns False where another process reads for longer than PATIENCE.
        """
        with contextlib.closing(_connect(self._path)) as connection:
            return self._move(connection, "restart")

    def empty(self) -> bool:
        """Move the log into the file, and truncate the log. Otherwise like `reset`."""
        with contextlib.closing(_connect(self._path)) as connection:
            # A process may be killed at any moment, and only the log names the pages. So they are overwritten first.
            if not self._move(connection, "full"):
                return False
            busy: int = connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
        return not busy

    def _move(self, connection: sqlite3.Connection, mode: str) -> bool:
        """Move frames into the file, and overwrite the unused parts of their pages. Returns False where another process is in the way."""
        self._unscrubbed |= self._pages_to_move()
        busy, _, moved = connection.execute(f"pragma wal_checkpoint({mode})").fetchone()
        if moved >= 0:  # -1: another process moves frames
            self._moved = moved
            _scrub(self._file, self._unscrubbed)
            self._unscrubbed = self._pages_to_move()
        return not busy

    def _pages_to_move(self) -> set[int]:
        """The numbers of the pages in the log that were not moved before. The first page of the file is 1."""
        with self._opened() as log:
            if log is None:
                return set()
            if log.salts != self._salts:
                self._moved, self._salts = 0, log.salts
            return log.pages(self._moved)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[_Frames | None]:
        """The frames of the log. None: the log is empty, or there is none."""
        try:
            file = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            if os.fstat(file).st_size < _LOG_HEADER:
                yield None
                return
            with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
                yield _Frames(file, content)
        finally:
            os.close(file)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)
    connection.execute("pragma secure_delete = on")
    return connection


def _scrub(file: int, pages: set[int]) -> None:
    """Overwrite the unused parts of these pages."""
    size = int.from_bytes(os.pread(file, 2, _PAGE_SIZE_AT))
    size = 1 << 16 if size == 1 else size  # "or the value 1 representing a page size of 65536" (1.3)
    found = False
    for number in pages:
        page = os.pread(file, size, (number - 1) * size)
        header = _FILE_HEADER if number == 1 else 0
        if len(page) < size or page[header] not in _TREE_HEADERS:
            continue
        cells, end = struct.unpack_from(">HH", page, header + 3)
        begin = header + _TREE_HEADERS[page[header]] + 2 * cells
        if any(page[begin:end]):
            os.pwrite(file, bytes(end - begin), (number - 1) * size + begin)
            found = True
    if found:
        os.fdatasync(file)
