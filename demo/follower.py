"""What every application that follows does: subscribe, connect, take in what it is told, acknowledge."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from demo import DemoError
from demo.fhir import Message, anchor, event_name
from demo.screen import say
from demo.session import Session
from fhircast_hub.dev import DevIssuer

#: Seconds until a message that does not come is missing.
PATIENCE = 5


class Follower(ABC):
    """An application in the session. It understands a few events, and its token lets it read these and do nothing else."""

    name: ClassVar[str]
    events: ClassVar[tuple[str, ...]]

    def __init__(self, session: Session, issuer: DevIssuer) -> None:
        self._session = session
        self.scope = " ".join(f"fhircast/{event}.read" for event in self.events)
        self.token = issuer.token(scope=self.scope, client=self.name, topic=session.topic)
        self._endpoint = ""
        self._connection: ClientConnection

    @abstractmethod
    def understand(self, message: Message) -> str:
        """Do what the event asks for; what that was."""

    def why_not(self, message: Message) -> str:
        """Why an event that others were told of was nothing for this application."""
        return f"was not told of {event_name(message)}: it did not subscribe to it"

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """Be in the session: what comes first on the socket confirms what was asked for."""
        self._endpoint = await self._session.subscribe(self.token, self.name, self.events)
        async with connect(self._endpoint, proxy=None) as self._connection:
            confirmation = await self._next("a confirmation")
            granted = set(str(confirmation.get("hub.events")).split(","))
            if confirmation.get("hub.mode") != "subscribe" or granted != set(self.events):
                raise DemoError(f"{self.name}: expected to get {', '.join(self.events)}, got {confirmation}")
            say(self.name, "subscribed", f"to {', '.join(self.events)}")
            yield

    async def hear(self, expected: Sequence[Message]) -> None:
        """Take in exactly these messages, in this order; an open without id is one that the hub derives from another."""
        for message in expected:
            told = await self._next(_title(message))
            if not _same(told, message):
                raise DemoError(f"{self.name}: expected {_title(message)}, got {_title(told)}: {json.dumps(told)}")
            await self._take(told, "" if "id" in message else ", as the hub derives it")
        if extra := await self._unread():
            raise DemoError(f"{self.name}: expected no more, got {_title(extra)}")

    def skip(self, message: Message) -> None:
        """Say why this event was not for it."""
        say(self.name, "", self.why_not(message))

    async def follow(self) -> None:
        """Take in whatever comes, until cancelled."""
        while True:
            told = await self._next("an event", within=None)
            if "event" in told:
                await self._take(told)

    async def leave(self) -> None:
        """Unsubscribe: the hub says so and closes. Whatever else it had sent shows now."""
        await self._session.unsubscribe(self.token, self._endpoint)
        denial = await self._next("a denial")
        if denial.get("hub.mode") != "denied":
            raise DemoError(f"{self.name}: expected no more, got {_title(denial)}")
        async with asyncio.timeout(PATIENCE):
            await self._connection.wait_closed()

    async def _take(self, told: Message, how: str = "") -> None:
        say(self.name, event_name(told), self.understand(told) + how)
        await self._connection.send(json.dumps({"id": told["id"], "status": 200}))

    async def _next(self, wanted: str, within: float | None = PATIENCE) -> Message:
        try:
            async with asyncio.timeout(within):
                message: Message = json.loads(await self._connection.recv())
        except TimeoutError:
            raise DemoError(f"{self.name}: expected {wanted}, got nothing within {within} s") from None
        except ConnectionClosed as closed:
            raise DemoError(f"{self.name}: expected {wanted}, got the end of its socket: {closed}") from None
        return message

    async def _unread(self) -> Message | None:
        """A message that has come and was not expected: what the hub wrote before a pong is here with it."""
        async with asyncio.timeout(PATIENCE):
            await (await self._connection.ping())
        try:
            async with asyncio.timeout(0):  # takes what is there, waits for nothing
                message: Message = json.loads(await self._connection.recv())
        except TimeoutError:
            return None
        return message


def _same(told: Message, expected: Message) -> bool:
    """Whether this is that message as it was published. The version is the hub's to say, and an id that was not expected."""
    event = {name: value for name, value in told.get("event", {}).items() if name != "context.versionId"}
    return {name: value for name, value in (told | {"event": event}).items() if name in expected} == expected


def _title(message: Message) -> str:
    if "event" not in message:
        return f"hub.mode {message.get('hub.mode')}"
    return f"{event_name(message)} of {anchor(message).get('id')}"
