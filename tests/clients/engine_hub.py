"""A hub as simple as can be, and the network between it and one engine: what is under way, and what gets lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.clients.engine_driver import Driver

_OPENS = ("Patient-open p1", "Patient-open p2", "ImagingStudy-open s1 p1", "ImagingStudy-open s2 p2")
_CLOSES = ("Patient-close p1", "Patient-close p2", "ImagingStudy-close s1", "ImagingStudy-close s2")
_EVERYTHING = (*_OPENS, *_CLOSES, "Home-open")
Message = dict[str, Any]


class SimpleHub:
    """A session of one engine and of others. `ordered`: the hub declares its order, and the clocks of the others are wrong; else
    clocks are right, and the hub goes by timestamps as its subscribers do. `replays`: who joins is told what is open. Where it tells
    no `closes`, only the engine's application closes anything."""

    def __init__(self, *, ordered: bool, replays: bool, closes: bool) -> None:
        opens = ("Patient-open", "ImagingStudy-open", "Home-open")
        handled = (*opens, "Patient-close", "ImagingStudy-close")
        self._driver = Driver({"handled": handled, "granted": handled if closes else opens})
        self._ordered, self._replays, self._closes = ordered, replays, closes
        self._open: dict[str, Message] = {}  # by anchor, oldest first
        self._current = ""
        self._home: Message | None = None
        self._made: Any = None  # the timestamp of what made the current context
        self._known: set[str] = set()
        self._newest = ""
        self._is_new = True  # nothing was opened yet
        self._frames: list[Message] = []  # on their way to the engine
        self._posted: Message | None = None  # the own event that is on its way to the hub
        self._answer = ""  # the own event whose acceptance is on its way back
        self._sent = ""  # what the last own event says
        self._times: dict[str, int] = {}  # of own events
        self._count = 0
        self.seen: dict[str, Any] = {}
        self._connect()

    def possible(self) -> list[Callable[[], None]]:
        """What may happen next."""
        if self._posted and (not self._ordered or self._is_alone):
            return [self._reach]  # else what was stamped first might be accepted last
        if self._answer and self._is_alone:
            return [self._accepted]
        acts: list[Callable[[], None]] = [self._cut]
        if self._ordered or not (self._answer or self._driver.engine.unsent.newest):
            acts.append(self._end)  # else what was stamped in the former session might be accepted in this
        acts += [partial(self._others, text) for text in _EVERYTHING if self._closes or text not in _CLOSES]
        if self._frames:
            acts += [self._tell] * 6 + [partial(self._tell, "slow"), partial(self._tell, "refuse")]
        else:
            acts += [partial(self._step, {"settles": True}), partial(self._step, {"asks": 503})]
        acts += [partial(self._step, {"ends": "ok"}), partial(self._step, {"ends": "refuse"})]
        acts += [partial(self._step, {"ends": "fail"}), partial(self._step, {"gives up": True})]
        if self._posted is None and not self._answer:
            alone = () if self._closes or not self._frames else _CLOSES
            acts += [partial(self._post, text) for text in _EVERYTHING if text not in alone]
            if self._driver.engine.unsent.newest and (self._ordered or not self._frames):
                acts += [self._retry] * 4
        if self._posted:
            acts += [self._reach] * 4 + [self._fail]
        if self._answer:
            acts += [self._accepted] * 4 + [self._fail]
        return acts

    @property
    def _is_alone(self) -> bool:
        """Whether an own close is on its way that is not told back: nobody could say what comes before it, and what after."""
        return not self._closes and self._sent in _CLOSES

    def check(self) -> None:
        """Nothing is on its way: who says that all is well shows what the hub shows."""
        if self._frames or self._posted or self._answer or self._driver.is_busy or not self.seen["in_step"]:
            return
        shown = self.seen["current"] or ""
        assert shown == self._current, (
            f"in step with {shown or 'nothing'}, and the hub shows {self._current or 'nothing'}"
        )
        assert not (self._is_new and self.seen["open"]), f"nothing is open, and here {self.seen['open']}"
        screen = self._driver.screen
        # s1 is a study of p1: to show the one or the other is no other patient. Who closes the study may go back to the patient.
        may_show = [shown] if shown or self._home else self._open
        assert screen[-1:] in ("", *(one[-1:] for one in may_show)), (
            f"in step with {shown or 'nothing'}, and {screen} stands on the screen"
        )

    def finish(self) -> None:
        """All arrives that is on its way, and the engine asks where it must."""
        for _ in range(200):
            self._step({"ends": "ok"})
            if self._frames:
                self._tell()
            elif self._posted:
                self._reach()
            elif self._answer:
                self._accepted()
            elif self._driver.engine.unsent.newest:
                self._retry()
            elif self.seen["to_catch_up"]:
                self._step({"catches up": "ok"})
            elif not self._driver.engine.doubt.is_answered or not self.seen["in_step"]:
                self._ask()
            else:
                return

    # What happens

    def _others(self, text: str) -> None:
        self._accept(self._message(text))

    def _message(self, text: str) -> Message:
        self._count += 1
        at = -self._count if self._ordered and self._count % 3 else self._count
        return {"comes": text, "id": f"e{self._count}", "at": at}

    def _accept(self, message: Message) -> None:
        """The hub takes an event, and tells it to the engine. One that it knows already is only told again if it is the newest."""
        text, id_ = message["comes"], message["id"]
        if id_ in self._known:
            if id_ == self._newest and (self._closes or text not in _CLOSES):
                self._frames.append(message)
            return
        self._known.add(id_)
        self._newest = id_
        name, *things = text.split()
        anchor = f"{name.partition('-')[0]}/{things[0]}" if things else ""
        self._frames += [message] if self._closes or text not in _CLOSES else []
        is_old = not self._ordered and self._made is not None and message["at"] < self._made
        if name == "Home-open" and not is_old:
            self._current, self._home, self._made, self._is_new = "", message, None, False
        elif name.endswith("-close") and not (is_old and anchor == self._current):
            self._open.pop(anchor, None)
            if self._current == anchor:
                self._current, self._made = "", None
        elif name.endswith("-open") and name != "Home-open":
            self._open.pop(anchor, None)
            self._open[anchor], self._is_new = message, False
            if is_old:
                self._open[self._current] = self._open.pop(self._current)
            else:
                self._current, self._home, self._made = anchor, None, message["at"]

    def _tell(self, handler: str = "ok") -> None:
        self._step({**self._frames.pop(0), "handler": handler})

    def _post(self, text: str) -> None:
        message, self._sent = self._message(text), text
        self._step({**{"sends": text}, "id": message["id"], "at": message["at"]})
        self._times[message["id"]] = message["at"]
        self._posted = message

    def _retry(self) -> None:
        """What the hub may not have is posted again; it is accepted at once, and told after what is on its way."""
        unsent = self._driver.engine.unsent.newest
        assert unsent
        things = [f"{item['resource']['id']}" for item in unsent.context]
        self._accept({"comes": " ".join([unsent.name, *things]), "id": unsent.id, "at": self._times[unsent.id]})
        self._step({"late": unsent.id})

    def _reach(self) -> None:
        assert self._posted
        self._accept(self._posted)
        self._answer, self._posted = self._posted["id"], None

    def _accepted(self) -> None:
        answer, self._answer = self._answer, ""
        self._step({"accepted": answer})

    def _fail(self) -> None:
        """The event, or its answer, is lost."""
        id_ = self._answer or (self._posted or {})["id"]
        self._answer, self._posted = "", None
        self._step({"fails": id_})

    def _cut(self) -> None:
        self._frames.clear()
        self._step({"lost": "The connection was lost"})
        self._connect()

    def _end(self) -> None:
        """The hub ends the session, and the next one has the same topic."""
        self._open, self._current, self._home, self._made, self._is_new = {}, "", None, None, True
        self._known, self._newest = set(), ""
        self._cut()

    def _connect(self) -> None:
        self._step({"connected": self._ordered})
        newest = {anchor.partition("/")[0]: message for anchor, message in self._open.items()}
        if not self._replays:
            return
        # While nothing is current, what was left open is told to nobody.
        self._frames += [message for message in self._open.values() if self._current and message in newest.values()]
        self._frames += [self._home] if self._home else []

    def _ask(self) -> None:
        opened = self._open.get(self._current)
        self._step({"asks": opened["comes"]} if opened else {"asks": None, "version": "0" if self._is_new else "v1"})

    def _step(self, step: Message) -> None:
        self.seen = self._driver.step(step)
