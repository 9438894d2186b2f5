"""The updates Bundle: which entries are read, how a DELETE names what it deletes, and that each refusal names its entry."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.update_bundle import Change, entry_of, full_url_of, read_changes
from tests.core.world import body, resource

GOOD = {"request": {"method": "PUT"}, "resource": resource("Patient", "good")}
OBSERVATION = "observation/1"


def bundle(*entries: object, **members: object) -> bytes:
    """A context item that holds a Bundle of these entries."""
    return body({"key": "updates", "resource": {"resourceType": "Bundle", "entry": entries} | members})


def read(*entries: object) -> tuple[Change, ...]:
    return read_changes(bundle(*entries), "updates")


def refused(*entries: object, index: int) -> str:
    """The reason for which these entries are refused, which names the one with this index."""
    with pytest.raises(BadRequest) as error:
        read(*entries)
    assert re.match(rf"updates\.resource\.entry\[{index}\]", str(error.value))
    assert "\n" not in str(error.value)
    return str(error.value)


def put(*, id_: object = "1", type_: object = "Observation", **more: object) -> dict[str, Any]:
    return {"request": {"method": "PUT"}, "resource": {"resourceType": type_, "id": id_}, **more}


def delete(full_url: str | None = None, url: str | None = None) -> dict[str, Any]:
    """A DELETE; None leaves a member out."""
    request = {"method": "DELETE"} | ({} if url is None else {"url": url})
    return {"request": request} | ({} if full_url is None else {"fullUrl": full_url})


# What is read


@pytest.mark.req("CON-6")
def test_a_put_becomes_the_entry_of_a_content_bundle() -> None:
    """The resource's bytes as they came, and the fullUrl; no request, and nothing else."""
    raw = b'{ "id":"1","resourceType" : "Observation","x":1.10 }'
    entry = b'{"fullUrl":"urn:uuid:7","request":{"method":"PUT","url":"Observation/1"},"link":[],"resource":%b}' % raw
    item = b'{"key":"updates","resource":{"resourceType":"Bundle","entry":[%b]}}' % entry
    assert read_changes(item, "updates") == (Change(OBSERVATION, raw, "urn:uuid:7"),)
    assert entry_of(raw, "urn:uuid:7") == b'{"fullUrl":"urn:uuid:7","resource":%b}' % raw


@pytest.mark.req("CON-6")
@pytest.mark.parametrize("members", [{}, {"fullUrl": None}, {"fullUrl": ""}])
def test_without_full_url_there_is_none(members: dict[str, object]) -> None:
    """The hub makes none up."""
    (change,) = read(GOOD | members)
    assert change == Change("patient/good", body(GOOD["resource"]))
    assert entry_of(body(GOOD["resource"]), "") == b'{"resource":%b}' % body(GOOD["resource"])


@pytest.mark.req("CON-16")
@pytest.mark.parametrize(
    "url",
    [
        *("urn:uuid:7", "https://ehr.example/fhir/Observation/1", 'quoted " and \\', "é☃", '","resource":{}'),
        *("x" * 5000, "\n", ""),
    ],
)
def test_an_entry_says_its_full_url(url: str) -> None:
    """Whatever it is; without looking at the resource, which may have a member of that name."""
    (change,) = read(put(fullUrl=url) | {"resource": resource("Observation", "1", fullUrl="not this")})
    assert change.resource is not None
    assert full_url_of(entry_of(change.resource, change.full_url)) == change.full_url == url


@pytest.mark.req("CON-16", "CON-26")
@pytest.mark.parametrize("url", [None, "Observation/1", "", "Observation", "https://ehr.example/Observation/1"])
def test_a_put_needs_no_url(url: str | None) -> None:
    """Its resource says what it is, whatever the URL says."""
    (change,) = read(put() | {"request": {"method": "PUT", "url": url}})
    assert change.ref == OBSERVATION


@pytest.mark.req("CON-16")
def test_the_order_of_the_entries_stays() -> None:
    """PUTs and DELETEs as they came."""
    changes = read(put(id_="2"), delete("Patient/9"), put(id_="10"), put(id_="1"), delete("Patient/1"))
    assert [change.ref for change in changes] == [
        *("observation/2", "patient/9", "observation/10", "observation/1", "patient/1")
    ]
    assert [change.resource is None for change in changes] == [False, True, False, False, True]


@pytest.mark.req("CON-2")
@pytest.mark.parametrize("members", [{"entry": []}, {"entry": None}])
def test_a_bundle_may_be_empty(members: dict[str, object]) -> None:
    """It changes nothing."""
    assert read_changes(bundle(**members), "updates") == ()
    assert read_changes(b'{"key":"updates","resource":{"resourceType":"Bundle"}}', "updates") == ()


@pytest.mark.req("CON-2")
@pytest.mark.parametrize("type_", ["transaction", "Transaction", "batch", None])
def test_the_type_of_the_bundle_is_not_looked_at(type_: str | None) -> None:
    """The specification's older examples spell it with a capital."""
    assert len(read_changes(bundle(GOOD, type=type_), "updates")) == 1


@pytest.mark.req("CON-6")
@pytest.mark.parametrize("id_", ["x", "x" * 256, "é☃", "1.2-3"])
def test_ids_of_up_to_256_characters_are_read(id_: str) -> None:
    """FHIR's own have up to 64."""
    (change,) = read(put(id_=id_))
    assert change.ref == f"observation/{id_}"


# What is refused


@pytest.mark.req("CON-19")
@pytest.mark.parametrize(
    "method", ["POST", "PATCH", "GET", "HEAD", "put", "Delete", "", "PUT ", " DELETE", 1, None, ["PUT"], ...]
)
def test_any_other_method_is_refused(method: object) -> None:
    """Only PUT and DELETE, as the profile of the update Bundle has it; or none at all."""
    request = {} if method is ... else {"method": method}
    refused(GOOD, put() | {"request": request, "fullUrl": "Observation/1"}, index=1)


@pytest.mark.req("CON-19")
@pytest.mark.parametrize(
    ("method", "came"),
    [
        ("POST", "not POST;"),
        ("put", "not put;"),
        ("p1\n", "of 3 characters"),
        ("", "of 0"),
        ("A" * 17, "of 17 characters"),
    ],
)
def test_the_refusal_of_a_method_says_which_it_was(method: str, came: str) -> None:
    """And which to use, for many vendors write POST; only a word is repeated."""
    reason = refused(put() | {"request": {"method": method}}, index=0)
    assert came in reason
    assert "; PUT adds and replaces" in reason


@pytest.mark.req("CON-19")
@pytest.mark.parametrize("request_", [None, "PUT", ["PUT"], ...])
def test_an_entry_says_what_is_to_be_done(request_: object) -> None:
    """An entry without a request, as in a collection, or with an odd one, is refused."""
    entry = {"resource": resource("Observation", "1")} | ({} if request_ is ... else {"request": request_})
    refused(GOOD, entry, index=1)


@pytest.mark.req("CON-19")
@pytest.mark.parametrize("entry", [None, "PUT", 1, [], {}, [GOOD], True])
def test_an_entry_that_is_none_is_refused(entry: object) -> None:
    """Wherever it stands."""
    refused(entry, GOOD, index=0)
    refused(GOOD, delete("Observation/1"), entry, index=2)


@pytest.mark.req("CON-19")
@pytest.mark.parametrize("entries", [{}, "PUT", GOOD, 7])
def test_entries_that_are_no_array_are_refused(entries: object) -> None:
    """One line says which member it is."""
    with pytest.raises(BadRequest, match=r"\Aupdates\.resource\.entry [^\n]+\Z"):
        read_changes(bundle(entry=entries), "updates")


@pytest.mark.req("CON-19")
@pytest.mark.parametrize("of", [..., None, {}, [], "Observation/1", 1, {"id": "1"}, {"resourceType": None, "id": "1"}])
def test_a_put_without_a_resource_is_refused(of: object) -> None:
    """A fullUrl is no substitute."""
    entry: dict[str, Any] = {"fullUrl": "Observation/1", "request": {"method": "PUT", "url": "Observation/1"}}
    refused(GOOD, GOOD | put(), entry if of is ... else entry | {"resource": of}, index=2)


@pytest.mark.req("CON-19")
@pytest.mark.parametrize(
    "id_", [..., None, "", 1, ["1"], "x" * 257, "a\n", "\x00", "a\x7f", "a\u2028b", "\x9f", "\u2029", "\t"]
)
def test_a_put_without_a_good_id_is_refused(id_: object) -> None:
    """Of 1 to 256 characters, none of them a control character; the answer does not repeat it."""
    entry = put(id_=id_, fullUrl="Observation/1")
    if id_ is ...:
        del entry["resource"]["id"]
    reason = refused(GOOD, entry, index=1)
    assert "xxx" not in reason


@pytest.mark.req("CON-19")
def test_a_type_with_control_characters_is_refused() -> None:
    """It would be part of a key."""
    refused(GOOD, put(type_="Observation\n"), index=1)


@pytest.mark.req("CON-19")
@pytest.mark.parametrize(
    "second",
    [
        put(),
        put(status="final", fullUrl="urn:uuid:2"),
        put(type_="OBSERVATION"),
        delete("Observation/1"),
        delete("https://ehr.example/fhir/Observation/1"),
        delete(url="Observation/1"),
    ],
)
@pytest.mark.parametrize("first", [put(), delete("Observation/1"), delete(url="Observation/1")])
def test_no_resource_may_be_there_twice(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Neither put nor deleted, in whatever notation: the second is named."""
    assert "once" in refused(first, GOOD, second, index=2)


@pytest.mark.req("CON-19")
def test_one_id_in_two_types_is_two_resources() -> None:
    """And ids differ by case."""
    refs = [change.ref for change in read(put(id_="a"), put(id_="A"), put(id_="a", type_="Patient"), delete("Group/a"))]
    assert refs == ["observation/a", "observation/A", "patient/a", "group/a"]


# What a DELETE deletes


@pytest.mark.req("CON-16", "CON-24")
@pytest.mark.parametrize(
    "url",
    [
        "Observation/1",
        "/Observation/1",
        "https://ehr.example/fhir/Observation/1",
        "http://127.0.0.1:8080/Observation/1",
        "urn:Observation/1",
        "https://ehr.example/Patient/2/Observation/1",
    ],
)
def test_a_delete_names_its_target_in_either_place(url: str) -> None:
    """In fullUrl or in request.url, or the same in both; relative, absolute, or as some clients write it."""
    for of_entry, of_request in (
        *((url, None), (None, url), (url, "Observation/1"), ("https://other.example/Observation/1", url)),
        *((url + "/_history/7", None), (None, url + "/_history/7"), ("Observation/1/_history/1", url + "/_history/2")),
    ):
        assert read(delete(of_entry, of_request)) == (Change(OBSERVATION, None, of_entry or ""),)


@pytest.mark.req("CON-16")
@pytest.mark.parametrize(
    "full_url",
    [
        "",
        "urn:uuid:40afe766-3628-4ded-b5bd-925727c013b3",
        "urn:oid:1.2.3",
        "Observation",
        "https://ehr.example/",
        "Observation/1/",
        "Observation/1?x=y",
        "Observation/1#2",
        "Observation/1/_history",
        "Observation/1/_history/2/3",
        "Observation/1/history/2",
        "https://ehr.example/fhir/Observation/1/$meta",
        "http://example.org/hub/topic/fhir",
        "Observation/" + "x" * 257,
    ],
)
def test_a_full_url_that_ends_otherwise_says_nothing(full_url: str) -> None:
    """Of itself: then request.url does, or what was shared under it before. A request.url that ends so is none."""
    assert read(delete(full_url, "Patient/p1")) == (Change("patient/p1", None, full_url),)
    assert read(delete("Patient/p1", full_url)) == (Change("patient/p1", None, "Patient/p1"),)
    refused(GOOD, delete(url=full_url), index=1)
    if full_url:
        for entry in (delete(full_url), delete(full_url, full_url), delete(full_url, "http://example.org/hub/t/fhir")):
            assert read(GOOD, entry)[1] == Change("", None, full_url)
    else:
        refused(GOOD, delete(full_url), index=1)


@pytest.mark.req("CON-16", "CON-24")
def test_a_delete_without_target_is_refused() -> None:
    """A resource says nothing: its type and id stand in the URL."""
    assert "neither" in refused(GOOD, delete(), index=1)
    refused(GOOD, delete() | {"resource": resource("Observation", "1")}, index=1)


@pytest.mark.req("CON-16", "CON-24")
@pytest.mark.parametrize("url", ["Observation/2", "Patient/1", "https://ehr.example/fhir/Observation/10"])
def test_a_delete_of_two_targets_is_refused(url: str) -> None:
    """The hub and a subscriber could each take another one."""
    assert "differ" in refused(GOOD, delete("Observation/1", url), index=1)
    refused(GOOD, delete(url, "https://ehr.example/Observation/1"), index=1)


@pytest.mark.req("CON-16")
@pytest.mark.parametrize("entry", [delete() | {"fullUrl": 1}, {"request": {"method": "DELETE", "url": ["a"]}}])
def test_a_url_that_is_no_string_is_refused(entry: dict[str, Any]) -> None:
    """With the index of the entry, as everything."""
    refused(GOOD, entry, index=1)


@pytest.mark.req("CON-16")
def test_a_delete_needs_no_resource_and_keeps_none() -> None:
    """What it brings along is not looked at."""
    assert read(delete("Observation/1") | {"resource": None}, delete("Observation/2") | {"resource": 7}) == (
        Change("observation/1", None, "Observation/1"),
        Change("observation/2", None, "Observation/2"),
    )


@pytest.mark.req("CON-19")
@pytest.mark.parametrize(
    ("type_", "id_"),
    [
        *(("Observation", "a b"), ("Observation", "a/b"), ("Observation", "a?b"), ("observation", "1")),
        *(("Observation", "a/_history/1"), ("a/Observation", "1")),
    ],
)
def test_what_no_delete_could_name_is_not_put(type_: str, id_: str) -> None:
    """It would stay until its context is closed."""
    assert "must be a resource with a valid Type/id" in refused(GOOD, put(type_=type_, id_=id_), index=1)


@pytest.mark.req("CON-16", "CON-23")
def test_a_put_is_of_the_resource_that_it_names() -> None:
    """A fullUrl that ends in another's Type/id is refused; one that does not end so may be anything."""
    for url in ("https://ehr.example/fhir/Observation/2", "Observation/2/_history/1", "urn:Patient/1"):
        assert "that of another" in refused(put(fullUrl=url), index=0)
    for url in ("https://ehr.example/fhir/Observation/1", "Observation/1/_history/1", "urn:uuid:2"):
        assert len(read(put(fullUrl=url))) == 1


@pytest.mark.req("CON-16", "CON-25")
@pytest.mark.parametrize("second", [put(fullUrl="urn:uuid:7"), delete("urn:uuid:7"), delete("urn:uuid:7", "Group/1")])
@pytest.mark.parametrize(
    "first", [put(id_="9", fullUrl="urn:uuid:7"), delete("urn:uuid:7"), delete("urn:uuid:7", "Patient/2")]
)
def test_no_two_entries_have_one_full_url(first: dict[str, Any], second: dict[str, Any]) -> None:
    """It names one resource, and none may be there twice; an empty one is none."""
    assert "each fullUrl may be there once" in refused(first, GOOD, second, index=2)
    assert len(read(put(fullUrl=""), put(id_="2", fullUrl=""), delete("", "Group/1"), delete("", "Group/2"))) == 4
