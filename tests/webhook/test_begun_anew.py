"""Posts that are begun anew come again from the oldest on: the queue keeps each once, in order."""

from __future__ import annotations

import random
from collections import deque

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.effects import Post
from fhircast_hub.webhook.deliver import _is_there

KEY, OTHER = SessionKey("realm", "topic"), SessionKey("realm", "other")


def post(number: int, key: SessionKey = KEY) -> Post:
    return Post(key, number, "subscription", "https://app.example/", b"", b"{}")


def put(queue: deque[Post], *posts: Post) -> list[int]:
    """Put posts into the queue as the hub does. Returns the numbers of the session's posts."""
    for each in posts:
        if not _is_there(each, queue):
            queue.append(each)
    return [each.number for each in queue if each.key == KEY]


@pytest.mark.req("NOD-10", "WHK-8")
def test_posts_come_again_once_and_in_order() -> None:
    """The first is under way, and stays. Posts of another session keep their places."""
    queue = deque([post(1), post(7, OTHER), post(2)])
    first = queue[0]
    assert put(queue, post(1), post(2), post(3)) == [1, 2, 3]
    assert queue[0] is first
    assert [each.number for each in queue if each.key == OTHER] == [7]


@pytest.mark.req("NOD-10", "WHK-8")
def test_a_later_post_that_came_before_the_earlier_ones_waits_for_them() -> None:
    """Another node's post overtook those that are begun anew."""
    queue = deque([post(5)])
    assert put(queue, post(2), post(3), post(4), post(5), post(6)) == [2, 3, 4, 5, 6]


@pytest.mark.req("NOD-10")
def test_whatever_comes_again_the_queue_is_in_order() -> None:
    """Any number of rounds, each of all that is unanswered."""
    dice = random.Random(1)
    for _ in range(200):
        queue: deque[Post] = deque()
        newest, oldest = 0, 1
        for _ in range(20):
            if dice.random() < 0.6:
                newest += 1
                put(queue, post(newest))
            elif queue and dice.random() < 0.5:
                oldest = queue.popleft().number + 1
            else:
                put(queue, *map(post, range(oldest, newest + 1)))
            assert [each.number for each in queue] == list(range(oldest, newest + 1))
