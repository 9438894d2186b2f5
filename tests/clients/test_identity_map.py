"""Local ids: resolvers in their order, answers that are kept, and what goes wrong with functions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from fhircast_client.errors import Refuse
from fhircast_identity import IdentityMap, Local, LookupFailed, NoMatch, Query, SeveralMatches, System, Table
from tests.clients.identity_cases import MRN, patient
from tests.running import Clock

RULES = {"Patient": [System(MRN, "number")]}


class Register:
    """A resolver that counts what it is asked. `answer` is what it says, or the error it raises; it waits for `may`."""

    def __init__(self, *answer: Any) -> None:
        self.answer: Any = list(answer)
        self.asked: list[str] = []
        self.may = asyncio.Event()
        self.may.set()
        self.heard, self.answered = asyncio.Event(), asyncio.Event()

    async def __call__(self, query: Query) -> Any:
        self.asked.append(query.value)
        self.heard.set()
        await self.may.wait()
        self.answered.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def map_of(*resolvers: Any, **options: Any) -> IdentityMap:
    return IdentityMap(RULES, resolvers, **options)


@pytest.mark.req("IDM-2")
async def test_the_first_that_knows_answers() -> None:
    first, second, third = Register(), Register(Local("b")), Register(Local("c"))
    assert (await map_of(first, second, third).find_resource(patient())).id == "b"
    assert [len(each.asked) for each in (first, second, third)] == [1, 1, 0]


@pytest.mark.req("IDM-2", "IDM-4")
async def test_several_of_one_are_not_settled_by_the_next() -> None:
    later = Register(Local("a"))
    with pytest.raises(SeveralMatches):
        await map_of(Register(Local("a"), Local("b")), later).find_resource(patient())
    assert not later.asked


@pytest.mark.req("IDM-2")
async def test_the_same_twice_is_one() -> None:
    assert (await map_of(Register(Local("a"), Local("a"))).find_resource(patient())).id == "a"


@pytest.mark.req("IDM-3", "IDM-4")
async def test_every_answer_about_the_one_is_checked() -> None:
    told = Register(Local("a", gender="female"), Local("a", gender="male"))
    with pytest.raises(Refuse, match=r"^Gender differs"):
        await map_of(told).find_resource(patient(gender="female"))


def not_async(query: Query) -> list[Local]:
    return [Local("a")]


def fails_at_once(query: Query) -> Any:
    raise OSError(query.value)


async def told_a_string(query: Query) -> Iterable[Any]:
    return "a"


async def told_another_type(query: Query) -> list[Local]:
    return [Local("a", "ImagingStudy")]


async def told_a_strange_date(query: Query) -> list[Local]:
    return [Local("a", birth_date="13.05.1970")]


@pytest.mark.req("IDM-2", "IDM-4")
@pytest.mark.parametrize("lookup", [not_async, fails_at_once, told_a_string, told_another_type, told_a_strange_date])
async def test_whatever_goes_wrong_is_no_answer(lookup: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It neither counts as "not known", nor is the next one asked, which may know another patient."""
    later = Register(Local("b"))
    with pytest.raises(LookupFailed) as refused:
        await map_of(lookup, later).find_resource(patient())
    assert refused.value.reason == (
        "The patient could not be looked up: the lookup gave no usable answer. Try again later."
    )
    assert not later.asked
    assert "4438001" not in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.req("IDM-2")
async def test_none_is_nobody_and_a_refusal_of_its_own_stands() -> None:
    async def nobody(query: Query) -> None:
        return None

    async def refuses(query: Query) -> list[Local]:
        raise Refuse("The archive is closed for today.")

    with pytest.raises(NoMatch, match=r"^No patient here has the number that was sent\.$"):
        await map_of(nobody).find_resource(patient())
    with pytest.raises(Refuse, match="closed for today"):
        await map_of(nobody, refuses).find_resource(patient())


@pytest.mark.req("IDM-2", "IDM-4")
async def test_a_resolver_that_does_not_answer() -> None:
    slow = Register(Local("a"))
    slow.may.clear()
    with pytest.raises(LookupFailed):
        await map_of(slow, ask_seconds=0.01).find_resource(patient())


@pytest.mark.req("IDM-2")
async def test_an_answer_is_kept_for_its_time() -> None:
    clock, register = Clock(), Register(Local("a"))
    ids = map_of(register, cache_seconds=60, clock=clock)
    for elapsed, asked in ((0, 1), (59, 1), (2, 2)):
        clock.now += elapsed
        assert (await ids.find_resource(patient())).id == "a"
        assert len(register.asked) == asked


@pytest.mark.req("IDM-2")
async def test_what_leads_to_a_refusal_is_kept_for_moments() -> None:
    clock, register = Clock(), Register()
    ids = map_of(register, clock=clock)
    for elapsed, asked in ((0, 1), (2, 1), (2, 2)):
        clock.now += elapsed
        with pytest.raises(NoMatch):
            await ids.find_resource(patient())
        assert len(register.asked) == asked


@pytest.mark.req("IDM-2", "IDM-3")
async def test_a_mismatch_is_asked_about_again_when_the_record_may_be_repaired() -> None:
    clock, register = Clock(), Register(Local("a", gender="male"))
    ids = map_of(register, clock=clock)
    assert (await ids.find_resource(patient())).id == "a"
    for _ in range(2):
        with pytest.raises(Refuse, match=r"^Gender differs"):
            await ids.find_resource(patient(gender="female"))
    assert len(register.asked) == 1
    register.answer = [Local("a", gender="female")]
    clock.now += 4
    assert (await ids.find_resource(patient(gender="female"))).id == "a"


@pytest.mark.req("IDM-2")
async def test_a_failure_is_not_kept() -> None:
    register = Register()
    ids = map_of(register)
    register.answer = OSError()
    with pytest.raises(LookupFailed) as refused:
        await ids.find_resource(patient())
    assert isinstance(refused.value.__cause__, OSError)
    register.answer = [Local("a")]
    assert (await ids.find_resource(patient())).id == "a"


@pytest.mark.req("IDM-2")
async def test_the_one_used_longest_ago_goes_first() -> None:
    register = Register(Local("a"))
    ids = map_of(register, cache_size=2)
    for value in ("1", "2", "1", "3", "1", "2"):
        await ids.find_resource(patient(value))
    assert register.asked == ["1", "2", "3", "2"]


@pytest.mark.req("IDM-2")
async def test_nothing_is_asked_twice_at_once() -> None:
    """And who gives up waiting takes nobody else's answer away."""
    register = Register(Local("a"))
    register.may.clear()
    ids = map_of(register)
    first, second, third = (asyncio.ensure_future(ids.find_resource(patient())) for _ in range(3))
    await asyncio.wait_for(register.heard.wait(), 15)
    first.cancel()
    await asyncio.wait([first])
    register.may.set()
    assert [(await second).id, (await third).id] == ["a", "a"]
    assert first.cancelled()
    assert register.asked == ["4438001"]


@pytest.mark.req("IDM-2")
async def test_an_answer_that_nobody_waited_for_is_kept_for_moments_too() -> None:
    clock, register = Clock(), Register()
    register.may.clear()
    ids = map_of(register, clock=clock)
    waiting = asyncio.ensure_future(ids.find_resource(patient()))
    await asyncio.wait_for(register.heard.wait(), 15)
    waiting.cancel()
    await asyncio.wait([waiting])
    register.may.set()
    await register.answered.wait()
    register.answer = [Local("a")]
    clock.now += 4
    assert (await ids.find_resource(patient())).id == "a"


@pytest.mark.req("IDM-5", "IDM-4")
async def test_a_source_that_tells_of_another_is_not_published() -> None:
    class Index(Register):
        async def known(self, kind: str, local_id: str) -> list[Local]:
            return [Local("l2")]

    with pytest.raises(SeveralMatches, match=r"^Several patients here have this id\."):
        await map_of(Table({"1": "l1"}), Index()).publishable("Patient", "l1")


@pytest.mark.req("IDM-5", "IDM-2")
async def test_what_is_known_of_one_id_by_several() -> None:
    """Identifiers of all, in force, once each; two sources that disagree are not mixed."""

    class Index:
        async def find(self, query: Query) -> list[Local]:
            return []

        async def known(self, kind: str, local_id: str) -> list[Local]:
            old = {"system": "urn:old", "value": "1", "use": "old"}
            same = {"system": MRN, "value": "4438001"}
            return [Local(local_id, kind, "OESTBY", identifiers=(old, same, {"system": "urn:more", "value": "2"}))]

    table = Table({(MRN, "4438001"): {"local_id": "l1", "family": "Østby"}, "77": {"local_id": "l2", "family": "Haas"}})
    ids = map_of(table, Register(Local("other")), Index())
    (resource,) = await ids.publishable("Patient", "l1")
    assert [each["value"] for each in resource["identifier"]] == ["4438001", "2"]
    assert resource["name"] == [{"family": "Østby"}]
    with pytest.raises(Refuse, match=r"^The sources here do not agree on the family name of this patient\.$"):
        await ids.publishable("Patient", "l2")
