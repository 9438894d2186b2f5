"""What environments say of proxies, right and wrong; a proxy's tunnel; and the certificates that a program reads."""

from __future__ import annotations

import asyncio
import os
import ssl
from types import ModuleType

import pytest

#: Entries of NO_PROXY at which httpx raises, or that nobody understands.
ODD = "[::1],::1,fd00::/8,[fd00::]/8,[::1]:8080,fe80::1%eth0,::1/200,a b,:::,:80,x:y,h:99999999,http://,://,.,..,*.,[,],[x],\udcff,é"
#: What is no address of a proxy.
JUNK = (
    "foo bar",
    "http://",
    "://",
    "http://[::1",
    "h:port",
    "h:99999",
    "http://h:99999",
    "quic://h",
    "\udcff",
    "http://\udcff",
)


def say_of_proxies(patch: pytest.MonkeyPatch, **variables: str) -> None:
    """Let the environment say this of proxies, and nothing else."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            patch.delenv(name)
    for name, value in variables.items():
        patch.setenv(name, value)


async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """One direction of a proxy's tunnel: pass on all bytes, then close."""
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()


def reads(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[ssl.SSLContext]:
    """A list of all trusted certificates that this function of a module reads from now on."""
    read: list[ssl.SSLContext] = []
    create = getattr(module, name)

    def recorded() -> ssl.SSLContext:
        read.append(create())
        return read[-1]

    monkeypatch.setattr(module, name, recorded)
    return read
