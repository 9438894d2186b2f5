"""Names of callbacks, resolved on threads of their own.

The system's resolver blocks, for as long as a name's servers are silent, and a callback's name is chosen by whoever subscribes.
The event loop's own threads are four, and resolve the issuers' names too; and a process waits for them before it ends. These are
more, wait for nobody, and are not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import OrderedDict
from typing import Any

from fhircast_hub.budgets.table import RESOLVED
from fhircast_hub.core.wire.callback_url import real_address
from fhircast_hub.webhook.shares import NOBODY, Shares, User

#: Names that are resolved at once: of those that were found before, and of those that were not, so many each. Who brings ever new
#: names whose servers are silent keeps no callback waiting that has been posted to. Each user has a share of both.
AT_ONCE = int(RESOLVED.most)
#: Names that are known to have been found, the last ones.
MAX_FOUND = 10_000

_Found = list[tuple[Any, ...]]


class Resolver:
    """Resolves names of callbacks, each once for all who want to know at the same time."""

    def __init__(self) -> None:
        self._strangers, self._known = Shares(AT_ONCE), Shares(AT_ONCE)
        self._found: OrderedDict[str, None] = OrderedDict()
        self._asked: dict[tuple[str, int], asyncio.Future[_Found | Exception]] = {}

    async def addresses(self, host: str, port: int, user: User = NOBODY) -> list[str]:
        """The addresses of `host`, in the resolver's order; one of link scope with its zone. Raises OSError where there are none.

        A name takes a thread out of the share of `user`.
        """
        try:
            # What is an address, however it is spelled, is known at once.
            found = _look_up(host, port, socket.AI_NUMERICHOST)
        except OSError:
            answer = await self._resolve(host, port, user)
            if isinstance(answer, Exception):
                raise OSError(f"not resolved: {type(answer).__name__}") from None
            found = answer
        return list(dict.fromkeys(str(where[0]) for *_, where in found))

    async def _resolve(self, host: str, port: int, user: User) -> _Found | Exception:
        """What came of it. Whoever waits may be cancelled; a place stays taken for as long as its thread is at work."""
        key = host, port
        if key not in self._asked:
            slots = self._known if host in self._found else self._strangers
            await slots.acquire(user)
            if key in self._asked:  # somebody else came first
                slots.release(user)
            else:
                self._begin(key, slots, user)
        return await asyncio.shield(self._asked[key])

    def _begin(self, key: tuple[str, int], slots: Shares, user: User) -> None:
        loop = asyncio.get_running_loop()
        asked = self._asked[key] = loop.create_future()

        def done(answer: _Found | Exception) -> None:
            slots.release(user)
            del self._asked[key]
            if not isinstance(answer, Exception):
                self._found[key[0]] = None
                self._found.move_to_end(key[0])
                if len(self._found) > MAX_FOUND:
                    self._found.popitem(last=False)
            asked.set_result(answer)

        def work() -> None:
            try:
                answer: _Found | Exception = _look_up(*key)
            except Exception as error:
                answer = error
            with contextlib.suppress(RuntimeError):  # the hub has ended
                loop.call_soon_threadsafe(done, answer)

        threading.Thread(target=work, name="resolver", daemon=True).start()


def one_name(host: str) -> str:
    """One name for all spellings of a host: an address as itself, a name in lower case and without the dot at its end."""
    with contextlib.suppress(OSError, ValueError):
        *_, where = _look_up(host, 0, socket.AI_NUMERICHOST)[0]
        return str(real_address(ipaddress.ip_address(where[0].partition("%")[0])))
    return host.lower().removesuffix(".")


def _look_up(host: str, port: int, flags: int = 0) -> _Found:
    """As the system has it. Raises OSError."""
    try:
        return list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP, flags))
    except UnicodeError as error:  # a label that is empty or too long
        raise OSError(f"not a host name: {type(error).__name__}") from None
