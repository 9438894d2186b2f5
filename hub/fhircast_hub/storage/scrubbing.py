"""Scrubbing: deleted rows do not stay in SQLite's files. The log is emptied, and leftovers in the file are overwritten.

`secure_delete` overwrites deleted rows. Where SQLite moves rows between pages, copies may stay in the unused part of a page
("unallocated region", https://sqlite.org/fileformat2.html, 1.6 B-tree Pages). About one row in some thousand is affected. The unused
part means nothing to SQLite. So it may be overwritten in the file at any time, also in part.
"""

from __future__ import annotations

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
        """Wait until the log is on the disk. Others may write meanwhile. Returns the bytes of the log."""
        with self._opened() as log:
            if log is None:
                return 0
            os.fdatasync(log)
            return os.fstat(log).st_size

    def move(self) -> None:
        """Move the log into the file. Others may write meanwhile."""
        with contextlib.closing(_connect(self._path)) as reader, contextlib.closing(_connect(self._path)) as connection:
            # This reader keeps later frames in the log. So all moved pages are in _unscrubbed.
            reader.execute("begin")
            reader.execute("select 1 from part limit 1").fetchone()
            self._move(connection, "passive")

    def empty(self) -> bool:
        """Move the log into the file, and truncate the log. Nobody may write meanwhile.

        Returns False where another process reads for longer than PATIENCE.
        """
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
            if log is None or os.fstat(log).st_size < _LOG_HEADER:
                return set()
            with mmap.mmap(log, 0, access=mmap.ACCESS_READ) as frames:
                if (salts := frames[_SALTS]) != self._salts:
                    self._moved, self._salts = 0, salts
                size = _FRAME_HEADER + int.from_bytes(frames[8:12])
                first = _LOG_HEADER + self._moved * size
                # There may be thousands of frames: only their numbers are copied.
                numbers = {frames[place : place + 4] for place in range(first, len(frames) - 3, size)}
            return {int.from_bytes(number) for number in numbers}

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int | None]:
        """The descriptor of the log, for reading. None: there is no log."""
        try:
            log = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            yield log
        finally:
            os.close(log)


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
