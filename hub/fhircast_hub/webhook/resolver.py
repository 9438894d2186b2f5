"""Resolves the host names of callbacks, on threads of its own.

Kept by hand, for two reasons. The system's resolver blocks a thread while a name's servers are silent, and a
subscriber chooses that name. The event loop's own threads are four, resolve the issuers' names too, and must end before the
process does. The threads here are more, delay nothing else, and end with the process.
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
from fhircast_hub.webhook.fair_slots import NOBODY, FairSlots, User

#: Names that are resolved at once: so many that were resolved before, and so many others. Each user has a share of both.
#: So a user with ever new names, whose servers are silent, does not delay callbacks that are in use.
AT_ONCE = int(RESOLVED.most)
#: Names remembered as resolved; the oldest is forgotten first.
MAX_KNOWN = 10_000

#: The answer of getaddrinfo.
_Addresses = list[tuple[Any, ...]]
#: Host and port.
_Name = tuple[str, int]


class Resolver:
    """Resolves names of callbacks. Requests for one name at the same time share one look-up."""

    def __init__(self) -> None:
        #: Slots for names that were not resolved before, and for names that were.
        self._unknown_slots, self._known_slots = FairSlots(AT_ONCE), FairSlots(AT_ONCE)
        self._known: OrderedDict[str, None] = OrderedDict()
        #: Look-ups under way.
        self._pending: dict[_Name, asyncio.Future[_Addresses | Exception]] = {}

    async def addresses(self, host: str, port: int, user: User = NOBODY) -> list[str]:
        """The addresses of `host`, in the system's order; link-local ones with their zone. Raises OSError if there are none.

        A look-up takes a thread out of the share of `user`.
        """
        try:
            # An address, in any spelling, needs no look-up.
            found = _look_up(host, port, socket.AI_NUMERICHOST)
        except OSError:
            result = await self._resolve((host, port), user)
            if isinstance(result, Exception):
                raise OSError(f"not resolved: {type(result).__name__}") from None
            found = result
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def _resolve(self, name: _Name, user: User) -> _Addresses | Exception:
        """The result of the look-up. If this task is cancelled, the slot stays taken until the thread has ended."""
        if name not in self._pending:
            slots = self._known_slots if name[0] in self._known else self._unknown_slots
            await slots.acquire(user)
            if name in self._pending:  # begun by another task meanwhile
                slots.release(user)
            else:
                self._begin(name, slots, user)
        return await asyncio.shield(self._pending[name])

    def _begin(self, name: _Name, slots: FairSlots, user: User) -> None:
        loop = asyncio.get_running_loop()
        pending = self._pending[name] = loop.create_future()

        def done(result: _Addresses | Exception) -> None:
            slots.release(user)
            del self._pending[name]
            if not isinstance(result, Exception):
                self._remember(name[0])
            pending.set_result(result)

        def work() -> None:
            try:
                result: _Addresses | Exception = _look_up(*name)
            except Exception as error:
                result = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done, result)

        threading.Thread(target=work, name="resolver", daemon=True).start()

    def _remember(self, host: str) -> None:
        self._known[host] = None
        self._known.move_to_end(host)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


def one_name(host: str) -> str:
    """One spelling for each host: an address in its normal form; a name in lower case, without a dot at the end."""
    with contextlib.suppress(OSError, ValueError):
        *_, address = _look_up(host, 0, socket.AI_NUMERICHOST)[0]
        return str(real_address(ipaddress.ip_address(address[0].partition("%")[0])))
    return host.lower().removesuffix(".")


def _look_up(host: str, port: int, flags: int = 0) -> _Addresses:
    """The system's answer. Blocks, unless `flags` has AI_NUMERICHOST. Raises OSError if there is none."""
    try:
        return list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP, flags))
    except UnicodeError as error:  # a label is empty or too long
        raise OSError(f"not a host name: {type(error).__name__}") from None
