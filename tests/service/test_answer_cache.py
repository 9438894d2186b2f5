"""The answers to GET are made once for all readers with the same rights, and their bytes are bounded."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.rules.contexts import current_context, view_for
from fhircast_hub.service.answer_cache import OVERHEAD, AnswerCache
from tests.core.world import TOPIC, World, patient, study, token

KEY, OTHER = SessionKey("a-realm", TOPIC), SessionKey("a-realm", "another")
#: A reader of everything, a reader of opens, and a reader of derived opens.
READERS = token(), token(read=["ImagingStudy-open"]), token(read=["Patient-open"])


def world() -> World:
    """A study is open."""
    there = World()
    there.publish("ImagingStudy-open", study("s1"), patient("p1"))
    return there


def answer(answers: AnswerCache, of: World, by: Principal, key: SessionKey = KEY) -> bytes:
    return answers.get(key, view_for(of.session, by, TOPIC, of.rules))


@pytest.mark.req("GET-11")
def test_one_answer_for_all_who_may_read_the_same() -> None:
    """Each kind of reader gets the very same bytes, equal to a newly made answer."""
    answers, there = AnswerCache(), world()
    first = [answer(answers, there, reader) for reader in READERS]
    assert len(set(first)) == 3
    for reader, one in zip(READERS, first, strict=True):
        assert answer(answers, there, reader) is one
        assert one == current_context(there.session, reader, TOPIC, there.rules)


@pytest.mark.req("GET-11", "GET-6")
def test_a_change_is_answered_by_another() -> None:
    """Earlier answers are dropped."""
    answers, there = AnswerCache(), world()
    before = answer(answers, there, READERS[0])
    there.publish("ImagingStudy-open", study("s1"), patient("p1"))
    after = answer(answers, there, READERS[0])
    assert after != before
    assert after == current_context(there.session, READERS[0], TOPIC, there.rules)
    assert answers.bytes == len(after) + OVERHEAD
    answers.forget(KEY)
    assert answers.bytes == 0


@pytest.mark.req("GET-11")
def test_answers_are_bounded_together() -> None:
    """The session whose answer was asked for longest ago loses its answers. Too large an answer is not kept."""
    there = world()
    size = len(answer(AnswerCache(), there, READERS[0])) + OVERHEAD
    answers = AnswerCache(2 * size)
    third = KEY._replace(topic="third")
    first, second = (answer(answers, there, READERS[0], key) for key in (KEY, OTHER))
    assert answer(answers, there, READERS[0]) is first
    answer(answers, there, READERS[0], third)
    assert answer(answers, there, READERS[0]) is first
    assert answer(answers, there, READERS[0], OTHER) is not second
    assert answers.bytes == 2 * size
    small = AnswerCache(10)
    assert answer(small, there, READERS[0]) == first
    assert small.bytes == 0


@pytest.mark.req("GET-11", "GET-1")
def test_that_there_is_none_is_not_kept() -> None:
    """Requests for ever new topics fill nothing."""
    answers = AnswerCache()
    for session in (None, replace(world().session, current="")):  # type: ignore[type-var]
        assert b'"context":[]' in answers.get(KEY, view_for(session, token(), TOPIC, World().rules))
    assert not answers._kept
