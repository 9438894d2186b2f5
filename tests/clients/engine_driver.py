"""Plays a sequence of clients/following.json to the engine, without a hub: what is around the engine is as simple as can be here.

Its twin is clients/javascript/test/engine-driver.js.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from fhircast_client.engine import Engine
from fhircast_client.events import Event, Kind, key_of, make_event, parse_event
from fhircast_client.following import Verdict, says_the_same
from fhircast_client.sync_errors import make_sync_error
from fhircast_client.timestamps import instant
from fhircast_client.update_bundle import read_current

TOPIC = "topic"
#: From here on a status says that the hub may answer later.
_FAILED = 500
#: Seconds in sequences count from here.
_START = datetime(2026, 11, 22, 10, tzinfo=UTC)
#: The own clock, in those seconds, where a sequence does not say: long after all that happens.
_CLOCK = 3600
_TYPES = {"p": "Patient", "s": "ImagingStudy", "r": "DiagnosticReport", "e": "Encounter", "o": "Observation"}
#: What is handled where a sequence does not say.
_HANDLED = (
    *("Patient-open", "ImagingStudy-open", "DiagnosticReport-open", "DiagnosticReport-update"),
    *("Patient-close", "ImagingStudy-close", "DiagnosticReport-close", "Home-open", "UserLogout"),
)


class Delivery:
    """An event on its way to its handler. `mode` is what the handler does: ok, refuse, fail, or slow until a step ends it."""

    def __init__(
        self,
        event: Event,
        mode: str,
        *,
        applies: Callable[[], bool] = lambda: True,
        queried: bool = False,
        retry: bool = False,
        done: Callable[[], object] = lambda: None,
    ) -> None:
        self.event, self.mode, self.applies, self.queried, self.retry, self.done = (
            event,
            mode,
            applies,
            queried,
            retry,
            done,
        )


class Driver:
    """One client, as a sequence has it."""

    def __init__(self, sequence: dict[str, Any]) -> None:
        names = sequence.get("handled", _HANDLED)
        self.engine = Engine("me", {name.lower() for name in names})
        self._granted = tuple(sequence.get("granted", (*names, "SyncError")))
        self._clock = sequence.get("clock", _CLOCK)
        self._events: dict[str, Event] = {}
        self._waiting: list[Delivery] = []
        self._busy: Delivery | None = None
        self._on_their_way: set[str] = set()
        self._said: dict[str, Any] = {}
        #: What stands on the screen of an application that shows what is posted before the hub's answer: "Patient/p1", or "".
        self.screen = ""

    @property
    def is_busy(self) -> bool:
        """Whether a handler is at work."""
        return self._busy is not None

    def step(self, step: dict[str, Any]) -> dict[str, Any]:
        """Take a step. Returns all that can be seen after it."""
        self._said = {"verdicts": [], "handlers": []}
        verb = next(iter(step))
        getattr(self, f"_{verb.replace(' ', '_')}")(step[verb], step)
        self._pump()
        return {**self._said, **self._seen()}

    def _seen(self) -> dict[str, Any]:
        engine, following = self.engine, self.engine.following
        status, failed = engine.sync.status, engine.to_catch_up()
        contexts = engine.contexts
        return {
            "current": engine.current.anchor if engine.current else None,
            "by": None if (shown := following.contexts.current) is None else self._id(shown),
            "open": list(contexts),
            "connection": status.connection,
            "in_step": status.in_sync,
            "why": status.why,
            "behind": list(status.behind),
            "unsent": engine.unsent.newest.id if engine.unsent.newest else None,
            "to_catch_up": self._id(failed) if failed else None,
            "told": engine.doubt.is_answered,
            "asks_again": engine.doubt.must_ask_again,
            "must_ask": engine.doubt.must_ask,
            "shared": {
                anchor: [one.version, None if one.content is None else sorted(one.content)]
                for anchor, one in contexts.items()
            },
        }

    def _id(self, event: Event) -> str:
        """The id of an event of the sequence; those of what the hub told when it was asked are made up."""
        return event.id if event.id in self._events else "told"

    # Steps

    def _clock_is(self, seconds: int, _: dict[str, Any]) -> None:
        self._clock = seconds

    def _connected(self, ordered: bool, step: dict[str, Any]) -> None:
        self.engine.connected(tuple(step.get("granted", self._granted)), ordered=ordered)

    def _settles(self, *_: Any) -> None:
        self.engine.content.replay_ended()

    def _lost(self, why: str, _: dict[str, Any]) -> None:
        self.engine.disconnected(why)

    def _ended(self, why: str, _: dict[str, Any]) -> None:
        self.engine.ended(why)
        self._waiting.clear()

    def _unread(self, *_: Any) -> None:
        self.engine.unreadable()

    def _comes(self, text: str, step: dict[str, Any]) -> None:
        event = self._event(text, step, own=self.engine.is_own(step["id"]))
        self.engine.received(event)
        self._waiting.append(Delivery(event, step.get("handler", "ok")))

    def _ends(self, mode: str, step: dict[str, Any]) -> None:
        if self._busy:
            delivery, self._busy = self._busy, None
            self._end(delivery, mode, step.get("again", "ok"))

    def _gives_up(self, *_: Any) -> None:
        """The handler takes too long, and goes on."""
        if self._busy and self.engine.verdict(self._busy.event) is Verdict.FOLLOW:
            self.engine.refused(self._busy.event, "it was not done within 10 s", is_over=False)

    def _found(self, *_: Any) -> None:
        """Whom the event is about was found out, before its handler is called."""
        if self._busy and not self._on_their_way and self._verdict(self._busy) is not Verdict.FOLLOW:
            delivery, self._busy = self._busy, None
            self.engine.overtaken()
            delivery.done()

    def _sync_error(self, subscriber: str, step: dict[str, Any]) -> None:
        about = self._events.get(step["about"]) or self._event(
            step.get("event", "Patient-open p9"), {"id": step["about"]}
        )
        made = make_sync_error(TOPIC, about, subscriber, "unsaved notes").body
        event = parse_event({**made, "id": step["id"], "timestamp": _timestamp(step.get("at", 50))})
        self.engine.received(event)
        reported = self.engine.sync_error(event)
        self._said |= {"resend": [one.id for one in reported.resend], "unsubscribed": list(reported.unsubscribed)}

    def _opens(self, text: str, step: dict[str, Any]) -> None:
        """The application opens something: posted unless everybody shows that already."""
        event = self._event(text, step, own=True, keep=False)
        unsent = self.engine.unsent.newest
        self._said["shown_again"] = self.engine.races.is_echoed_by_handler(event)
        if self.engine.already_shown(event) is not None:
            self._said["posted"] = None
        else:
            self._post(unsent if unsent and says_the_same(unsent, event) else event)

    def _sends(self, text: str, step: dict[str, Any]) -> None:
        self._post(self._event(text, step, own=True, keep=False))

    def _post(self, event: Event) -> None:
        self._said["posted"] = event.id
        self._events[event.id] = event
        self.engine.sending(event)
        self._on_their_way.add(event.id)
        self._show(event)

    def _accepted(self, id_: str, _: dict[str, Any]) -> None:
        if id_ in self._on_their_way:
            self._on_their_way.discard(id_)
            self.engine.accepted(self._events[id_], self._now())
            self._show(self._events[id_])

    def _refused(self, id_: str, _: dict[str, Any]) -> None:
        self._not_sent(id_, is_final=True)

    def _fails(self, id_: str, _: dict[str, Any]) -> None:
        self._not_sent(id_, is_final=False)

    def _not_sent(self, id_: str, *, is_final: bool) -> None:
        event = self._events.get(id_)
        if event is not None and (id_ in self._on_their_way or self.engine.unsent.is_retried(event)):
            self._on_their_way.discard(id_)
            self.engine.publish_failed(
                event, "the hub answered 400" if is_final else "the hub answered 502", is_final=is_final
            )

    def _late(self, id_: str, step: dict[str, Any]) -> None:
        """It was tried again, and accepted."""
        event = self._events.get(id_)
        if (
            event is None
            or not self.engine.unsent.is_retried(event)
            or self.engine.unsent.must_wait(event)
            or self._on_their_way
        ):
            return
        self.engine.accepted_late(event)
        self._waiting.append(Delivery(event, step.get("handler", "ok")))

    def _again(self, id_: str, _: dict[str, Any]) -> None:
        """It is time to send an own open again."""
        event = self._events.get(id_)
        wanted = event is not None and self.engine.changes.is_newest(event)
        if event is not None and wanted:
            self.engine.resending.sent(event)
        elif event is not None:
            self.engine.resending.ended(event)
        self._said["again"] = wanted

    def _quiet(self, id_: str, _: dict[str, Any]) -> None:
        """A while has passed since it was sent again."""
        event = self._events.get(id_)
        if event is not None and not self.engine.resending.is_due(event):
            self.engine.resending.ended(event)
            self.engine.sync.assume_recovered(id_)

    def _asks(self, answer: Any, step: dict[str, Any]) -> None:
        """The hub is asked what is open: an open, None for nothing, or the status with which it refuses."""
        asked, moment = self.engine.changes.count, self.engine.content.moment
        if isinstance(answer, int):
            self.engine.doubt.unanswered(is_final=answer < _FAILED)
            return
        event, version, content = read_current(_current(answer, step), TOPIC)
        if event is not None:
            self.engine.content.fetched(event.anchor, version, content, asked=moment)
        differences = self.engine.differences(event, version)
        to_settle = len(differences)

        def settle() -> None:
            nonlocal to_settle
            to_settle -= 1
            if to_settle <= 0:
                self._said["settled"] = self.engine.context_checked(event, asked=asked, was_handed=bool(differences))

        if not differences:
            settle()
        for opened in differences:
            self._waiting.append(
                Delivery(
                    self._close(opened) if event is None else opened,
                    step.get("handler", "ok"),
                    applies=lambda: self.engine.changes.count == asked,
                    queried=event is not None,
                    retry=True,
                    done=settle,
                )
            )

    def _close(self, opened: Event) -> Event:
        """The close that nobody told."""
        name = f"{opened.anchor.partition('/')[0]}-close"
        return make_event(TOPIC, name, opened.context, timestamp=_timestamp(self._clock), own=False)

    def _catches_up(self, mode: str, _: dict[str, Any]) -> None:
        event = self.engine.to_catch_up()
        if event is not None:
            applies = lambda: self.engine.to_catch_up() is event  # noqa: E731  # it is short
            self._waiting.append(Delivery(event, mode, applies=applies, retry=True))

    # One event after the other has its turn, while no handler runs and no own change is on its way

    def _pump(self) -> None:
        while self._waiting and self._busy is None and not self._changes_on_their_way():
            delivery = self._waiting.pop(0)
            if not delivery.applies() or self._verdict(delivery) is not Verdict.FOLLOW:
                delivery.done()
                continue
            if delivery.event.name.lower() not in self.engine._handled:
                self._end(delivery, "unhandled")
                continue
            self._said["handlers"].append(f"{delivery.event.name} {delivery.event.anchor}".strip())
            if delivery.mode == "slow":
                self._busy = delivery
            else:
                self._end(delivery, delivery.mode)

    def _changes_on_their_way(self) -> bool:
        return any(self._events[id_].kind.changes_context for id_ in self._on_their_way)

    def _verdict(self, delivery: Delivery) -> Verdict:
        verdict = self.engine.begin_turn(delivery.event, self._now(), retry=delivery.retry)
        self._said["verdicts"].append(f"{self._id(delivery.event)} {verdict.value}")
        return verdict

    def _end(self, delivery: Delivery, mode: str, again: str = "ok") -> None:
        if mode in ("ok", "fail"):
            self._show(delivery.event)
        if mode in ("ok", "unhandled"):
            opened = self.engine.followed(delivery.event, self._now(), queried=delivery.queried)
        else:
            opened = self.engine.refused(delivery.event, "unsaved notes", shows=mode == "fail")
        if opened is not None:
            applies = partial(self.engine.races.may_be_shown, opened)
            self._waiting.append(Delivery(opened, again, applies=applies, retry=True))
        delivery.done()

    def _show(self, event: Event) -> None:
        """An application shows what is opened, and nothing once that is closed."""
        if event.kind.opens:
            self.screen = event.anchor
        elif event.kind is Kind.CLOSE and self.screen == event.anchor:
            self.screen = ""

    def _now(self) -> int:
        return instant(str(_timestamp(self._clock))) or 0

    def _event(self, text: str, step: dict[str, Any], *, own: bool = False, keep: bool = True) -> Event:
        name, *things = text.split()
        inner: dict[str, Any] = {"hub.topic": TOPIC, "hub.event": name}
        for key, member in (("version", "context.versionId"), ("prior", "context.priorVersionId")):
            if key in step:
                inner[member] = step[key]
        inner["context"] = context_of(name, things)
        event = parse_event({"timestamp": _timestamp(step.get("at", 0)), "id": step["id"], "event": inner}, own=own)
        if keep:
            self._events.setdefault(event.id, event)
        return event


def context_of(name: str, things: list[str]) -> list[dict[str, Any]]:
    """The context of `Patient-open p1`, or of `DiagnosticReport-update r1 +o1 -o2`; `p1*` is p1 with something else in it."""
    if not name.lower().endswith("-update"):
        return [{"key": key_of(one["resourceType"]), "resource": one} for one in map(_resource, things)]
    about, *changes = things
    entries = [
        {"request": {"method": "DELETE", "url": _reference(change[1:])}}
        if change.startswith("-")
        else {"request": {"method": "PUT", "url": _reference(change[1:])}, "resource": _resource(change[1:])}
        for change in changes
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    key = key_of(_TYPES[about[0]])
    return [{"key": key, "reference": {"reference": _reference(about)}}, {"key": "updates", "resource": bundle}]


def _resource(thing: str) -> dict[str, Any]:
    other = {"active": True} if thing.endswith("*") else {}
    return {"resourceType": _TYPES[thing[0]], "id": thing.rstrip("*"), **other}


def _reference(thing: str) -> str:
    return f"{_TYPES[thing[0]]}/{thing}"


def _current(answer: str | None, step: dict[str, Any]) -> dict[str, Any]:
    """What the hub answers when it is asked what is open."""
    version = {"context.versionId": step["version"]} if "version" in step else {}
    if answer is None:
        return {"context.type": "", **version, "context": []}
    name, *things = answer.split()
    content = [{"resource": _resource(thing)} for thing in step.get("content", ())]
    context = context_of(name, things)
    if "content" in step:
        context.append({"key": "content", "resource": {"resourceType": "Bundle", "entry": content}})
    return {"context.type": name.partition("-")[0], **version, "context": context}


def _timestamp(at: int | str | None) -> str | None:
    if not isinstance(at, int):
        return at
    return (_START + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%SZ")
