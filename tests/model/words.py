"""Words: a path of steps as sentences, for people who look for a mistake."""

from __future__ import annotations

from tests.model.scenarios import Scenario, begin
from tests.model.search import Failure
from tests.model.steps import Room, Step, lost_nodes, take
from tests.model.world import OK, Cause, Commit, Node, World
from tests.simulation.violation import Violation

_WORDS = {
    "lose answer": "{node} gets no answer, so the outcome is unknown",
    "drop": "what {node} had sent never reaches the database",
    "read": "{node} reads the log",
    "notice": "{node} gets a notice of commit {argument}",
    "lose notice": "the notice of commit {argument} to {node} is lost",
    "beat": "{node} gives a sign of life",
    "join": "{node} joins the others under this name",
    "begin post": "{node} posts {number} to the callback",
    "end post": "the callback answers {node}",
    "die": "{node} dies",
    "sleep": "{node} falls asleep, for so long that others may mark it",
    "wake": "{node} wakes up",
    "mark": "another node marks {node} dead",
    "failover": "a standby takes over; what was under way has no answer",
    "late": "the time passes that lost subscribers have for their return",
}


def report(scenario: Scenario, failed: Failure) -> str:
    """The text that is printed for a failure."""
    values, world = begin(scenario)
    room = Room(scenario, values, world)
    lines = [f"{scenario.name}: {failed.found}", f"  {len(failed.path)} steps lead there:"]
    for number, step in enumerate(failed.path, 1):
        lines.append(f"  {number:3}. {sentence(room, world, step)}")
        try:
            after = take(room, world, step)
        except Violation:
            break
        lines += [f"         {each}" for each in _differences(world, after)]
        world = after
    return "\n".join(lines)


def sentence(room: Room, world: World, step: Step) -> str:
    """What happens in this step."""
    kind, n, argument = step
    now = world.nodes[n]
    match kind:
        case "post":
            return f"event {argument} is posted to node {now.name}"
        case "return":
            return f"subscriber {argument} connects to node {now.name}"
        case "duty":
            return f"node {now.name} {_command(now.duties[argument])}"
        case "lost":
            return (
                f"node {now.name} {_command(Cause('lost', argument, 0, lost_nodes(room.values, world, argument)[0]))}"
            )
        case "tick":
            return f"node {now.name} {_command(Cause('tick', argument))}"
        case "commit" | "end commit":
            return _commit(world, now, argument, kind)
        case "answer":
            return _answer(world, now)
    number = now.queue[0] if now.queue else now.posting
    return _WORDS[kind].format(node=f"node {now.name}", argument=argument, number=number)


def _commit(world: World, now: Node, place: int, kind: str) -> str:
    commit = now.left if place else now.commit
    assert commit is not None
    late = ", of which the node expects no answer" if place else ""
    done = "ends" if kind == "end commit" else "carries out"
    return f"the database {done} the commit of node {commit.node} ({_of(commit)}){late}"


def _answer(world: World, now: Node) -> str:
    commit = now.commit
    assert commit is not None
    if commit.phase == OK:
        return f"node {now.name} hears that its commit has position {commit.position}"
    why = "the node was marked dead" if commit.node in world.marked else "another commit came first"
    return f"node {now.name} hears that its commit ({_of(commit)}) is refused: {why}"


def _of(commit: Commit) -> str:
    cause = commit.cause
    what = f"event {cause.number}" if cause.kind == "event" else _command(cause)
    return f"{what}, on revision {commit.expected}"


def _command(cause: Cause) -> str:
    match cause.kind:
        case "connect":
            return f"connects socket {cause.name}"
        case "gone":
            return f"says that socket {cause.name} is gone"
        case "lost":
            return f"loses the sockets of node {cause.name}"
        case "answered":
            return f"says that post {cause.number} was answered"
        case "resume":
            return "begins its posts anew"
    return "ticks the session" if cause.kind == "tick" else f"decides event {cause.number}"


def _differences(before: World, after: World) -> list[str]:
    """What sockets, callers and the log say after the step, where that differs."""
    found = [
        f"commit {row.written} has position {row.position}, after {row.previous} of topic {row.topic}, by {row.origin}"
        for row in after.log
        if row not in before.log
    ]
    found += [f"commit {row.written} at position {row.position} is lost" for row in before.log if row not in after.log]
    for old, new in zip(before.subs, after.subs, strict=True):
        if new.node and not old.node:
            found.append(f"socket {new.connection} is there")
        if old.node and not new.node:
            found.append(f"socket {old.connection} is gone")
        if new.told and new.told != old.told:
            found.append(f"socket {new.connection} is told commit {new.told}")
    answers = {1: "503", 2: "202", 3: "409"}
    for k, (was, now) in enumerate(zip(before.callers, after.callers, strict=True)):
        if was != now and now in answers:
            found.append(f"event {k} is answered with {answers[now]}")
    found += [_changed(old, new) for old, new in zip(before.nodes, after.nodes, strict=True) if old.name != new.name]
    return found


def _changed(old: Node, new: Node) -> str:
    return f"node {old.name} begins anew as {new.name}"
