"""Small fleets in which everything that can happen does: processes that claim, renew, settle, reap, drain, freeze and
die, calls that are lost, late or doubled, a server that stands still, loses its last moments or has its clock set.

A state is a value; :func:`moves` says what can happen in it. The server's part is :mod:`tests.queue.model.functions`;
what a process does is written down here as the worker does it (``emp_trio/worker``, ``emp_trio/queue/keeping.py``).
One tick is the pause between two renewals. The server's time is always NOW: as time passes all times are moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.queue.model import functions
from tests.queue.model.functions import Job, Server

NOW = 1000
LEASE, MARGIN, DELAY, SILENCE, GRACE, UNTIL, SPEAKS = 3, 1, 1, 1, 2, 1, 2
MAX_CRASHES, MAX_ATTEMPTS = 2, 2
UP, FROZEN, DEAD, LEFT = "up", "frozen", "dead", "left"


class Attempt(NamedTuple):
    """What a process has of a job, or of a claim whose reply it has not read (``asked``: the token is a nonce).

    Attributes:
        phase: ``asked``, ``held``, ``run`` or ``done`` (its outcome is being settled: ``kind`` and ``delay``).
        left: ticks until its local work must stop.
        cancelled: whether the user cancelled it on the server, which the process may not have heard of.
    """

    job: int
    token: str
    phase: str
    left: int
    kind: str = ""
    delay: int = 0
    cancelled: bool = False


class Call(NamedTuple):
    """A call on its way.

    Attributes:
        age: ticks since it was sent.
        answered: whether the reply is on its way back.
        owned: whether its process still waits for the reply.
        late: whether it may take as long as it likes.
        until: of a reap, as an absolute time.
        leases: of a renewal, (job, token) each; (-1, nonce) of a claim whose reply has not been read.
    """

    kind: str
    process: int
    job: int = -1
    token: str = ""
    age: int = 0
    answered: bool = False
    owned: bool = True
    late: bool = False
    reply: Any = None
    what: str = ""
    count: int = 0
    delay: int = 0
    until: int = 0
    leases: tuple[tuple[int, str], ...] = ()


class Process(NamedTuple):
    name: str
    slots: int
    mode: str = UP
    draining: bool = False
    cut: bool = False  # nothing comes through its link
    attempts: tuple[Attempt, ...] = ()


class History(NamedTuple):
    """What happened to a job in its present life, as an onlooker counts it.

    Attributes:
        said: outcomes published.
        charged: processes under which a started lease ran out, and which were silent since.
        retries: accepted retries.
    """

    said: int = 0
    charged: tuple[str, ...] = ()
    retries: int = 0


class Faults(NamedTuple):
    """How often each may still happen, and all of them together."""

    total: int = 0
    crash: int = 0
    freeze: int = 0
    net: int = 0
    cut: int = 0
    down: int = 0
    step: int = 0
    rollback: int = 0
    drain: int = 0
    cancel: int = 0
    retry: int = 0
    submit: int = 0


class State(NamedTuple):
    """Everything.

    Attributes:
        saved: the server as it will be after it has lost its last moments, with the histories of then.
        hurt: processes that stood still, died, were cut off, gave up a lease, or lost two calls.
        stepped, rolled: whether the server's clock was set, and whether it has lost something.
        lost: calls that were lost or late.
    """

    server: Server
    processes: tuple[Process, ...]
    history: tuple[History, ...]
    faults: Faults
    calls: tuple[Call, ...] = ()
    down: bool = False
    saved: tuple[Server, tuple[History, ...]] | None = None
    hurt: tuple[str, ...] = ()
    stepped: bool = False
    rolled: bool = False
    lost: int = 0


def first(jobs: int, slots: tuple[int, ...], faults: Faults) -> State:
    """Jobs in the queue and processes that have just begun."""
    there = jobs - faults.submit
    server = Server(tuple(Job(most=MAX_ATTEMPTS) for _ in range(there)), NOW, SILENCE, GRACE)
    processes = tuple(Process(f"p{n + 1}", size) for n, size in enumerate(slots))
    return State(server, processes, (History(),) * there, faults)


def spend(state: State, fault: str) -> State | None:
    """One fault less, or None where there are no more."""
    left: int = getattr(state.faults, fault)
    if left == 0 or state.faults.total == 0:
        return None
    return state._replace(faults=state.faults._replace(total=state.faults.total - 1, **{fault: left - 1}))


# -- values in a state


def with_process(state: State, at: int, **changes: Any) -> State:
    there = state.processes
    return state._replace(processes=(*there[:at], there[at]._replace(**changes), *there[at + 1 :]))


def with_attempt(state: State, at: int, old: Attempt, new: Attempt | None) -> State:
    there = state.processes[at].attempts
    place = there.index(old)
    return with_process(state, at, attempts=(*there[:place], *((new,) if new else ()), *there[place + 1 :]))


def with_history(state: State, number: int, **changes: Any) -> State:
    there = state.history
    return state._replace(history=(*there[:number], there[number]._replace(**changes), *there[number + 1 :]))


def without(state: State, call: Call) -> State:
    place = state.calls.index(call)
    return state._replace(calls=state.calls[:place] + state.calls[place + 1 :])


def speaks(state: State, process: str) -> State:
    """The onlooker: nothing is charged to it."""
    for number, (job, past) in enumerate(zip(state.server.jobs, state.history, strict=True)):
        if process in past.charged and job.status not in functions.SETTLED:
            state = with_history(state, number, charged=tuple(one for one in past.charged if one != process))
    return state


# -- the server


def execute(state: State, call: Call) -> Iterator[tuple[State, Any]]:
    """What the server may do on this call, and the reply."""
    before, name = state.server, state.processes[call.process].name
    if call.kind == "claim":
        yield from _claim(state, call, name)
        return
    if call.kind == "start":
        server, reply, said = functions.start(before, call.job, call.token)
    elif call.kind == "settle":
        server, reply, said = functions.settle(before, call.job, call.token, call.what, call.count, call.delay, NOW)
        check_settle(state, call, server, reply, said)
        if reply == "refused":
            state = speaks(state, name)
        elif reply == "done" and call.what == "retry":
            state = with_history(state, call.job, charged=(), retries=state.history[call.job].retries + 1)
    elif call.kind == "keep":
        server, reply, _ = functions.alive(before, name, NOW)
        leases = [lease for lease in call.leases if lease[0] >= 0]
        server, reply, said = functions.renew(server, leases, NOW, LEASE)
        for number, nonce in call.leases:
            if number < 0:
                server, _, _ = functions.taken_before(server, name, nonce, NOW, LEASE)
        state = speaks(state, name)
    elif call.kind == "reap":
        server, reply, said = functions.reap(
            before, name, NOW, max_crashes=MAX_CRASHES, until=call.until, silence=SILENCE, pause=GRACE
        )
        state = _reaped(state, server, reply)
    else:
        server, reply, said = functions.depart(before, name, NOW, SPEAKS)
        server, _, _ = functions.ended(server, name)
        state = speaks(state, name)
    state = state._replace(server=server)
    for channel, number in said:
        if channel in ("complete_job", "job_failed"):
            state = with_history(state, number, said=state.history[number].said + 1)
    yield state, reply


def _claim(state: State, call: Call, name: str) -> Iterator[tuple[State, Any]]:
    if call.what == "repeated":
        server, reply, _ = functions.taken_before(state.server, name, call.token, NOW, LEASE)
        if reply is not None:
            yield state._replace(server=server), reply
            return
    found = False
    for number, job in enumerate(state.server.jobs):
        if job.queued:
            found = True
            server, token, _ = functions.claim(state.server, number, name, call.token, NOW, LEASE)
            if token is not None:
                check_claim(state, number)
            yield state._replace(server=server), None if token is None else (number, token)
    if not found:
        yield state, None


def _reaped(state: State, server: Server, reply: functions.Reaped) -> State:
    """The onlooker counts who had a started lease that ran out."""
    for number, (job, after) in enumerate(zip(state.server.jobs, server.jobs, strict=True)):
        if job.status == "in_progress" and job.token and after.status != "in_progress":
            process = functions.process_of(job.token)
            charged = (*state.history[number].charged, process)
            check_charge(state, number, process, failed=number in reply.failed)
            state = with_history(state, number, charged=charged)
    return state


# -- what is checked where it happens; everything else is in invariants.py


class Broken(AssertionError):
    """An invariant does not hold."""


def check_settle(state: State, call: Call, server: Server, reply: str, said: functions.Said) -> None:
    """2: only the holder of the lease settles; a stale one changes nothing and publishes nothing."""
    before, after = state.server.jobs, server.jobs
    job = before[call.job]
    if (reply == "done") != (job.token == call.token and job.status in functions.RUNNING):
        raise Broken("INV-2: settled without the lease, or refused with it")
    same = [job._replace(crashes=0, charged=()) for job in before] == [
        job._replace(crashes=0, charged=()) for job in after
    ]
    if reply != "done" and not (same and said == ()):
        raise Broken("INV-2: a stale settle has changed something")
    if reply == "done" and call.what in ("retry", "release") and said and said[0][0] == "job_failed":
        raise Broken("INV-3: an outcome for a job that goes on")


def check_claim(state: State, number: int) -> None:
    """4: nobody works on a job when it is given away, unless its user cancelled it and gave it a new life."""
    if state.stepped or state.rolled:
        return  # the lease of who works has ended early, or is forgotten: INV-2 is what holds
    for process in state.processes:
        for attempt in process.attempts:
            working = attempt.phase in ("held", "run") and not attempt.cancelled
            if process.mode == UP and working and attempt.job == number:
                raise Broken("INV-4: a job was given away while its holder works on it")


def check_charge(state: State, number: int, process: str, *, failed: bool) -> None:
    """5: a lease runs out under who died or stood still, not because the server was away."""
    if process not in state.hurt and not state.stepped and not state.rolled:
        raise Broken("INV-5: a crash was charged to a process that never stood still")
    if failed and len(state.history[number].charged) + 1 < MAX_CRASHES:
        raise Broken("INV-5: a job failed before its crashes were used up")
