"""Plays scenarios (clients/scenarios.json): the verbs, one method each."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from fhircast_client import Event, FHIRcastClient, HubError, Refuse, Timings, WireMessage
from fhircast_client.events import context_of, make_event, reference_of
from fhircast_client.update_bundle import update_context
from tests.clients.places import ACCEPTED, within

#: Seconds that an expectation is waited for unless it says otherwise, and in which nothing may follow what was heard.
_WITHIN, _QUIET = 5.0, 0.3
#: A busy machine may take so many times as long.
_SLACK = 4


class Place(Protocol):
    """Where clients meet."""

    async def client(self, name: str, **options: Any) -> FHIRcastClient: ...

    async def post(self, message: dict[str, Any]) -> int: ...

    async def cut(self, name: str, *, silently: bool = False) -> None: ...

    async def restore(self, name: str) -> None: ...


@dataclass
class Actor:
    """A client of a scenario, how its handlers behave, and what it heard and answered."""

    client: FHIRcastClient
    behaves: dict[str, Any]
    heard: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    was_cut: bool = False

    async def handle(self, event: Event) -> None:
        self.heard.append(f"{event.name} {event.anchor.partition('/')[2]}".strip())
        self.was_cut = False
        await _behave(self.behaves[event.name.lower()])

    def saw(self, message: WireMessage) -> None:
        if message.kind == "event":
            self.names[message.body["id"]] = message.body["event"]["hub.event"]
        if message.kind == "acknowledgement" and self.names[message.body["id"]].lower() != "syncerror":
            self.answered.append(f"{self.names[message.body['id']]} {message.body['status']}")


class Player:
    """Plays one scenario. `tells`: the hub tells who comes back what is open; one of STU2 does not."""

    def __init__(self, place: Place, resources: dict[str, dict[str, Any]], *, tells: bool) -> None:
        self._place, self._resources, self._tells = place, resources, tells
        self._actors: dict[str, Actor] = {}

    async def play(self, steps: list[dict[str, Any]]) -> None:
        """All the steps, one after the other; raises AssertionError at the first that is not as it should be."""
        try:
            for number, step in enumerate(steps):
                verb = next(iter(step))
                try:
                    await self._verb(verb)(step)
                except AssertionError as error:
                    raise AssertionError(f"step {number}, {step}: {error}") from None
        finally:
            for actor in self._actors.values():
                await actor.client.stop()

    def _verb(self, verb: str) -> Callable[[dict[str, Any]], Awaitable[None]]:
        found: Callable[[dict[str, Any]], Awaitable[None]] = getattr(self, f"_do_{verb}")
        return found

    async def _do_start(self, step: dict[str, Any]) -> None:
        options = dict(step.get("options", {}))
        if "timings" in options:
            options["timings"] = Timings(**options["timings"])
        client = await self._place.client(step["start"], **options)
        actor = Actor(client, {name.lower(): behaviour for name, behaviour in step["handlers"].items()})
        for name in step["handlers"]:
            client.on(name, actor.handle)
        client.on_wire(actor.saw)
        self._actors[step["start"]] = actor
        async with asyncio.timeout(20):
            await client.start()

    async def _do_behave(self, step: dict[str, Any]) -> None:
        self._actors[step["behave"]].behaves[step["event"].lower()] = step["as"]

    async def _do_open(self, step: dict[str, Any]) -> None:
        await self._fails(self._actors[step["open"]].client.open(*self._named(step["resources"])), step)

    async def _do_close(self, step: dict[str, Any]) -> None:
        await self._fails(self._actors[step["close"]].client.close(*self._named(step["resources"])), step)

    async def _do_publish(self, step: dict[str, Any]) -> None:
        moment = datetime.now(UTC) - timedelta(seconds=step.get("seconds_ago", 0))
        timestamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        context = context_of(self._named(step["resources"]))
        client = self._actors[step["publish"]].client
        await self._fails(client.publish(step["event"], context, id=str(uuid.uuid4()), timestamp=timestamp), step)

    async def _do_update(self, step: dict[str, Any]) -> None:
        changes = [self._resources.get(change, change) for change in step["changes"]]
        asked: Any = (lambda content: changes) if step.get("by_function") else changes
        client = self._actors[step["update"]].client
        await self._fails(client.update(asked, self._resources[step["anchor"]]), step)

    async def _do_share(self, step: dict[str, Any]) -> None:
        client, anchor = self._actors[step["share"]].client, reference_of(self._resources[step["anchor"]])
        context = update_context(anchor, [])
        context[-1]["resource"]["entry"] = [self._entry(entry) for entry in step["entries"]]
        known = client.contexts[anchor]
        name = f"{anchor.partition('/')[0]}-update"
        posted = make_event(known.event.topic, name, context, version=known.version).body
        assert await self._place.post(posted) == step.get("fails", ACCEPTED)

    async def _do_select(self, step: dict[str, Any]) -> None:
        items = [self._resources.get(item, item) for item in step["items"]]
        client = self._actors[step["select"]].client
        await self._fails(client.select(items, self._resources[step["anchor"]]), step)

    async def _do_catch_up(self, step: dict[str, Any]) -> None:
        assert await self._actors[step["catch_up"]].client.catch_up() is step["followed"]

    async def _do_heard(self, step: dict[str, Any]) -> None:
        actor = self._actors[step["heard"]]
        await self._within(step, lambda: len(actor.heard) >= len(step["events"]), lambda: f"heard {actor.heard}")
        await asyncio.sleep(_QUIET)
        heard, actor.heard = actor.heard, []
        assert heard == step["events"]

    async def _do_acknowledged(self, step: dict[str, Any]) -> None:
        actor, expected = self._actors[step["acknowledged"]], [status.lower() for status in step["statuses"]]
        await self._within(step, lambda: len(actor.answered) >= len(expected), lambda: f"answered {actor.answered}")
        answered, actor.answered = actor.answered, []
        assert [status.lower() for status in answered] == expected

    async def _do_context(self, step: dict[str, Any]) -> None:
        client = self._actors[step["context"]].client
        await self._within(
            step, lambda: (client.context.anchor if client.context else None) == step["is"], lambda: client.context
        )

    async def _do_content(self, step: dict[str, Any]) -> None:
        client, anchor = self._actors[step["content"]].client, reference_of(self._resources[step["anchor"]])

        def content() -> list[str] | None:
            context = client.contexts.get(anchor)
            return None if context is None or context.content is None else sorted(context.content)

        await self._within(step, lambda: content() == sorted(step["is"]), content)

    async def _do_status(self, step: dict[str, Any]) -> None:
        actor = self._actors[step["status"]]
        expected = {name: step[name] for name in ("connection", "in_sync", "behind") if name in step}
        if actor.was_cut and not self._tells:
            # It cannot know whether something was opened meanwhile, and says so, until the next open.
            expected["in_sync"] = False

        def fits() -> bool:
            status = actor.client.status
            found = {"connection": status.connection, "in_sync": status.in_sync, "behind": list(status.behind)}
            return all(found[name] == value for name, value in expected.items()) and step.get("why", "") in status.why

        await self._within(step, fits, lambda: actor.client.status)

    async def _do_cut(self, step: dict[str, Any]) -> None:
        self._actors[step["cut"]].was_cut = True
        await self._place.cut(step["cut"], silently=step.get("silently", False))
        if not step.get("stays"):
            await asyncio.sleep(step["seconds"])
            await self._place.restore(step["cut"])

    async def _do_restore(self, step: dict[str, Any]) -> None:
        await self._place.restore(step["restore"])

    async def _do_wait(self, step: dict[str, Any]) -> None:
        await asyncio.sleep(step["wait"])

    async def _do_stop(self, step: dict[str, Any]) -> None:
        await self._actors[step["stop"]].client.stop()

    def _entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        if "delete" in entry:
            return {"fullUrl": entry["fullUrl"], "request": {"method": "DELETE", "url": entry["delete"]}}
        resource = self._resources[entry["put"]]
        request = {"method": "PUT", "url": reference_of(resource)}
        return {"fullUrl": entry["fullUrl"], "request": request, "resource": resource}

    def _named(self, names: list[str]) -> list[dict[str, Any]]:
        return [self._resources[name] for name in names]

    async def _fails(self, call: Awaitable[Event], step: dict[str, Any]) -> None:
        if "fails" not in step:
            await call
            return
        with pytest.raises(HubError) as failed:
            await call
        assert failed.value.status == step["fails"]

    async def _within(self, step: dict[str, Any], condition: Callable[[], bool], said: Callable[[], object]) -> None:
        await within(step.get("within", _WITHIN) * _SLACK, condition, lambda: f"it is {said()}")


async def _behave(behaviour: Any) -> None:
    if behaviour == "raise":
        raise LookupError("as the scenario wants it")
    if isinstance(behaviour, dict) and "refuse" in behaviour:
        raise Refuse(behaviour["refuse"])
    if isinstance(behaviour, dict) and "slow" in behaviour:
        await asyncio.sleep(behaviour["slow"])
        await _behave(behaviour["then"])
