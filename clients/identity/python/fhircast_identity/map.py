"""IdentityMap: finds the local id of the patient or study in an event. The result is certain; otherwise the map
refuses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from fhircast_client import Refuse
from fhircast_identity import publish, refusals
from fhircast_identity.cache import Answer, Answers
from fhircast_identity.demographics import differences, local_person, person
from fhircast_identity.event_resource import named_in
from fhircast_identity.local import Local, Query, Resource, dicts, text
from fhircast_identity.rules import Rule, choose

if TYPE_CHECKING:
    from fhircast_client.events import Event

log = logging.getLogger("fhircast_identity")
#: Values of one kind, at most. No patient has more.
_MOST_VALUES = 20


class Resolver(Protocol):
    """Looks up identifiers. Optional members: `known(type, local_id)` with the same kind of answer, and a `name`."""

    async def find(self, query: Query) -> list[Local]: ...


Lookup = Callable[[Query], Awaitable[Iterable[Local] | None]]


class IdentityMap:
    """Finds the local id of the patient or study in a FHIR resource.

    `rules`: for each type of resource, the rules that select identifiers. The first rule that selects any decides.
    `resolvers`: a Table, FhirSearch, PixManager, QidoRs or any async function from a Query to a list of Local. They are
    asked in order until one knows the identifier. All of them must give ids of this application. Raises TypeError for
    other objects. `cache_seconds`: how long an answer is kept, of at most `cache_size` (an answer that led to a
    refusal: 3 s at most). `ask_seconds`: the time for a resolver. `clock`: monotonic seconds.
    """

    def __init__(
        self,
        rules: Mapping[str, Sequence[Rule]],
        resolvers: Sequence[Resolver | Lookup],
        *,
        cache_seconds: float = 300,
        cache_size: int = 1000,
        ask_seconds: float = 5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules, self._resolvers = {kind: _checked(kind, found) for kind, found in rules.items()}, list(resolvers)
        for resolver in self._resolvers:
            if not callable(getattr(resolver, "find", resolver)):
                raise TypeError(
                    f"a resolver must be an async function or have a method find, not {type(resolver).__name__}"
                )
        self._answers, self._ask_seconds = Answers(cache_seconds, cache_size, clock), ask_seconds

    async def find(self, event: Event) -> Local:
        """The local id for an event. A study is checked against the event's patient.

        Raises NoMatch, SeveralMatches, Mismatch or LookupFailed. All are Refuse, with a sentence for the user.
        """
        kind = event.name.partition("-")[0]
        kind = next((each for each in self._rules if each.lower() == kind.lower()), kind)
        resource, url = named_in(event.context, kind)
        if resource is None:
            raise refusals.not_named(kind)
        patient = named_in(event.context, "Patient")[0] if kind != "Patient" else None
        return await self.find_resource(resource, patient, url=url)

    async def find_resource(
        self, resource: Mapping[str, Any] | None, patient: Mapping[str, Any] | None = None, *, url: str = ""
    ) -> Local:
        """The local id of a resource. `patient`: the study's patient, for the check. `url`: the absolute address, if
        known.

        Raises the same as `find`, and NoMatch for None: the event has no such resource.
        """
        if resource is None:
            raise refusals.not_sent()
        kind = text(resource.get("resourceType"))
        rules, now = self._rules.get(kind), datetime.now(UTC)
        if not rules:
            raise refusals.no_rule(kind)
        chosen = choose(rules, dict(resource), url, now)
        if chosen is None:
            raise refusals.no_identifier(kind, [rule.label for rule in rules])
        rule, queries = chosen
        if len(queries) > _MOST_VALUES:
            raise refusals.too_many(kind, rule.label)
        answers = await asyncio.gather(*(self._answers.get(query, self._look_up) for query in queries))
        try:
            local = _certain(kind, rule.label, answers)
            _compare(kind, resource, patient, [each for answer in answers for each in answer], now)
        except Refuse:
            for query in queries:
                self._answers.expire_soon(query)
            raise
        return local

    async def publishable(self, kind: str, local_id: str) -> list[Resource]:
        """The resources to publish for a local id, the anchor first, with all identifiers that the resolvers know.

        For a study, its patient follows. Raises NoMatch where no resolver knows the id, Mismatch where resolvers
        disagree about the person, and LookupFailed where a resolver cannot be asked.
        """
        now = datetime.now(UTC)
        locals_ = await self._known(kind, local_id, now)
        resource = publish.anchor(locals_, now)
        patient = publish.subject(locals_, now) if kind != "Patient" else None
        if patient is None:
            return [resource]
        patient = publish.with_id(await self._with_all_identifiers(patient, now), f"{kind}/{local_id}")
        reference = f"Patient/{patient['id']}"
        return [resource | {"subject": {"reference": reference}}, patient]

    async def _with_all_identifiers(self, patient: Resource, now: datetime) -> Resource:
        """A study's patient with the resolvers' data about that patient, where the patient is certain."""
        try:
            local = await self.find_resource(patient)
            known = await self._known("Patient", local.id, now)
        except refusals.LookupFailed:
            raise
        except Refuse:
            return patient
        lists = [dicts(patient, "identifier"), *map(publish.of_local, known)]
        return patient | {"identifier": publish.merged(lists, now)}

    async def _known(self, kind: str, local_id: str, now: datetime) -> list[Local]:
        """The resolvers' answers for a local id, all about the same patient or study."""
        able = [(resolver, resolver.known) for resolver in self._resolvers if hasattr(resolver, "known")]
        answers = await asyncio.gather(*(self._ask(resolver, kind, known, kind, local_id) for resolver, known in able))
        locals_ = [local for answer in answers for local in answer]
        if not locals_:
            raise refusals.not_here(kind)
        if any(local.id != local_id for local in locals_):
            raise refusals.several_known(kind)
        people = [local_person(local, now) for local in locals_]
        for index, one in enumerate(people):
            for other in people[index + 1 :]:
                if differing := differences(one, other):
                    raise refusals.sources_differ(kind, differing)
        return locals_

    async def _look_up(self, query: Query) -> Answer:
        """Ask the resolvers in order. The first one that knows the identifier decides."""
        for resolver in self._resolvers:
            find: Any = getattr(resolver, "find", resolver)
            if answer := await self._ask(resolver, query.type, find, query):
                return answer
        return ()

    async def _ask(self, resolver: Any, kind: str, question: Callable[..., Awaitable[Any]], *about: Any) -> Answer:
        """A failure of a resolver is not an answer, and must never count as `not known`."""
        source = getattr(resolver, "name", "the lookup")
        try:
            async with asyncio.timeout(self._ask_seconds):
                answer = tuple(await question(*about) or ())
            if not all(isinstance(local, Local) and local.type == kind for local in answer):
                raise TypeError(f"a resolver answers with Local objects of type {kind}")
        except Refuse:
            raise
        except Exception as error:
            log.warning("%s gave no usable answer: %s", source, type(error).__name__)
            raise refusals.failed(kind, source) from error
        return answer


def _checked(kind: str, rules: object) -> list[Rule]:
    """The rules of a resource type. Raises TypeError for other objects."""
    found = list(rules) if isinstance(rules, Iterable) and not isinstance(rules, str) else []
    if not found or not all(hasattr(rule, "select") for rule in found):
        raise TypeError(f"the rules for {kind} must be a list such as [StudyUid()], not {type(rules).__name__}")
    return found


def _certain(kind: str, label: str, answers: Sequence[Answer]) -> Local:
    """The local id on which all answers agree."""
    ids = {local.id for answer in answers for local in answer}
    if not ids:
        raise refusals.unknown(kind, label)
    if any(len({local.id for local in answer}) > 1 for answer in answers):
        raise refusals.several(kind, label)
    if len(ids) > 1:
        raise refusals.conflicting(kind, label)
    if not all(answers):
        raise refusals.partly_known(kind, label)
    return answers[0][0]


def _compare(
    kind: str, resource: Mapping[str, Any], patient: Mapping[str, Any] | None, found: Iterable[Local], now: datetime
) -> None:
    """Raise Mismatch where the patient in the event differs from the patient that was found."""
    sent = resource if kind == "Patient" else patient
    if sent is None:
        return
    if kind != "Patient" and not _belongs(resource, sent):
        raise refusals.another_subject(kind)
    for local in found:
        if differing := differences(person(sent, now), local_person(local, now)):
            raise refusals.differ(kind, differing)


def _belongs(resource: Mapping[str, Any], patient: Mapping[str, Any]) -> bool:
    """Whether the resource's subject is this patient. True too where one of them does not tell."""
    members = [each for name in ("subject", "patient") for each in dicts(resource, name)]
    references = [text(each.get("reference")).partition("/_history/")[0].split("/")[-2:] for each in members]
    ids = {reference[1] for reference in references if len(reference) == 2 and reference[0] == "Patient"}
    own = text(patient.get("id"))
    return not ids or not own or own in ids
