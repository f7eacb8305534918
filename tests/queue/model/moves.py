"""What can happen next in a fleet: see :mod:`tests.queue.model.world`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

from tests.queue.model import functions, world
from tests.queue.model.functions import Server
from tests.queue.model.world import (
    DEAD,
    DELAY,
    FROZEN,
    LEASE,
    LEFT,
    MARGIN,
    MAX_ATTEMPTS,
    NOW,
    UNTIL,
    UP,
    Attempt,
    Call,
    History,
    State,
    spend,
    with_attempt,
    with_history,
    with_process,
    without,
)

Move: TypeAlias = tuple[str, State]
LOCAL = LEASE - MARGIN


def moves(state: State) -> Iterator[Move]:
    """Everything that can happen: (what, the state after it)."""
    for at, process in enumerate(state.processes):
        if process.mode == UP:
            yield from _process(state, at)
        elif process.mode == FROZEN:
            yield "thaw", thaw(state, at)
    yield from arrivals(state)
    yield from _server(state)
    yield from _clients(state)
    if _may_tick(state):
        yield from _tick(state)


# -- processes


def _process(state: State, at: int) -> Iterator[Move]:
    process = state.processes[at]
    waits = {
        call.token for call in state.calls if call.owned and call.process == at and call.kind in ("claim", "settle")
    }
    for attempt in process.attempts:
        if attempt.token in waits:
            continue
        if attempt.phase == "asked":
            call = Call("claim", at, token=attempt.token, what="repeated")
            yield from send("claim again", state, call)
        elif attempt.phase == "held":
            if process.draining:
                yield from _settle(state, at, attempt, "release", 0)
            else:
                after = with_attempt(state, at, attempt, attempt._replace(phase="run"))
                yield from send("start", after, Call("start", at, attempt.job, attempt.token))
        elif attempt.phase == "run":
            yield from _finish(state, at, attempt)
        else:
            yield from _settle(state, at, attempt, attempt.kind, attempt.delay)
        if attempt.phase in ("held", "run") and attempt.left <= 0:
            hurt = tuple(sorted({*state.hurt, process.name}))  # its lease runs out, or somebody else's word was last
            yield "local deadline", with_attempt(state._replace(hurt=hurt), at, attempt, None)
    if (
        not (process.draining or process.cut)
        and len(process.attempts) < process.slots
        and any(j.queued for j in state.server.jobs)
    ):
        nonce = _nonce(state, process.name)
        after = with_process(state, at, attempts=(*process.attempts, Attempt(-1, nonce, "asked", 0)))
        yield from send("claim", after, Call("claim", at, token=nonce))
    reaps = any(call.kind == "reap" and call.process == at and call.owned for call in state.calls)
    if not reaps and _due(state.server):
        yield from send("reap", state, Call("reap", at, until=NOW + UNTIL))
    yield from _ends(state, at)


def _finish(state: State, at: int, attempt: Attempt) -> Iterator[Move]:
    yield from _settle(state, at, attempt, "completed", 0)
    job = state.server.jobs[attempt.job]
    if job.retries + 1 >= MAX_ATTEMPTS:
        yield from _settle(state, at, attempt, "failed", 0)
    else:
        yield from _settle(state, at, attempt, "retry", DELAY)
    if state.processes[at].draining:
        yield from _settle(state, at, attempt, "release", 0)


def _settle(state: State, at: int, attempt: Attempt, kind: str, delay: int) -> Iterator[Move]:
    job = state.server.jobs[attempt.job]
    after = with_attempt(state, at, attempt, attempt._replace(phase="done", kind=kind, delay=delay))
    count = job.retries + (kind in ("retry", "failed"))
    yield from send(kind, after, Call("settle", at, attempt.job, attempt.token, what=kind, count=count, delay=delay))


def _ends(state: State, at: int) -> Iterator[Move]:
    process = state.processes[at]
    hurt = tuple(sorted({*state.hurt, process.name}))
    if (after := spend(state, "crash")) is not None:
        calls = tuple(call for call in after.calls if call.process != at or not call.answered)
        calls = tuple(call._replace(owned=False) if call.process == at else call for call in calls)
        yield "crash", with_process(after._replace(hurt=hurt, calls=calls), at, mode=DEAD, attempts=())
    if (after := spend(state, "freeze")) is not None:
        yield "freeze", with_process(after._replace(hurt=hurt), at, mode=FROZEN)
    if process.cut:
        yield "the link is back", with_process(state, at, cut=False)
        return
    if (after := spend(state, "cut")) is not None:
        yield "the link is cut", with_process(after._replace(hurt=hurt), at, cut=True)
    if not process.draining and (after := spend(state, "drain")) is not None:
        yield "drain", with_process(after, at, draining=True)
    waits = any(call.process == at and call.owned for call in state.calls)
    if process.draining and not process.attempts and not state.down and not waits:
        for after, (_, looked) in world.execute(state, Call("depart", at)):
            after = with_process(after, at, mode=LEFT)
            alone = not any(other.mode in (UP, FROZEN) for other in after.processes)
            leased = any(job.ends is not None for job in after.server.jobs)
            if alone and (looked or leased):
                continue  # it waits, and looks again
            if alone and any(job.due is not None or job.ends is not None for job in after.server.jobs):
                raise world.Broken("INV-14: the last one has left jobs behind that nobody else sees")
            yield "leave", after


def thaw(state: State, at: int) -> State:
    """A process goes on; it stops what it has no lease for before anything else."""
    attempts = state.processes[at].attempts
    kept = tuple(a for a in attempts if a.left > 0 or a.phase not in ("held", "run"))
    return with_process(state, at, mode=UP, attempts=kept)


def _nonce(state: State, name: str) -> str:
    """One that nobody knows any more, or never did."""
    jobs = state.server.jobs if state.saved is None else state.server.jobs + state.saved[0].jobs
    known = {job.token for job in jobs} | {job.settled for job in jobs} | {call.token for call in state.calls}
    known |= {a.token for process in state.processes for a in process.attempts}
    known |= {token for call in state.calls for _, token in call.leases}
    nonces = {token.partition("/")[0] for token in known}
    return next(nonce for n in itertools.count() if (nonce := f"{name}.{n}") not in nonces)


def _due(server: Server) -> bool:
    return any((j.ends is not None and j.ends <= NOW) or (j.due is not None and j.due <= NOW) for j in server.jobs)


# -- the network


def send(what: str, state: State, call: Call) -> Iterator[Move]:
    """A call is made: it arrives and is answered at once, or something happens to it."""
    if state.processes[call.process].cut:
        yield f"{what}, lost", state
        return
    if state.down:
        yield f"{what}, which waits", state._replace(calls=(*state.calls, call))
        return
    results = list(world.execute(state, call))
    for after, reply in results:
        yield what, deliver(after, call, reply)
    faulty = spend(state, "net")
    if faulty is None:
        return
    lost = faulty.lost + 1
    hurt = tuple(sorted({*faulty.hurt, state.processes[call.process].name})) if lost > 1 else faulty.hurt
    faulty = faulty._replace(lost=lost, hurt=hurt)
    yield f"{what}, lost", faulty
    yield f"{what}, late", faulty._replace(calls=(*faulty.calls, call._replace(late=True)))
    for after, reply in results:
        after = after._replace(faults=faulty.faults, lost=lost, hurt=hurt)
        yield f"{what}, reply lost", after
        answered = call._replace(answered=True, late=True, reply=_plain(reply))
        yield f"{what}, reply late", after._replace(calls=(*after.calls, answered))
        if call.kind != "start":
            doubled = deliver(after, call, reply)
            yield f"{what}, twice", doubled._replace(calls=(*doubled.calls, call._replace(late=True, owned=False)))


def _plain(reply: Any) -> Any:
    """What a process needs of a reply, as a value that can be hashed."""
    if isinstance(reply, functions.Reaped):
        return None
    return tuple(sorted(reply.items())) if isinstance(reply, dict) else reply


def arrivals(state: State) -> Iterator[Move]:
    for call in dict.fromkeys(state.calls):
        rest = without(state, call)
        process = state.processes[call.process]
        if process.cut and call.owned:
            continue
        if call.answered and process.mode == UP:
            yield "a reply arrives", deliver(rest, call, call.reply)
        elif not call.answered and not state.down:
            for after, reply in world.execute(rest, call):
                if not call.owned:
                    yield "a call arrives that nobody waits for", after
                elif process.mode == UP:
                    yield "a call arrives", deliver(after, call, reply)
                else:
                    answered = call._replace(answered=True, reply=_plain(reply))
                    yield "a call arrives", after._replace(calls=(*after.calls, answered))
        if call.late and call.owned and process.mode == UP:
            given_up = () if call.answered else (call._replace(owned=False),)
            yield "given up", rest._replace(calls=(*rest.calls, *given_up))


def deliver(state: State, call: Call, reply: Any) -> State:
    """A process reads the reply to a call that it waits for."""
    at = call.process
    attempts = state.processes[at].attempts
    if call.kind in ("claim", "settle"):
        mine = [a for a in attempts if a.token == call.token]
        if not mine or not call.owned:
            return state
        if call.kind == "settle" or reply is None:
            return with_attempt(state, at, mine[0], None)
        held = Attempt(reply[0], reply[1], "held", max(mine[0].left, LOCAL - call.age))
        return with_attempt(state, at, mine[0], held if held.left > 0 else None)  # it would be stopped as it begins
    if call.kind == "keep":
        gone = dict(reply)
        kept = []
        for attempt in attempts:
            named = (attempt.job, attempt.token) in call.leases  # also of a claim, which brings no shorter lease later
            if named and (attempt.job, attempt.token) in gone and attempt.phase in ("held", "run"):
                continue
            left = max(attempt.left, LOCAL - call.age) if named else attempt.left
            kept.append(attempt._replace(left=left))
        return with_process(state, at, attempts=tuple(kept))
    return state


# -- the server


def _server(state: State) -> Iterator[Move]:
    if state.down:
        yield "the server goes on", state._replace(down=False)
        return
    if (after := spend(state, "down")) is not None:
        yield "the server stands still", after._replace(down=True)
    if (after := spend(state, "step")) is not None:
        for ticks in (-LEASE, 1, LEASE):
            yield f"the clock is set by {ticks}", after._replace(server=shifted(after.server, ticks), stepped=True)
    if state.saved is None and (after := spend(state, "rollback")) is not None:
        yield "the server saves", after._replace(saved=(after.server, after.history))
    elif state.saved is not None:
        server, past = state.saved
        # what was published was heard
        history = tuple(old._replace(said=new.said) for old, new in zip(past, state.history, strict=True))
        yield (
            "the server loses its last moments",
            state._replace(server=server, history=history, saved=None, rolled=True),
        )


def shifted(server: Server, ticks: int) -> Server:
    """The server's clock is that much further; its times are told from NOW on."""
    jobs = tuple(
        job
        if job.ends is None and job.due is None
        else job._replace(
            ends=None if job.ends is None else job.ends - ticks, due=None if job.due is None else job.due - ticks
        )
        for job in server.jobs
    )
    grace = server.grace - ticks if server.grace is not None else None
    return server._replace(
        jobs=jobs,
        heard=None if server.heard is None else server.heard - ticks,
        grace=grace if grace is not None and grace > NOW else None,
        looks=tuple((nonce, at - ticks) for nonce, at in server.looks),
    )


def _may_tick(state: State) -> bool:
    """No moment passes while somebody has something to do at once."""
    urgent = any(not call.late and not state.down for call in state.calls if _can_move(state, call))
    overdue = any(
        process.mode == UP and attempt.left <= 0 and attempt.phase in ("held", "run")
        for process in state.processes
        for attempt in process.attempts
    )
    return not urgent and not overdue


def _can_move(state: State, call: Call) -> bool:
    process = state.processes[call.process]
    return (not call.answered or process.mode == UP) and not (process.cut and call.owned)


def _tick(state: State) -> Iterator[Move]:
    """Time passes; who can, renews its leases."""
    server = shifted(state.server, 1)
    processes = tuple(
        process._replace(attempts=tuple(a._replace(left=max(-1, a.left - 1)) for a in process.attempts))
        for process in state.processes
    )
    saved = (shifted(state.saved[0], 1), state.saved[1]) if state.saved else None
    calls = tuple(_older(call) for call in state.calls)
    after = state._replace(server=server, processes=processes, saved=saved, calls=calls)
    ways = [("tick", after)]
    for at, process in enumerate(after.processes):
        if process.mode == UP:
            ways = [(f"{what}, {renewal}", last) for what, way in ways for renewal, last in _keep(way, at)]
    yield from ways


def _older(call: Call) -> Call:
    if call.kind in ("claim", "keep"):  # whose leases count from the call
        return call._replace(age=min(call.age + 1, LEASE))
    return call._replace(until=max(call.until - 1, NOW - 1)) if call.until else call


def _keep(state: State, at: int) -> Iterator[Move]:
    for call in state.calls:
        if call.kind == "keep" and call.process == at and call.owned:
            if not call.late or call.age < 2:
                yield "keep waits", state
            if not call.late:
                return
            given_up = () if call.answered else (call._replace(owned=False),)
            state = without(state, call)
            state = state._replace(calls=(*state.calls, *given_up))
    attempts = state.processes[at].attempts
    yield from send("keep", state, Call("keep", at, leases=tuple((a.job, a.token) for a in attempts)))


# -- clients


def _clients(state: State) -> Iterator[Move]:
    if state.down:
        return
    if (after := spend(state, "submit")) is not None and state.saved is None:
        server, _, _ = functions.submit(after.server, MAX_ATTEMPTS)
        yield "submit", after._replace(server=server, history=(*after.history, History()))
    for number, job in enumerate(state.server.jobs):
        if job.status not in functions.SETTLED and (after := spend(state, "cancel")) is not None:
            yield "cancel", _cancelled(after, number)
        if job.status == "failed" and (after := spend(state, "retry")) is not None:
            server, _, _ = functions.retry(after.server, number, "again", NOW)
            yield "retry", with_history(after._replace(server=server), number, said=0, charged=(), retries=0)


def _cancelled(state: State, number: int) -> State:
    server, _, said = functions.cancel(state.server, number)
    processes = tuple(
        process._replace(attempts=tuple(a._replace(cancelled=True) if a.job == number else a for a in process.attempts))
        for process in state.processes
    )
    outcomes = sum(channel == "job_failed" for channel, _ in said)
    state = state._replace(server=server, processes=processes)
    return with_history(state, number, said=state.history[number].said + outcomes)
