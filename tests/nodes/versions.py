"""Checker of updates: each version of a shared report has one successor, the same for everybody. Pure, as checker.py is.

Records beside those of checker.py:
- update: `topic`, `event` (its id), `prior` (the version that it was made on), `begin`, `end`, `status`
- version: `topic`, `begin`, `end`, `version` (of the current context, in the answer to GET)
- frames of a connection: `at`, `version`, and for an update `update` (its id) and `prior`
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.nodes.checker import ACCEPTED, SERVER_ERROR, Record

#: A client that made its update on an old version.
CONFLICT = 409


def check_versions(history: Sequence[Record], topic: str) -> list[str]:
    """All violations in one topic, whose first event is the only open."""
    connections = [each for each in history if each["op"] == "connection" and each["topic"] == topic]
    updates = [each for each in history if each["op"] == "update" and each["topic"] == topic]
    reads = [each for each in history if each["op"] == "version" and each["topic"] == topic]
    found = [line for each in connections for line in _stream(each)]
    successors: dict[str, tuple[str, str]] = {}
    for frame in (frame for each in connections for frame in each["frames"] if "update" in frame):
        told = (frame["update"], frame["version"])
        if successors.setdefault(frame["prior"], told) != told:
            found.append(f"version {frame['prior']} has the successors {successors[frame['prior']]} and {told}")
    found += _ends(connections, successors)
    found += _answers(updates, reads, successors)
    return [f"{topic}: {line}" for line in found]


def _stream(connection: Record) -> Iterable[str]:
    """Each update of a connection follows the one before; an open has the version that is current then."""
    version = ""
    for frame in (each for each in connection["frames"] if "version" in each):
        before = frame.get("prior", frame["version"])
        if version and before != version:
            yield f"{connection['name']} was at {version}, and is told {frame}"
        version = frame["version"]


def _ends(connections: Sequence[Record], successors: dict[str, tuple[str, str]]) -> Iterable[str]:
    """Whoever is connected at the end knows the last version, which has no successor."""
    for each in connections:
        versions = [frame["version"] for frame in each["frames"] if "version" in frame]
        if each["open"] and (not versions or versions[-1] in successors):
            yield f"{each['name']} was not told the last version"


def _answers(
    updates: Sequence[Record], reads: Sequence[Record], successors: dict[str, tuple[str, str]]
) -> Iterable[str]:
    """What was answered with 202 was told to subscribers, and every later GET knows."""
    version = next(iter(successors.keys() - {version for _, version in successors.values()}), "")
    chain, places = [version], dict[str, int]()
    while version in successors:
        update, version = successors[version]
        places[update] = len(chain)
        chain.append(version)
    for each in updates:
        if each["status"] not in (0, ACCEPTED, CONFLICT) and each["status"] < SERVER_ERROR:
            yield f"the update {each['event']} was refused with {each['status']}"
        elif each["status"] == ACCEPTED and successors.get(each["prior"], ("",))[0] != each["event"]:
            yield f"the update {each['event']} was answered with 202, and does not follow {each['prior']}"
    accepted = [(each["end"], places.get(each["event"], 0)) for each in updates if each["status"] == ACCEPTED]
    for read in reads:
        least = max((place for end, place in accepted if end < read["begin"]), default=0)
        if read["version"] not in chain[least:]:
            yield f"GET at {read['begin']:.3f} answers {read['version']}, which is older than {chain[least]}"
