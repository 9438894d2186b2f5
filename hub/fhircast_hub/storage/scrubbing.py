"""What was deleted is gone from SQLite's files: its log is emptied, and what was moved within the file is overwritten.

`secure_delete` overwrites what is deleted. Where SQLite shares rows out anew among pages, copies stay behind in the part of a page
that nothing uses ("unallocated region", https://sqlite.org/fileformat2.html, 1.6 B-tree Pages): one in some thousand rows that
come and go. These bytes mean nothing to SQLite. So they may be overwritten in the file at any time, in part too.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sqlite3
import struct
from pathlib import Path

#: Seconds that are waited for another process that reads the file, as a backup does.
PATIENCE = 0.05
#: The file's header (1.3), that of its log (4.1 WAL File Format), and that of each page in the log.
_FILE_HEADER, _LOG_HEADER, _FRAME_HEADER = 100, 32, 24
#: Where the file's header has the size of a page.
_PAGE_SIZE_AT = 16
#: The first byte of a page of a tree, and the length of the header there. Overflow pages begin with 0.
_TREE_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}


def move_log(path: Path, file: int) -> int:
    """Move the log into the file, while writers go on; how many pages the log has. `file` is the file's descriptor.

    Raises sqlite3.Error or OSError.
    """
    with contextlib.closing(_connect(path)) as reader, contextlib.closing(_connect(path)) as connection:
        # While somebody reads, no page is moved or overwritten that was logged later: so all that is moved is in `pages`.
        reader.execute("begin")
        reader.execute("select 1 from part limit 1").fetchone()
        pages = _logged(path)
        moved: tuple[int, int, int] = connection.execute("pragma wal_checkpoint(passive)").fetchone()
    _scrub(file, pages)
    return moved[1]


def empty_log(path: Path, file: int) -> bool:
    """Move the log into the file and cut it to nothing, while nobody writes. False where somebody reads for long.

    Raises sqlite3.Error or OSError.
    """
    with contextlib.closing(_connect(path)) as connection:
        pages = _logged(path)
        busy: int = connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
    _scrub(file, pages)
    return not busy


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)
    connection.execute("pragma secure_delete = on")
    return connection


def _logged(path: Path) -> set[int]:
    """The numbers of the pages that the log has, from 1."""
    try:
        log = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return set()
    try:
        if os.fstat(log).st_size < _LOG_HEADER:
            return set()
        with mmap.mmap(log, 0, access=mmap.ACCESS_READ) as frames:
            size = _FRAME_HEADER + int.from_bytes(frames[8:12])
            # As many bytes are copied as are needed: there may be thousands.
            numbers = {frames[place : place + 4] for place in range(_LOG_HEADER, len(frames) - 3, size)}
        return {int.from_bytes(number) for number in numbers}
    finally:
        os.close(log)


def _scrub(file: int, pages: set[int]) -> None:
    """Overwrite what these pages hold and do not use."""
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
