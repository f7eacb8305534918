"""What must hold in every state of a fleet (design, section 12); what can only be seen while it happens is checked in
:mod:`tests.queue.model.world`. And :func:`canonical`, which makes states equal that differ in names alone."""

from __future__ import annotations

from tests.queue.model import functions
from tests.queue.model.functions import Job, Server
from tests.queue.model.world import MAX_CRASHES, NOW, SILENCE, SPEAKS, Broken, Call, History, State

LONG_AGO = SILENCE + 4  # beyond what a set clock can make of it
NAMES = {
    "INV-1": "each job is in exactly one place, and every place has a time at which somebody looks",
    "INV-2": "only the holder of the lease settles; a stale one changes and publishes nothing",
    "INV-3": "one outcome per life, published with the step that ends the job",
    "INV-4": "no job is given away while its holder works on it",
    "INV-5": "crashes are charged to who died or stood still, refunded when he speaks, and apart from retries",
    "INV-14": "the last one to leave leaves nothing behind that others can't see",
    "live": "from every state each job still comes to its end",
}


def check(state: State) -> None:
    """Raises Broken."""
    for job, past in zip(state.server.jobs, state.history, strict=True):
        _one_place(job)
        _one_outcome(state, job, past)
        if job.status not in functions.SETTLED:
            _counts(job, past)
    _tokens(state)


def _one_place(job: Job) -> None:
    running, settled = job.status in functions.RUNNING, job.status in functions.SETTLED
    places = [job.queued, job.due is not None, job.ends is not None, settled]
    if sum(places) != 1:
        raise Broken(f"INV-1: a job is in {sum(places)} places")
    if running != (job.ends is not None) or running != bool(job.token) or (job.queued and job.status != "pending"):
        raise Broken("INV-1: a job is not where its status says")
    if (running and job.listed != (job.holder,)) or (not running and job.listed):
        raise Broken("INV-1: a slot's list does not say what it holds")


def _one_outcome(state: State, job: Job, past: History) -> None:
    ended = job.status in functions.SETTLED
    if not state.rolled and past.said != ended:
        raise Broken(f"INV-3: {past.said} outcomes of a job that is {job.status}")
    if ended and not past.said:
        raise Broken("INV-3: a job has ended without a word")


def _counts(job: Job, past: History) -> None:
    if sorted(job.charged) != sorted(past.charged) or job.crashes != len(past.charged):
        raise Broken(f"INV-5: {job.crashes} crashes, charged to {job.charged}; should be {past.charged}")
    if job.crashes >= MAX_CRASHES or job.retries != past.retries:
        raise Broken("INV-5: a budget is not what was used of it")


def _tokens(state: State) -> None:
    """2: a token is that of one attempt of one job."""
    tokens = [a.token for process in state.processes for a in process.attempts]
    if len(set(tokens)) != len(tokens):
        raise Broken("INV-2: two attempts with one token")


def canonical(state: State) -> State:
    """The same state, with what can't matter any more forgotten, and the jobs in one order."""
    live = {a.token for process in state.processes for a in process.attempts}
    live |= {call.token for call in state.calls} | {token for call in state.calls for _, token in call.leases}
    counted = any(call.kind == "claim" and not call.owned for call in state.calls)  # may bring its nonce once more
    jobs = [_forget(job, live, counted) for job in state.server.jobs]
    history = [
        past if job.status not in functions.SETTLED else History(said=past.said)
        for job, past in zip(jobs, state.history, strict=True)
    ]
    server, saved = state.server, state.saved
    if saved is None:
        beside: list[list[object]] = [[] for _ in jobs]
        for at, process in enumerate(state.processes):
            for a in process.attempts:
                if a.job >= 0:
                    beside[a.job].append((at, a[1:]))
        order = sorted(range(len(jobs)), key=lambda n: hash((jobs[n], history[n], tuple(beside[n]))))
        if order != list(range(len(jobs))):
            jobs, history = [jobs[n] for n in order], [history[n] for n in order]
            state = _renumbered(state, {old: new for new, old in enumerate(order)} | {-1: -1})
    else:
        saved = _ageless(saved[0], [_forget(job, live, counted) for job in saved[0].jobs]), saved[1]
    if any(len(process.attempts) > 1 for process in state.processes):
        processes = (p._replace(attempts=tuple(sorted(p.attempts))) for p in state.processes)
        state = state._replace(processes=tuple(processes))
    calls = tuple(sorted(state.calls, key=hash))
    return state._replace(server=_ageless(server, jobs), history=tuple(history), calls=calls, saved=saved)


def _renumbered(state: State, place: dict[int, int]) -> State:
    """The processes and calls of a state whose jobs were put into another order."""
    processes = tuple(
        process._replace(attempts=tuple(a._replace(job=place[a.job]) for a in process.attempts))
        for process in state.processes
    )
    calls = tuple(
        call._replace(
            job=place[call.job],
            leases=tuple(sorted((place[n], token) for n, token in call.leases)),
            reply=_moved(call, place),
        )
        for call in state.calls
    )
    return state._replace(processes=processes, calls=calls)


def _moved(call: Call, place: dict[int, int]) -> object:
    reply = call.reply
    if call.kind == "claim" and reply is not None:
        return place[reply[0]], reply[1]
    if call.kind == "keep" and reply:
        return tuple(sorted(((place[n], token), why) for (n, token), why in reply))
    return reply


def _ageless(server: Server, jobs: list[Job]) -> Server:
    """How long ago something was does not matter beyond the longest time that is asked for."""
    looks = tuple(look for look in server.looks if look[1] > NOW - SPEAKS)
    heard = None if server.heard is None else max(server.heard, NOW - LONG_AGO)
    return server._replace(jobs=tuple(jobs), looks=looks, heard=heard)


def _forget(job: Job, live: set[str], counted: bool) -> Job:
    settled = job.settled if job.settled in live else ""
    if job.status in functions.SETTLED:
        return Job(status=job.status, queued=job.queued, due=job.due, ends=job.ends, settled=settled, listed=job.listed,
                   token=job.token, most=job.most)  # fmt: skip
    holder = job.holder if job.status in functions.RUNNING else ""
    ends = job.ends if job.ends is None or job.ends >= NOW else NOW
    due = job.due if job.due is None or job.due >= NOW else NOW
    attempt = job.attempt if counted else 0
    if (settled, attempt, "", holder, ends, due) == (job.settled, job.attempt, job.life, job.holder, job.ends, job.due):
        return job
    return job._replace(settled=settled, attempt=attempt, life="", holder=holder, ends=ends, due=due)
