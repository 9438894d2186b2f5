"""Last opens: which context of each type a subscriber was sent last.

"When distributing a received event, a Hub SHALL ensure open events for the referenced resource types of the received event are
also sent to subscribers", but "Hubs SHOULD NOT generate and send duplicative events" (FHIRcast 3.0.0, 2.5). The hub therefore
remembers a LastOpen for each type of which opens are derived: Patient, Encounter and ImagingStudy.
A joiner is a new subscriber (joining.py). A replay is its current context notification (2.4).

An example. A viewer subscribes to Patient-open alone. A reader subscribes to Patient-open and ImagingStudy-open.

1.  ImagingStudy-open s1 is published. The event names patient p1.
    The viewer is sent a derived Patient-open p1. Its last open is p1, by an open of the type itself (`named_by` is "").
    The reader is sent the event. Its last opens are s1, and p1 with `named_by="imagingstudy"`.
2.  ImagingStudy-open s2 is published and names p1 too. The viewer is sent nothing: p1 is its last open.
3.  ImagingStudy-open s3 is published and names no patient. The reader's patient p1 is forgotten, because p1 came from a study.
4.  Home-open is published. Neither subscribed to Home-open, so both may still show something, or nothing.
    Their last opens are now in doubt.
5.  ImagingStudy-open s4 is published and names p1. The viewer is sent a derived Patient-open p1, because its p1 was in doubt.
6.  ImagingStudy-close s4 is published. The derived open ends: closing.py says how.

A last open is in doubt when the subscriber may show something else. The causes:

- The subscriber refused the open.
- A Home-open was published, and was not sent to the subscriber.
- The subscriber may have missed the close of the context.
- The subscriber was sent an event that names the context, which was closed before.
- The subscription was renewed, or the hub restarted, and the open was not sent again.

A context in doubt is opened again by the next event that names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from fhircast_hub.core.state.session import LastOpen, LastOpened
from fhircast_hub.core.wire.event_names import DERIVED

#: Last open of a type of which the subscriber was sent none.
_NO_OPEN = LastOpen()
#: Last opens of a subscriber that was sent no open.
NOTHING_OPENED: LastOpened = (_NO_OPEN, _NO_OPEN, _NO_OPEN)
#: Index of a type in LastOpened.
TYPE_INDEX = {type_: index for index, type_ in enumerate(DERIVED)}


def is_shown(last_opened: LastOpened, type_: str, ref: str) -> bool:
    """Whether the subscriber shows this context for sure: it is the last open of the type, and not in doubt."""
    last = last_opened[TYPE_INDEX[type_]]
    return last.ref == ref and not last.in_doubt


def after_open(last_opened: LastOpened, opened_type: str, refs: Mapping[str, str]) -> LastOpened:
    """The last opens after an open of `opened_type` was sent. `refs` are the contexts that the open names, by type.

    Contexts that only the previous open of this type named are forgotten. A context with an open of its own keeps that open, and
    its doubt.
    """
    after = []
    for type_, last in zip(DERIVED, last_opened, strict=True):
        ref = refs.get(type_, "")
        if type_ == opened_type:
            after.append(LastOpen(ref))
        elif ref and (ref != last.ref or (last.in_doubt and last.named_by)):
            after.append(LastOpen(ref, opened_type))
        else:
            after.append(_NO_OPEN if last.named_by == opened_type and not ref else last)
    return _last_opened(after)


def after_home_open(last_opened: LastOpened, keys: frozenset[str]) -> LastOpened:
    """The last opens after a Home-open, of a subscriber with these events. Every open is sent again then (DER-14)."""
    return NOTHING_OPENED if "home-open" in keys else all_in_doubt(last_opened)


def without_context(last_opened: LastOpened, ref: str) -> LastOpened:
    """The last opens after the context `ref` was closed."""
    return _last_opened(LastOpen() if last.ref == ref else last for last in last_opened)


def without_named_by(last_opened: LastOpened, type_: str) -> LastOpened:
    """The last opens without the contexts that an event of `type_` named."""
    return _last_opened(LastOpen() if last.named_by == type_ else last for last in last_opened)


def with_last_open(last_opened: LastOpened, type_: str, last: LastOpen) -> LastOpened:
    """The last opens with `last` for `type_`."""
    return _last_opened(last if index == TYPE_INDEX[type_] else other for index, other in enumerate(last_opened))


def put_in_doubt(last_opened: LastOpened, refs: Collection[str]) -> LastOpened:
    """The last opens with these contexts in doubt."""
    return _last_opened(last._replace(in_doubt=True) if last.ref in refs else last for last in last_opened)


def all_in_doubt(last_opened: LastOpened) -> LastOpened:
    """The last opens with every context in doubt."""
    return _last_opened(last._replace(in_doubt=bool(last.ref)) for last in last_opened)


def on_return(
    joiner_last_opened: LastOpened, shown: Collection[str], missed_closes: Collection[str], still_named: Collection[str]
) -> LastOpened:
    """The last opens of a subscription that is back and was sent a replay.

    The arguments after the first are refs of contexts. `shown`: the subscription was sent opens of these contexts before, or may
    have been. `missed_closes`: the subscription may have missed closes of these contexts. `still_named`: open contexts name these
    contexts, so the subscriber may go on showing them.
    """
    after = []
    for type_, last in zip(DERIVED, joiner_last_opened, strict=True):
        shown_ref = next((ref for ref in shown if ref.startswith(f"{type_}/")), "")
        if last.named_by and last.ref in missed_closes:
            after.append(LastOpen(last.ref, in_doubt=True))
        elif last.ref:
            after.append(last._replace(named_by="") if last.ref == shown_ref else last)
        else:
            after.append(LastOpen(shown_ref, in_doubt=True) if shown_ref in still_named else last)
    return _last_opened(after)


def on_renewal(
    before: LastOpened, joiner_last_opened: LastOpened, added: Collection[str], *, home_is_replayed: bool
) -> LastOpened:
    """The last opens of a subscription after its renewal. `before` are its last opens before the renewal.

    Only opens whose event names are `added` are replayed. Other types are in doubt where a joiner is sent another context.
    """
    after = []
    for type_, previous, joiner_last_open in zip(DERIVED, before, joiner_last_opened, strict=True):
        if previous.ref == joiner_last_open.ref:
            after.append(previous)
        elif joiner_last_open.ref or previous.named_by or home_is_replayed:
            is_replayed = f"{type_}-open" in added
            in_doubt = joiner_last_open._replace(in_doubt=bool(joiner_last_open.ref))
            after.append(joiner_last_open if is_replayed else in_doubt)
        else:
            after.append(previous._replace(in_doubt=True))  # the subscription was sent an open, and no close
    return _last_opened(after)


def _last_opened(last_opens: Iterable[LastOpen]) -> LastOpened:
    patient, encounter, study = last_opens
    return patient, encounter, study
