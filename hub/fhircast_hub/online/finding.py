"""The result of a check of `check-config`: one line for the operator."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Iterator
from typing import NamedTuple

import httpx

from fhircast_hub.settings.outbound_proxies import UnusableCertificates, UnusableProxy

#: Seconds for one check, unless it says otherwise.
SECONDS = 5.0
#: Characters of a text of another server in a line.
MAX_QUOTED = 200
#: The first word of a line. A check came out well; a fact that no check can judge; a risk; a check failed.
OK, NOTE, WARNING, FAILED = "ok", "note", "warning", "FAILED"
_TRUST = "name the authority in SSL_CERT_FILE, see docs/settings.md (Authorities of a hospital)"


class Finding(NamedTuple):
    """What a check found."""

    is_ok: bool
    #: What was checked: the setting, and the address.
    what: str
    #: What came.
    said: str
    #: What the operator can do. "": nothing is to be done.
    advice: str = ""
    #: The line's word where the check does not fail: OK, NOTE or WARNING.
    word: str = OK

    def __str__(self) -> str:
        """The line: its word, what was checked, what came, and what to do."""
        word = self.word if self.is_ok else FAILED
        line = f"{word:7} {self.what}: {self.said}{f'; {self.advice}' if self.advice else ''}"
        return "".join(each if each.isprintable() else "?" for each in line)


class Failed(Exception):
    """A check failed."""

    def __init__(self, said: str, advice: str = "") -> None:
        super().__init__(said)
        self.said, self.advice = said, advice


class Unreached(Failed):
    """A server was not reached."""


async def found(what: str, check: Awaitable[str], seconds: float = SECONDS) -> Finding:
    """The finding of a check, which returns what came, or raises. The check is given up after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return Finding(True, what, await check)
    except Failed as error:
        return Finding(False, what, error.said, error.advice)
    except TimeoutError:
        return Finding(False, what, f"no answer within {seconds:g} s", "is a firewall or a proxy between?")
    except Exception as error:  # one check must not keep the lines of the others back
        reached = unreached(error)
        return Finding(False, what, reached.said, reached.advice)


def unreached(error: BaseException) -> Unreached:
    """Why a server was not reached, and what to do."""
    for each in _causes(error):
        match each:
            case UnusableProxy() | UnusableCertificates():
                return Unreached(str(each))
            case ssl.SSLCertVerificationError():
                return Unreached(f"the certificate is not trusted: {each.verify_message}", _TRUST)
            case ssl.SSLError():
                return Unreached(f"TLS fails: {each.reason or each}")
            case socket.gaierror():
                return Unreached(
                    f"the name is not resolved: {each.strerror}", "check the name, and the DNS of this machine"
                )
            case OSError(errno=int(number)):
                return Unreached(os.strerror(number), "check host and port, and what is between")
            case httpx.ProxyError():
                return Unreached(f"the proxy answers: {quoted(str(each))}", "check HTTPS_PROXY and NO_PROXY")
            case httpx.TimeoutException():
                return Unreached("no answer in time", "is a firewall or a proxy between?")
    return Unreached(type(error).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it comes from. Errors of the proxy's settings come first."""
    chain: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if each not in chain:
            chain.append(each)
            more = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
            waiting += [*more, *filter(None, (each.__cause__, each.__context__))]
    yield from chain


def quoted(text: object) -> str:
    """A text of another server: short, in quotes, on one line."""
    shown = repr(text)
    return shown if len(shown) <= MAX_QUOTED else f"{shown[:MAX_QUOTED]}..."
