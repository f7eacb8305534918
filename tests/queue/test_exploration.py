"""The queue's protocol keeps its promises in every state that small fleets can come to, whatever happens in whatever
order; and a protocol with a fault does not.

``EMP_TRIO_HEAVY=1`` explores larger fleets with more faults at a time; it prints how many states there were.
"""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.queue.model import functions, moves
from tests.queue.model.explore import explore
from tests.queue.model.invariants import NAMES
from tests.queue.model.planted import planted
from tests.queue.model.world import Faults, State, first
from tests.worker.support import HEAVY

ALL = Faults(crash=3, freeze=2, net=2, cut=1, down=1, step=1, rollback=1, drain=2, cancel=1, retry=1, submit=1)

FLEETS = {  # jobs, slots of each process, faults
    "nothing goes wrong": first(2, (2, 1), Faults()),
    "processes die": first(1, (1, 1), Faults(total=2, crash=2)),
    "processes stand still": first(1, (1, 1), Faults(total=1, freeze=1)),
    "a process dies, another stands still": first(1, (1, 1), Faults(total=2, crash=1, freeze=1)),
    "a call is lost, late or doubled": first(1, (1, 1), Faults(total=1, net=1)),
    "a link is cut": first(1, (1, 1), Faults(total=1, cut=1)),
    "the server stands still": first(1, (1,), Faults(total=1, down=1)),
    "the server's clock is set": first(1, (1, 1), Faults(total=1, step=1)),
    "the server loses its last moments": first(1, (1, 1), Faults(total=1, rollback=1)),
    "clients cancel, retry and submit": first(2, (1,), Faults(total=3, cancel=1, retry=1, submit=1)),
    "processes leave": first(1, (1, 1), Faults(total=2, drain=2)),
    "one leaves after another died": first(1, (1, 1), Faults(total=2, drain=1, crash=1)),
}


def after(state: State, *steps: str) -> State:
    """The state after these steps."""
    for step in steps:
        state = next(there for what, there in moves.moves(state) if what == step)
    return state


CUT = Faults(total=2, net=1, cut=1)
BEGUN = {
    "a renewal's reply is late": after(first(1, (1, 1), CUT), "claim", "start", "tick, keep, reply late, keep"),
    "a claim's reply is late": after(first(1, (1, 1), CUT._replace(total=3, net=2)), "claim, reply late"),
}
LARGE = {
    "a link that loses calls is cut": first(1, (1, 1), Faults(total=3, net=2, cut=1)),
    "one job, any two faults": first(1, (1, 1), ALL._replace(total=2)),
    "two jobs, any fault": first(2, (1, 1), ALL._replace(total=1)),
    "two jobs, three processes": first(2, (1, 1, 1), Faults(total=2, crash=2, freeze=1, drain=2, cancel=1)),
    "three jobs, three workers": first(3, (2, 1), Faults(total=1, crash=1, freeze=1, drain=1, cancel=1, rollback=1)),
}
MOST = 1_000_000  # states of one fleet


@pytest.mark.parametrize("begin", [pytest.param(state, id=name) for name, state in FLEETS.items()])
def test_invariants_hold_in_every_state(begin: State) -> None:
    seen = explore(begin)
    print(f"{seen.states} states, {seen.steps} steps, {len(NAMES)} invariants: all hold")
    assert seen.complete


@pytest.mark.skipif(not HEAVY, reason="takes many minutes; EMP_TRIO_HEAVY=1 runs it")
@pytest.mark.parametrize("begin", [pytest.param(state, id=name) for name, state in LARGE.items()])
def test_invariants_hold_in_large_fleets(begin: State) -> None:
    seen = explore(begin, most=MOST)
    print(f"{seen.states} states, {seen.steps} steps to a depth of {seen.depth}, {len(NAMES)} invariants: all hold")
    assert seen.complete or seen.states >= MOST


FAULTS: dict[str, tuple[ModuleType, str, str, str, str]] = {
    # what is wrong: the module, what is right, what is wrong, a fleet that shows it, the invariant that breaks
    "a settle does not compare tokens": (
        functions,
        "return job.token == token and job.holder",
        'return job.token != "" and job.holder',
        "one job, any two faults",
        "INV-2",
    ),
    "a claimed job stays in the queue": (
        functions,
        "attempt=job.attempt + 1,\n        queued=False,",
        "attempt=job.attempt + 1,",
        "nothing goes wrong",
        "INV-1",
    ),
    "a claimed job has no lease": (functions, "        ends=now + lease,\n", "", "nothing goes wrong", "INV-1"),
    "a settled job keeps its lease": (
        functions,
        "settled=token, ends=None, listed",
        "settled=token, listed",
        "nothing goes wrong",
        "INV-1",
    ),
    "a delayed job is in the queue, too": (
        functions,
        "queued=False, due=now + delay",
        "queued=True, due=now + delay",
        "nothing goes wrong",
        "INV-1",
    ),
    "an outcome is not published": (
        functions,
        '(("update_job_progress", number), ("complete_job", number))',
        '(("update_job_progress", number),)',
        "nothing goes wrong",
        "INV-3",
    ),
    "a retry counts as the end": (
        functions,
        'requeue(job._replace(status="pending", worker=""), delay, now), ()',
        'requeue(job._replace(status="pending", worker=""), delay, now), (("job_failed", number),)',
        "nothing goes wrong",
        "INV-3",
    ),
    "a retry keeps the crashes": (
        functions,
        "retries=count, crashes=0, charged=(), unstarted=0)",
        "retries=count, unstarted=0)",
        "processes die",
        "INV-5",
    ),
    "a release counts as a retry": (
        functions,
        'if kind == "retry":',
        "if True:",
        "one leaves after another died",
        "INV-5",
    ),
    "a lease that ran out is no crash": (
        functions,
        'used = int(job.status == "in_progress")',
        "used = 0",
        "processes die",
        "INV-5",
    ),
    "crashes have no limit": (functions, "crashes >= max_crashes", "crashes > max_crashes", "processes die", "INV-5"),
    "a crash costs a retry": (
        functions,
        "job.retries + (counted and used)",
        "job.retries + used",
        "processes die",
        "INV-5",
    ),
    "the crash that ends a job is not published": (
        functions,
        'if end == "failed":',
        "if False:",
        "processes die",
        "INV-3",
    ),
    "nobody gets a charge back": (
        functions,
        "if process in job.charged and",
        "if False and",
        "processes stand still",
        "INV-5",
    ),
    "leases are reaped although the server was away": (
        functions,
        "if grace_left(server, now) == 0:",
        "if True:",
        "the server stands still",
        "INV-5",
    ),
    "the server's gap is not seen": (
        functions,
        "now - server.heard > server.silence",
        "False",
        "the server stands still",
        "INV-5",
    ),
    "leases are reaped too early": (
        functions,
        "(at := time(job)) is not None and at <= now]",
        "(at := time(job)) is not None and at <= now + 3]",
        "nothing goes wrong",
        "INV-5",
    ),
    "a reaped job is nowhere": (
        functions,
        'worker="", token="", retries=count)\n    return requeue(job, 0, now), False',
        'worker="", token="", retries=count)\n    return job, False',
        "processes die",
        "INV-1",
    ),
    "delayed jobs are forgotten": (
        functions,
        "for number in _in_order(server.jobs, lambda job: job.due, now):",
        "for number in ():",
        "nothing goes wrong",
        "live",
    ),
    "a cancelled job keeps its lease": (
        functions,
        "due=None,\n        ends=None,\n        listed=unlist(job, job.holder, job.worker),",
        "due=None,\n        listed=unlist(job, job.holder, job.worker),",
        "clients cancel, retry and submit",
        "INV-1",
    ),
    "the last one leaves delayed jobs behind": (
        functions,
        "if looked == 0 or in_doubt:",
        "if in_doubt:",
        "processes leave",
        "INV-14",
    ),
    "a renewal does not renew": (
        functions,
        "server = put(server, number, hold(job, now + lease))",
        "pass",
        "nothing goes wrong",
        "INV",
    ),
    "the margin of a lease is ignored": (
        moves,
        "LOCAL = LEASE - MARGIN",
        "LOCAL = LEASE",
        "a link is cut",
        "INV-4",
    ),
    "a renewed lease counts from the reply": (
        moves,
        "left = max(attempt.left, LOCAL - call.age)",
        "left = max(attempt.left, LOCAL)",
        "a renewal's reply is late",
        "INV-4",
    ),
    "a claimed lease counts from the reply": (
        moves,
        "max(mine[0].left, LOCAL - call.age)",
        "LOCAL",
        "a claim's reply is late",
        "INV-4",
    ),
    "who stood still works on": (
        moves,
        'if a.left > 0 or a.phase not in ("held", "run"))',
        "if True)",
        "processes stand still",
        "INV-4",
    ),
    "the last one does not wait for the leases of the dead": (
        moves,
        "if alone and (looked or leased):",
        "if False:",
        "one leaves after another died",
        "INV-14",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_protocol_is_found(name: str) -> None:
    module, right, wrong, fleet, broken = FAULTS[name]
    with planted(module, right, wrong), pytest.raises(AssertionError, match=broken):
        explore((FLEETS | BEGUN | LARGE)[fleet])
