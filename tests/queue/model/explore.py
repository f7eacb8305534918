"""Every state that a small fleet can come to, each looked at once.

Of the states that were seen only a hash of 64 bits is kept: that two of a million have the same one is less likely than
one in ten million.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple, TypeAlias

from tests.queue.model import functions
from tests.queue.model import moves as fleet
from tests.queue.model.invariants import canonical, check
from tests.queue.model.world import FROZEN, UP, Broken, Faults, Process, State, with_process

LONGEST: Final = 100  # steps within which a fleet without further faults has ended every job
FORWARD: Final = ("local deadline", "completed", "failed", "retry", "release", "start", "claim again", "claim", "reap")

Way: TypeAlias = "tuple[str, Way] | None"


class Seen(NamedTuple):
    """What an exploration has looked at. ``complete``: whether that is everything there is."""

    states: int
    steps: int
    depth: int
    complete: bool


def explore(begin: State, *, most: int = 1 << 62) -> Seen:
    """Look at every state, nearest first, and see that each leads to the end of every job.

    Args:
        most: states to look at.

    Raises:
        Broken: an invariant does not hold; the text says by which steps one comes there.
    """
    begin = canonical(begin)
    seen, good = {hash(begin)}, set[int]()
    todo: deque[tuple[State, int, Way]] = deque([(begin, 0, None)])
    steps = depth = 0
    while todo and len(seen) < most:
        state, depth, way = todo.popleft()
        try:
            check(state)
            ends(state, good)
            for what, after in fleet.moves(state):
                steps += 1
                after = canonical(after)
                key = hash(after)
                if key not in seen:
                    seen.add(key)
                    todo.append((after, depth + 1, (what, way)))
        except Broken as broken:
            raise Broken(f"{broken}\n  " + "\n  ".join([*_told(way), f"{state}"])) from None
    return Seen(len(seen), steps, depth, not todo)


def _told(way: Way) -> list[str]:
    """The steps from the beginning on."""
    told: list[str] = []
    while way is not None:
        told.append(way[0])
        way = way[1]
    return told[::-1]


def ends(state: State, good: set[int]) -> None:
    """Without further faults each job comes to its end. ``good``: states of which that is known.

    Raises:
        Broken: one does not.
    """
    state = canonical(state._replace(faults=Faults(), saved=None))
    way: list[int] = []
    while (key := hash(state)) not in good:
        way.append(key)
        if all(job.status in functions.SETTLED for job in state.server.jobs):
            break
        if len(way) > LONGEST:
            raise Broken("live: a job does not come to its end")
        state = canonical(_forward(state))
        check(state)
    good.update(way)


def _forward(state: State) -> State:
    """The next step of a fleet in which nothing goes wrong any more."""
    if state.down:
        return state._replace(down=False)
    for at, process in enumerate(state.processes):
        if process.mode == FROZEN:
            return fleet.thaw(state, at)
        if process.cut:
            return with_process(state, at, cut=False)
    for what, after in fleet.arrivals(state):
        if what != "given up":
            return after
    if not any(process.mode == UP and not process.draining for process in state.processes):
        return state._replace(processes=(*state.processes, Process("new", 1)))
    found = {what: after for what, after in fleet.moves(state) if canonical(after) != state}
    for what in FORWARD:
        if what in found:
            return found[what]
    return next(after for what, after in found.items() if what.startswith("tick"))
