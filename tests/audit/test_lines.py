"""The audit trail in a file or on stdout has whole lines."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from fhircast_hub.audit import sink as writing
from fhircast_hub.audit.sink import Auditor, JsonLinesSink, make_sink
from tests.audit.audit_world import entry, number


@pytest.mark.req("AUD-2")
async def test_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    """Made with mode 0600; one that is there is appended to, and keeps what it has."""
    path = tmp_path / "a trail.jsonl"
    async with httpx.AsyncClient() as client:
        for text in (b"{}", b"[]"):
            sink = make_sink(path.as_uri(), client)
            assert sink is not None
            await sink.write([text, text])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"{}\n{}\n[]\n[]\n"


@pytest.mark.req("AUD-2")
async def test_stdout_has_whole_lines(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """`-` is stdout."""
    async with httpx.AsyncClient() as client:
        auditor = Auditor(make_sink("-", client), "https://hub.example", str.upper)
    for each in range(3):
        auditor.record(entry(each))
    await auditor.stop()
    assert [number(line) for line in capfdbinary.readouterr().out.splitlines()] == [0, 1, 2]


@pytest.mark.req("AUD-2")
async def test_no_half_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full amid a line leaves none of it, and the next attempt is whole."""
    path, real = tmp_path / "trail", os.write
    sink = JsonLinesSink(path)
    await sink.write([b'{"first":1}'])
    with monkeypatch.context() as patched:
        room = [5]

        def write(file: int, text: bytes) -> int:
            if not room:
                raise OSError(28, "No space left on device")
            return real(file, text[: room.pop()])

        patched.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            await sink.write([b'{"second":2}'])
    await sink.write([b'{"second":2}'])
    assert path.read_bytes() == b'{"first":1}\n{"second":2}\n'


@pytest.mark.req("AUD-2", "NOD-15")
async def test_workers_append_one_after_the_other(tmp_path: Path) -> None:
    """While another process appends, a batch waits: a failure of that one cuts only its own lines."""
    path = tmp_path / "trail"
    path.touch()
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writing = asyncio.create_task(JsonLinesSink(path).write([b"{}"]))
        done, _ = await asyncio.wait({writing}, timeout=0.05)
        assert not done
        assert path.read_bytes() == b""
    assert await writing == 0
    assert path.read_bytes() == b"{}\n"


@pytest.mark.req("AUD-2", "NOD-15")
async def test_a_file_that_another_process_keeps_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt ends, so that the hub can stop; nothing is written without the lock."""
    monkeypatch.setattr(writing, "LOCK_SECONDS", 0.05)
    path = tmp_path / "trail"
    path.touch()
    sink = JsonLinesSink(path)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            async with asyncio.timeout(5):
                await sink.write([b"{}"])
        assert path.read_bytes() == b""
    await sink.write([b"{}"])
    assert path.read_bytes() == b"{}\n"


@pytest.mark.req("AUD-2")
@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK, errno.EINVAL])
async def test_a_file_system_without_locks_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """One process alone needs none."""
    monkeypatch.setattr(fcntl, "flock", failing(code))
    await JsonLinesSink(tmp_path / "trail").write([b"{}"])
    assert (tmp_path / "trail").read_bytes() == b"{}\n"


@pytest.mark.req("AUD-2")
async def test_a_lock_that_fails_otherwise_fails_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once; a disk that fails is no file system without locks."""
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        await JsonLinesSink(tmp_path / "trail").write([b"{}"])
    assert (tmp_path / "trail").read_bytes() == b""


def failing(code: int) -> Callable[[int, int], None]:
    """A flock() with this error."""

    def flock(_file: int, _how: int) -> None:
        raise OSError(code, os.strerror(code))

    return flock
