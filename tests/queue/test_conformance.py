"""Real servers do to jobs what the model does, whatever happens in whatever order: each step of a random walk is taken
by both, and states, replies and messages are compared. After each step the invariants of the queue hold: each job in
exactly one place, stale holders without a voice, one outcome published per life, crashes counted right.

``EMP_TRIO_HEAVY=1`` walks ten times as far, on each kind of server.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.queue.model import functions as model
from tests.queue.model.twin import DELAY, GRACE, LEASE, OLD, PROCESSES, SILENCE, SLOTS, Twin
from tests.queue.support import listening, redis_server
from tests.queue.test_repeat import state
from tests.worker.support import HEAVY

KINDS = st.sampled_from(("completed", "failed", "retry", "release"))
PICK = st.integers(0, 10**6)
# Shrinking takes minutes here; add its phase when it is needed.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
WALKS, STEPS = (150, 60) if HEAVY else (20, 50)


class Walk(RuleBasedStateMachine):
    """Jobs of one server, and everybody who touches them."""

    twin: Twin
    steps: ClassVar[int] = 0

    @initialize()
    def begin(self) -> None:
        self.twin.begin()
        self.nonces = 0
        self.lives: dict[int, int] = {}  # outcomes that each job should have led to
        self.charges: dict[int, list[str]] = {}  # processes whose started leases on it ran out, and were silent since
        self.cancelled_by_api: set[int] = set()
        self.accepted: dict[int, int] = {}  # retries that its settles have counted

    def nonce(self) -> str:
        self.nonces += 1
        return f"n{self.nonces}"

    @property
    def jobs(self) -> tuple[model.Job, ...]:
        return self.twin.server.jobs

    def pick(self, number: int) -> int:
        return number % len(self.jobs)

    def speaks(self, process: str) -> None:
        """From now on nothing is charged to it."""
        for number, charged in self.charges.items():
            if self.jobs[number].status not in model.SETTLED:
                charged[:] = [one for one in charged if one != process]

    def new_life(self, number: int) -> None:
        self.charges[number], self.accepted[number] = [], 0

    # -- clients

    @precondition(lambda self: len(self.jobs) < 12)
    @rule(most=st.integers(1, 3), old=st.booleans())
    def submit(self, most: int, old: bool) -> None:
        self.lives[len(self.jobs)] = 0
        self.new_life(len(self.jobs))
        self.twin.submit(most, old)

    @precondition(lambda self: self.jobs)
    @rule(number=PICK)
    def cancel(self, number: int) -> None:
        place = self.pick(number)
        self.lives[place] += self.jobs[place].status not in model.SETTLED
        self.twin.cancel(place)

    @precondition(lambda self: self.jobs)
    @rule(number=PICK, again=st.booleans())
    def retry(self, number: int, again: bool) -> None:
        place = self.pick(number)
        nonce = self.jobs[place].life if again and self.jobs[place].life else self.nonce()
        if self.jobs[place].status == "failed" and nonce != self.jobs[place].life:
            self.new_life(place)
        self.twin.retry(place, nonce)

    # -- slots

    @rule(slots=st.sets(st.sampled_from(sorted(SLOTS)), min_size=1), again=st.booleans(), number=PICK)
    def claim(self, slots: set[str], again: bool, number: int) -> None:
        known = self.twin.claims
        if again and known:
            workers, nonces = known[number % len(known)]
        else:
            again, workers = False, tuple(sorted(slots))
            nonces = tuple(f"{SLOTS[worker]}.{self.nonce()}" for worker in workers)
            known.append((workers, nonces))
        before = self.jobs
        held = {n for n, job in enumerate(before) if model.held(job, job.token) and not job.queued}
        self.twin.claim(workers, nonces, repeated=again)
        for place, job in enumerate(self.jobs):
            if job.token != before[place].token:
                assert place not in held, "a job that somebody holds was given away"
                assert before[place].status not in model.SETTLED

    @precondition(lambda self: self.twin.claims)
    @rule(number=PICK)
    def hold(self, number: int) -> None:
        self.twin.hold(*self.twin.claims[number % len(self.twin.claims)])

    @precondition(lambda self: self.twin.tokens)
    @rule(number=PICK)
    def start(self, number: int) -> None:
        self.twin.start(*self.token(number))

    @precondition(lambda self: self.twin.tokens)
    @rule(number=PICK)
    def report(self, number: int) -> None:
        self.twin.report(*self.token(number))

    def token(self, number: int) -> tuple[int, str]:
        """Mostly one of those that came last."""
        tokens = self.twin.tokens
        return tokens[-1 - number % min(len(tokens), 4 + number % 9)]

    @precondition(lambda self: self.twin.tokens)
    @rule(number=PICK, kind=KINDS, delay=st.sampled_from((0, DELAY)))
    def settle(self, number: int, kind: str, delay: int) -> None:
        place, token = self.token(number)
        before, held = self.jobs[place], model.held(self.jobs[place], token)
        charges = any(model.process_of(token) in job.charged for job in self.jobs)
        everything = None if held or charges else state(self.twin.lib)
        word = self.twin.settle(place, token, kind, delay)
        after = self.jobs[place]
        assert (word == "done") is held
        if held:
            self.accepted[place] += kind in ("failed", "retry")
            self.lives[place] += after.status in model.SETTLED
            if kind == "retry" and after.status == "pending":
                self.charges[place] = []
            return
        assert everything is None or state(self.twin.lib) == everything, "a stale holder has changed something"
        assert after._replace(crashes=0, charged=()) == before._replace(crashes=0, charged=())
        if word == "refused":
            self.speaks(model.process_of(token))

    @precondition(lambda self: self.twin.tokens)
    @rule(process=st.sampled_from(PROCESSES))
    def renew(self, process: str) -> None:
        leases = [(n, token) for n, token in self.twin.tokens if model.process_of(token) == process]
        kept = [n for n, token in leases if model.held(self.jobs[n], token)]
        gone = any(not model.held(self.jobs[n], t) and self.jobs[n].settled != t for n, t in leases)
        self.twin.renew(leases)
        assert all(self.jobs[n].ends == self.twin.now + LEASE for n in kept)
        if gone:
            self.speaks(process)

    # -- processes

    @rule(process=st.sampled_from(PROCESSES))
    def alive(self, process: str) -> None:
        self.twin.alive(process)
        self.speaks(process)

    @rule(process=st.sampled_from(PROCESSES), ends=st.booleans(), in_doubt=st.booleans())
    def departs(self, process: str, ends: bool, in_doubt: bool) -> None:
        self.twin.depart(process if ends else "", in_doubt)
        if ends:
            self.twin.ended(process)
            self.speaks(process)

    @rule(process=st.sampled_from(("", *PROCESSES)), late=st.booleans(), wait=st.sampled_from((0, LEASE)))
    def reap(self, process: str, late: bool, wait: int) -> None:
        if wait:
            self.twin.pass_time(wait)
        server = self.twin.server
        for place, job in enumerate(server.jobs):
            away = bool(process) and server.heard is not None and self.twin.now - server.heard > server.silence
            judged = not away and model.grace_left(server, self.twin.now) == 0 and not (process and late)
            ran_out = judged and model.held(job, job.token) and job.ends is not None and job.ends <= self.twin.now
            if ran_out and job.status == "in_progress":
                self.charges[place].append(model.process_of(job.token))
                self.lives[place] += len(self.charges[place]) >= 3
            elif ran_out:
                self.lives[place] += job.unstarted + 1 >= 9
        self.twin.reap(process, late)

    @rule(ms=st.sampled_from((1, LEASE // 3, SILENCE, GRACE, LEASE - 1, -LEASE, 2 * DELAY)))
    def time_passes_or_the_clock_is_set(self, ms: int) -> None:
        self.twin.pass_time(ms)

    # -- the API and an old worker, which know nothing of leases

    @precondition(lambda self: self.jobs)
    @rule(number=PICK)
    def api_cancels(self, number: int) -> None:
        self.cancelled_by_api.add(self.pick(number))
        self.twin.api_cancel(self.pick(number))

    @precondition(lambda self: self.jobs)
    @rule(number=PICK)
    def api_puts_back_a_job_of_a_worker_it_thinks_gone(self, number: int) -> None:
        if self.jobs[self.pick(number)].status in model.RUNNING:
            self.twin.foreign_put_back(self.pick(number))

    @rule()
    def old_worker_claims(self) -> None:
        self.twin.old_claim()

    @rule(number=PICK, status=st.sampled_from(("completed", "failed", "retry")))
    def old_worker_ends_a_job(self, number: int, status: str) -> None:
        held = [n for n, job in enumerate(self.jobs) if job.worker == OLD and job.status in model.RUNNING]
        if held:
            place = held[number % len(held)]
            self.accepted[place] += status == "retry"
            self.lives[place] += status != "retry"
            self.twin.old_end(place, status)

    # -- what must hold after each step

    @invariant()
    def both_agree(self) -> None:
        type(self).steps += 1
        self.twin.compare()

    @invariant()
    def one_outcome_per_life(self) -> None:
        assert {n: self.twin.said[n] for n in self.lives} == self.lives

    @invariant()
    def each_job_is_in_exactly_one_place(self) -> None:
        for number, job in enumerate(self.jobs):
            running = job.status in model.RUNNING
            if job.status == "failed" and number in self.cancelled_by_api:
                places = [job.queued, True]  # a delay or a lease is left, until it is over
            elif running and job.worker == OLD:
                places = [job.queued, True, job.due is not None]  # a lease may be left, until it runs out
            elif running:
                assert job.holder == job.worker
                assert job.token
                places = [job.queued, job.ends is not None, job.due is not None]
            else:
                places = [job.queued, job.due is not None, job.status != "pending"]
            assert sum(places) == 1, job

    @invariant()
    def crashes_and_retries_are_counted_right(self) -> None:
        for number, job in enumerate(self.jobs):
            if job.status not in model.SETTLED:
                assert (job.crashes, job.retries) == (len(self.charges[number]), self.accepted[number]), job

    @invariant()
    def slots_hold_what_they_lease(self) -> None:
        for job in self.jobs:
            ours = [worker for worker in job.listed if worker != OLD]
            assert not ours or (job.ends is not None and ours == [job.holder]), job


def walk(url: str, *, walks: int = WALKS, steps: int = STEPS, text: str | None = None, fixed: bool = False) -> int:
    """Walk on this server; the number of steps. ``fixed``: always the same ones."""
    with listening(url) as ear:
        twin = Twin(url, ear, text)
        machine = type("Machine", (Walk,), {"twin": twin, "steps": 0})
        limits = settings(
            max_examples=walks,
            stateful_step_count=steps,
            phases=PHASES,
            suppress_health_check=HealthCheck,
            derandomize=fixed,
            database=None,
        )
        try:
            run_state_machine_as_test(machine, settings=limits)
        finally:
            twin.db.close()
        return int(machine.steps)


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty server of each kind."""
    if request.param == "valkey":
        yield request.getfixturevalue("valkey_url")
        return
    with redis_server() as url:
        yield url


def test_a_real_server_takes_each_step_as_the_model_does(server: str) -> None:
    taken = walk(server)
    print(f"{taken} steps compared")
    assert taken >= WALKS * STEPS / 2
