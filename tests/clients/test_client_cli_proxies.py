"""The commands go through the proxy of the environment, or say why not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.clients.cli_world import Terminal, line
from tests.clients.places import DevHub
from tests.proxy_environment import ODD, pass_on, say_of_proxies


@pytest.fixture
def terminal(
    hub: DevHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    return Terminal(hub, tmp_path, monkeypatch, capsys)


@pytest.mark.req("SEC-6")
async def test_check_whatever_the_environment_says_of_proxies(terminal: Terminal) -> None:
    said = {"ALL_PROXY": "socks5://me:s3cr3t@h:1080", "HTTPS_PROXY": "foo bar"}
    check = await terminal.start("check", **said, NO_PROXY=f"127.0.0.1,{ODD}")
    out, err = [text.decode() for text in await check.communicate()]
    assert (check.returncode, err) == (0, ""), out
    assert [shown.split()[0] for shown in out.splitlines()] == ["ok"] * 6


@pytest.mark.req("SEC-6")
async def test_a_proxy_that_cannot_be_used_is_one_sentence(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    say_of_proxies(monkeypatch, ALL_PROXY="socks5://me:s3cr3t@h:1080", NO_PROXY=ODD)
    expected = "ALL_PROXY names a SOCKS proxy, and the Python package socksio is not installed"
    code, out, err = await terminal.run("check")
    assert (code, err) == (1, "")
    assert out.splitlines()[0] == f"FAILED  discovery     {expected}"
    assert out.splitlines()[-1] == f"FAILED  subscribe     {expected}"
    code, out, err = await terminal.run("context")
    assert (code, out, err) == (1, "", f"fhircast: the hub cannot be reached: {expected}\n")


@pytest.mark.req("SEC-6")
async def test_a_socket_that_would_go_through_a_proxy_that_cannot_be_used(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    say_of_proxies(monkeypatch, WS_PROXY="socks5://me:s3cr3t@h:1080")
    expected = "WS_PROXY names a SOCKS proxy, and the Python package python-socks is not installed"
    code, out, _ = await terminal.run("check")
    assert (code, out.splitlines()[-1]) == (1, f"FAILED  socket        {expected}")
    listener = await terminal.start("listen", WS_PROXY="foo bar")
    try:
        shown = await line(listener.stderr)
    finally:
        listener.kill()
        await listener.communicate()
    assert "the hub cannot be reached: WS_PROXY must be the URL of a proxy" in shown


@pytest.mark.req("SEC-6")
async def test_a_socket_goes_through_the_proxy_of_the_environment(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    async with await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy:
        port = int(terminal.environ["FHIRCAST_HUB"].split(":")[2].partition("/")[0])
        say_of_proxies(monkeypatch, WS_PROXY=f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        code, out, _ = await terminal.run("check")
        assert code == 0, out
    assert asked == [f"CONNECT 127.0.0.1:{port} HTTP/1.1".encode()]


@pytest.mark.req("SEC-6")
async def test_what_a_proxy_refuses_is_not_taken_for_the_hubs_answer(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        say_of_proxies(monkeypatch, WS_PROXY=address)
        code, out, _ = await terminal.run("check")
        listener = await terminal.start("listen", WS_PROXY=address)
        try:
            shown = await line(listener.stderr)
        finally:
            listener.kill()
            await listener.communicate()
    assert (code, out.splitlines()[-1]) == (1, "FAILED  socket        the proxy answered 403 to CONNECT")
    assert "the hub cannot be reached: the proxy answered 403 to CONNECT" in shown
