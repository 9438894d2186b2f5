"""Resources behind a fullUrl: the one that was shared under it, for the hub as for every application (4.4)."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhircast_hub.core.errors import BadRequest
from tests.core.rules.content_world import R1, R2, Reading, put
from tests.core.world import patient, report, resource

UUID, OTHER = "urn:uuid:1", "urn:uuid:2"
#: Where update requests go, as in the profile's example: it names no resource.
NOWHERE = "http://example.org/hub/topic/fhir"


def under(full_url: str, type_: str = "Observation", id_: str = "x", **members: object) -> dict[str, Any]:
    """An entry that shares a resource under a fullUrl."""
    entry = put(type_, id_, **members)
    return {"fullUrl": full_url, "request": {"method": "PUT", "url": NOWHERE}, "resource": entry["resource"]}


def gone(full_url: str | None = None, url: str | None = NOWHERE) -> dict[str, Any]:
    """An entry that takes back what has this fullUrl, or this URL."""
    request = {"method": "DELETE"} | ({} if url is None else {"url": url})
    return {"request": request} | ({} if full_url is None else {"fullUrl": full_url})


def world_with(*entries: object) -> Reading:
    """A world in which these were shared one after the other."""
    world = Reading()
    for entry in entries:
        world.share(entry)
    world.heard("viewer")
    return world


@pytest.mark.req("CON-16", "CON-6", "CON-24")
@pytest.mark.parametrize("url", [NOWHERE, None, "", "Observation/x", "https://ehr.example/Observation/x/_history/2"])
def test_a_delete_names_what_was_shared_by_its_full_url(url: str | None) -> None:
    """The fullUrl names the resource, unless request.url names another. The entry is passed on as received."""
    world = world_with(under(UUID), put("Observation", "y"))
    posted = world.share(gone(UUID, url))
    assert world.shared() == ["Observation/y"]
    assert world.told()["event"]["context"] == posted["event"]["context"]


@pytest.mark.req("CON-16", "CON-4")
def test_who_reads_its_entry_from_get_can_withdraw_it() -> None:
    """The fullUrl that GET shows is what a DELETE needs."""
    world = world_with(put("Observation", "y"), under("https://ehr.example/o?id=7", x=[{"fullUrl": OTHER}]))
    (_, entry) = world.content()["entry"]
    world.share(gone(entry["fullUrl"]))
    assert world.shared() == ["Observation/y"]


@pytest.mark.req("CON-16", "CON-19", "CON-24")
@pytest.mark.parametrize("url", ["Observation/y", "https://ehr.example/fhir/Observation/y", "Observation/absent"])
def test_a_delete_whose_full_url_and_url_name_two_is_refused(url: str) -> None:
    """The hub would drop the one, and applications that go by fullUrl the other."""
    world = world_with(under(UUID), put("Observation", "y"))
    reason = world.refuses(world.update(put("Observation", "z"), gone(UUID, url)), BadRequest)
    assert "entry[1]: fullUrl and request.url must name the same resource" in reason


@pytest.mark.req("CON-16", "CON-19", "CON-26")
@pytest.mark.parametrize("full_url", [OTHER, "urn:uuid:", UUID + " ", UUID.upper(), "x", "Observation/x/"])
def test_a_full_url_that_nothing_has_names_nothing(full_url: str) -> None:
    """Alone such a fullUrl is refused. Beside a request.url that ends in a Type/id, the fullUrl is ignored."""
    world = world_with(under(UUID))
    reason = world.refuses(world.update(put("Observation", "z"), gone(full_url)), BadRequest)
    assert "entry[1] must have the fullUrl of a shared resource, or its Type/id" in reason
    world.share(gone(full_url, "Observation/x"))
    assert world.shared() == []


@pytest.mark.req("CON-16", "CON-19", "CON-23")
@pytest.mark.parametrize("id_", ["y", "z"])
def test_a_put_under_the_full_url_of_another_is_refused(id_: str) -> None:
    """Of one that is there, be it a replacement or new."""
    world = world_with(under(UUID), under(OTHER, id_="y"))
    reason = world.refuses(world.update(put("Observation", "a"), under(UUID, id_=id_)), BadRequest)
    assert "entry[1].fullUrl must be the resource's own" in reason
    world.share(under(UUID, value=2))
    assert world.shared() == ["Observation/x", "Observation/y"]


@pytest.mark.req("CON-16", "CON-25")
@pytest.mark.parametrize(
    "freeing", [under("urn:uuid:new"), under("Observation/x"), gone(UUID), gone(url="Observation/x")]
)
def test_a_full_url_is_free_once_its_resource_has_another_or_is_gone(freeing: object) -> None:
    """A deleted resource's fullUrl names nothing, and may be given to another."""
    world = world_with(under(UUID), freeing)
    world.refuses(world.update(gone(UUID)), BadRequest)
    world.share(under(UUID, id_="y"))
    world.share(gone(UUID))
    assert "Observation/y" not in world.shared()


@pytest.mark.req("CON-16", "CON-4", "CON-25")
@pytest.mark.parametrize("again", [put("Observation", "x", value=2), under("", value=2)])
def test_who_gives_no_full_url_takes_none_away(again: dict[str, Any]) -> None:
    """A replacement without a fullUrl leaves the old one valid, also for joiners."""
    world = world_with(under(UUID), again)
    assert world.content()["entry"] == [{"fullUrl": UUID, "resource": resource("Observation", "x", value=2)}]
    world.refuses(world.update(under(UUID, id_="y")), BadRequest)
    world.share(gone(UUID))
    assert world.shared() == []
    world.share(put("Observation", "x"))
    assert world.content()["entry"] == [{"resource": resource("Observation", "x")}]


@pytest.mark.req("CON-16", "CON-19")
@pytest.mark.parametrize(
    ("entries", "index"),
    [
        ([gone(UUID), put("Observation", "x")], 1),
        ([gone(UUID), gone(url="Observation/x")], 1),
        ([put("Observation", "x"), gone(UUID)], 1),
        ([under("urn:uuid:new"), gone(UUID)], 1),
        ([under("urn:uuid:new"), gone("urn:uuid:new")], 1),
        ([under("urn:uuid:new", id_="n"), gone("urn:uuid:new")], 1),
        ([under("urn:uuid:new", id_="n"), gone("urn:uuid:new", "Observation/x")], 1),
        ([under("urn:uuid:new", id_="n"), under("urn:uuid:new", id_="m")], 1),
        ([under(UUID, id_="n"), under("urn:uuid:new")], 0),
        ([gone(UUID), under(UUID, id_="n")], 1),
    ],
)
def test_no_resource_and_no_full_url_is_there_twice(entries: list[object], index: int) -> None:
    """Whichever of both names it; nothing is applied."""
    world = world_with(under(UUID), put("Observation", "y"))
    assert f"entry[{index}]" in world.refuses(world.update(*entries), BadRequest)


@pytest.mark.req("CON-16", "CON-19")
def test_what_an_entry_frees_those_behind_it_may_use() -> None:
    """They are applied in their order."""
    world = world_with(under(UUID), under(OTHER, id_="y"))
    world.share(under("urn:uuid:new"), under(UUID, id_="n"), gone(url="Observation/y"), under(OTHER, id_="m"))
    assert world.shared() == ["Observation/x", "Observation/n", "Observation/m"]
    world.share(gone(UUID), gone(OTHER), gone("urn:uuid:new"))
    assert world.shared() == []


@pytest.mark.req("CON-16", "CON-10")
def test_full_urls_are_those_of_one_context() -> None:
    """The same one may stand in another, for another resource; a close frees it."""
    world = world_with(under(UUID))
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.refuses(world.update(gone(UUID), of=R2), BadRequest)
    world.share(under(UUID, id_="y"), of=R2)
    world.share(gone(UUID), of=R1)
    assert world.shared() == ["Observation/y"]
    world.publish("DiagnosticReport-close", report("r2"))
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.refuses(world.update(gone(UUID), of=R2), BadRequest)


@pytest.mark.req("CON-16")
def test_a_full_url_that_ends_in_the_type_and_id_names_by_that() -> None:
    """Under whichever address it was shared."""
    world = world_with(under("https://ehr.example/fhir/Observation/x/_history/1"))
    world.share(gone("https://other.example/Observation/x/_history/9"))
    assert world.shared() == []


@pytest.mark.req("CON-16", "CON-18")
def test_a_copy_of_what_the_context_was_opened_with_is_named_by_its_full_url() -> None:
    """As any other."""
    world = world_with(under(UUID, "DiagnosticReport", "r1", status="final"))
    world.share(gone(UUID))
    assert world.shared() == []


@pytest.mark.req("CON-16", "EVT-15")
def test_full_urls_are_remembered_as_long_as_they_are_shown() -> None:
    """What the session knows of them is what its entries say."""
    world = world_with(under(UUID), under('"quoted"\\', id_="y"), put("Observation", "z"), under("", id_="w"))
    world.share(under(OTHER), gone('"quoted"\\'))
    assert world.session
    (content,) = world.session.contents.values()
    shown = {
        entry["fullUrl"]: f"observation/{entry['resource']['id']}"
        for entry in world.content()["entry"]
        if entry.get("fullUrl")
    }
    assert content.urls == shown == {OTHER: "observation/x"}
    assert content.size == sum(len(shared.entry) for shared in content.resources.values())
    assert json.loads(content.resources["observation/x"].entry) == {
        "fullUrl": OTHER,
        "resource": resource("Observation", "x"),
    }


class Entry(NamedTuple):
    """An entry of an update: of the Observation `id` ("" of none that it names) under a fullUrl ("" without one)."""

    method: str
    id: str
    url: str

    def written(self) -> dict[str, Any]:
        if self.method == "DELETE":
            return gone(self.url or None, f"Observation/{self.id}" if self.id else NOWHERE)
        return under(self.url, id_=self.id) if self.url else put("Observation", self.id)


def applied(shared: dict[str, str], entries: list[Entry]) -> dict[str, str] | int:
    """What is shared after an update, with the fullUrl of each; or the first entry that cannot be applied."""
    for index, entry in enumerate(entries):
        before = entries[:index]
        if entry.id in {other.id for other in before} - {""} or entry.url in {other.url for other in before} - {""}:
            return index
        if not (entry.id or entry.url):
            return index
    shared, done = dict(shared), set[str]()
    for index, (method, id_, url) in enumerate(entries):
        owners = {other for other, its in shared.items() if url and its == url}
        named = owners | ({id_} - {""})
        if len(named) != 1 or named & done:
            return index
        done |= named
        (target,) = named
        if method == "PUT":
            shared[target] = url or shared.get(target, "")
        elif shared.pop(target, None) is None:
            return index
    return shared


_urls = st.sampled_from(["", "", "urn:1", "urn:2", "urn:3"])
_entry = st.one_of(
    st.builds(Entry, st.just("PUT"), st.sampled_from("abc"), _urls),
    st.builds(Entry, st.just("PUT"), st.sampled_from("abc"), _urls),
    st.builds(Entry, st.just("DELETE"), st.sampled_from(["", "", "a", "b", "c"]), _urls),
)


@pytest.mark.req("CON-16", "CON-19")
@settings(max_examples=200)
@given(st.lists(st.lists(_entry, min_size=1, max_size=3), min_size=3, max_size=12))
def test_after_any_updates_each_full_url_names_one_resource(updates: list[list[Entry]]) -> None:
    """All or nothing, and the first entry that cannot be applied is named; a list of ids and fullUrls does the same."""
    world = Reading()
    shared: dict[str, str] = {}
    for entries in updates:
        posted, after = world.update(*(entry.written() for entry in entries)), applied(shared, entries)
        if isinstance(after, int):
            assert f"entry[{after}]" in world.refuses(posted, BadRequest)
        else:
            world.post(posted)
            shared = after
        shown = {entry["resource"]["id"]: entry.get("fullUrl", "") for entry in world.content().get("entry", [])}
        assert shown == shared
