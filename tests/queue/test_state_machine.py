"""Any order of what slots, clients, the reaper, the API and old workers do to jobs keeps the invariants of the queue:
each job in exactly one place, stale holders without a voice, one outcome published per life, attempts and crashes
counted right: what ran out under a process that speaks again was no crash."""

from __future__ import annotations

import json
from typing import Any

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

from tests.queue.support import Ear, Library, iso, listening, old_score
from tests.queue.test_repeat import state

SLOTS = ("s1", "s2", "s3")
PROCESSES = {"s1": "p1", "s2": "p1", "s3": "p3"}
OLD = "old-1"
RUNNING = ("assigned", "in_progress")
KINDS = st.sampled_from(("completed", "failed", "retry", "release"))
PICK = st.integers(0, 10**6)
# Shrinking takes minutes here; add its phase when it is needed.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
SETTINGS = settings(max_examples=40, stateful_step_count=40, phases=PHASES, suppress_health_check=HealthCheck)


class Life:
    """What a job should look like."""

    def __init__(self, max_attempts: int) -> None:
        self.max_attempts = max_attempts
        self.retries = self.crashes = 0
        self.token: str | None = None  # of the lease that holds it now
        self.charged: list[str] = []  # processes whose lease on it ran out, and which were not heard of since
        self.started = False
        self.over = False
        self.announced = 0  # terminal messages that this life should have led to
        self.said = 0


class Fleet(RuleBasedStateMachine):
    """Jobs of one server, and everybody who touches them."""

    lib: Library
    ear: Ear

    @initialize()
    def begin(self) -> None:
        self.lib.db.flushall()
        self.ear.heard()
        self.jobs: dict[str, Life] = {}
        self.tokens: list[tuple[str, str]] = []
        self.claims: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def pick(self, number: int) -> tuple[str, Life]:
        job_id = sorted(self.jobs)[number % len(self.jobs)]
        return job_id, self.jobs[job_id]

    # -- clients

    @rule(number=st.integers(1, 3), old=st.booleans())
    def submit(self, number: int, old: bool) -> None:
        job_id = f"j{len(self.jobs)}"
        if old:
            self.lib.submit(job_id, max_retries=number)
        else:
            fields = {"service_required": "comfyui", "created_at": iso(), "max_retries": number, "retry_count": 0}
            flat = [p for pair in fields.items() for p in pair]
            assert self.lib.call("submit", job_id, f"n{job_id}", "{}", *flat) == "submitted"
        self.jobs[job_id] = Life(number)

    @precondition(lambda self: self.jobs)
    @rule(number=PICK)
    def cancel(self, number: int) -> None:
        job_id, life = self.pick(number)
        reply = self.lib.call("cancel", job_id, "user")[0]
        if not life.over:
            assert reply == "cancelled"
            self.end(life)

    @precondition(lambda self: self.jobs)
    @rule(number=PICK)
    def retry(self, number: int) -> None:
        job_id, life = self.pick(number)
        failed = self.lib.job(job_id)["status"] == "failed"
        assert self.lib.call("retry", job_id, self.lib.nonce())[0] == ("queued" if failed else "refused")
        if failed:
            self.jobs[job_id] = Life(life.max_attempts)

    # -- slots

    @rule(slots=st.sets(st.sampled_from(SLOTS), min_size=1), again=st.booleans(), number=PICK)
    def claim(self, slots: set[str], again: bool, number: int) -> None:
        if again and self.claims:
            workers, nonces = self.claims[number % len(self.claims)]
        else:
            workers = tuple(sorted(slots))
            nonces = tuple(f"{PROCESSES[worker]}.{self.lib.nonce()}" for worker in workers)
            self.claims.append((workers, nonces))
        for job_id, (worker, token, _) in self.lib.claim(*workers, nonces=nonces, repeated=again)["jobs"].items():
            life = self.jobs[job_id]
            assert not life.over
            if life.token == token:
                assert again
                assert not life.started
            else:
                assert life.token is None
                self.tokens.append((job_id, token))
            assert worker in workers
            life.token, life.started = token, False

    @precondition(lambda self: self.tokens)
    @rule(number=PICK)
    def start_report_remember(self, number: int) -> None:
        job_id, token = self.tokens[number % len(self.tokens)]
        life = self.jobs[job_id]
        held = life.token == token
        assert self.lib.start(job_id, token) is held
        assert self.lib.call("progress", job_id, token, "40", "", "", "0") == ([] if held else [job_id])
        assert self.lib.call("remember", job_id, token, "{}") == int(held)
        if held:
            life.started = True

    @precondition(lambda self: self.tokens)
    @rule(number=PICK, kind=KINDS, delay=st.sampled_from((0, 30)))
    def settle(self, number: int, kind: str, delay: int) -> None:
        job_id, token = self.tokens[number % len(self.tokens)]
        life = self.jobs[job_id]
        held = life.token == token
        if kind == "retry" and life.retries + 1 >= life.max_attempts:
            kind = "failed"
        before = None if held else state(self.lib)
        self.listen()
        count = life.retries + (kind in ("failed", "retry"))
        records = {f"worker:completion:step-id:{job_id}:attempt:{count}": "{}"}
        reply = self.lib.settle(job_id, token, kind, count=count, delay=delay, records=records)
        if not held:
            assert reply[0] == 0 or reply == [1, "repeated"]
            if reply[0] == 1 or not self.charges(token):
                assert state(self.lib) == before
            else:
                self.refund(token)
            assert self.ear.heard() == []
            return
        assert reply == [1, "done"]
        life.token, life.retries = None, count
        if kind == "retry":
            life.crashes, life.charged = 0, []
        if kind in ("completed", "failed"):
            self.end(life)

    @rule(process=st.sampled_from(("p1", "p3")))
    def speak(self, process: str) -> None:
        self.lib.call("alive", process, "m1", "here", "0", "0", 0, 10**9, 0)
        self.refund(process)

    def charges(self, token: str) -> list[Life]:
        return [life for life in self.jobs.values() if token.partition(".")[0] in life.charged]

    def refund(self, token: str) -> None:
        process = token.partition(".")[0]
        for life in self.charges(token):
            if not life.over:
                life.crashes -= life.charged.count(process)
                life.charged = [one for one in life.charged if one != process]

    @precondition(lambda self: self.tokens)
    @rule()
    def renew(self) -> None:
        flat = [p for pair in self.tokens for p in pair]
        gone = [tuple(g) for g in self.lib.call("renew", 15000, *flat)]
        for job_id, token in self.tokens:
            if self.jobs[job_id].token == token:
                assert (job_id, "lost") not in gone or any(t != token for j, t in self.tokens if j == job_id)
                assert self.lib.db.zscore("emp:leases", job_id) > 1e12
            elif (job_id, "lost") in gone or (job_id, "cancelled") in gone:
                self.refund(token)

    # -- time

    @precondition(lambda self: self.jobs)
    @rule(number=PICK, everything=st.booleans())
    def reap(self, number: int, everything: bool) -> None:
        if everything:
            self.lib.expire_leases()
            self.lib.make_due()
            ran_out = [life for life in self.jobs.values() if life.token]
        else:
            job_id, life = self.pick(number)
            self.lib.db.zadd("emp:leases", {job_id: 1}, xx=True)
            ran_out = [life] if life.token else []
        _, requeued, failed, _, broken = self.lib.call("reap", 1000, 3)
        assert broken == []
        for life in ran_out:
            assert life.token is not None
            life.crashes += life.started
            if life.started and life.crashes >= 3:
                self.end(life)
            elif life.started:
                life.charged = [*life.charged, life.token.partition(".")[0]]
            life.token = None
        assert len(requeued) + len(failed) == len(ran_out)

    # -- the API and an old worker, which know nothing of leases (queue protocol 3.3, 4.6, 4.7, 4.8)

    @precondition(lambda self: self.jobs)
    @rule(number=PICK)
    def api_cancels(self, number: int) -> None:
        job_id, life = self.pick(number)
        db, job = self.lib.db, self.lib.job(job_id)
        if job["status"] in ("completed", "failed"):
            return
        db.hset(f"job:{job_id}", mapping={"status": "failed", "failed_at": iso(), "error": "cancelled"})
        if job.get("worker_id"):
            db.hdel(f"jobs:active:{job['worker_id']}", job_id)
        if job["status"] == "pending":
            db.zrem("jobs:pending", job_id)
        db.hset("jobs:failed", job_id, json.dumps({"error": "cancelled", "cancelled": True}))
        life.token, life.over = None, True  # the API publishes no outcome

    @precondition(lambda self: self.jobs)
    @rule(number=PICK)
    def api_puts_back_a_job_of_a_worker_it_thinks_gone(self, number: int) -> None:
        job_id, life = self.pick(number)
        if self.lib.job(job_id)["status"] not in RUNNING:
            return
        self.put_back(job_id, {"started_at": ""})
        life.token = None

    @rule()
    def old_worker_claims(self) -> None:
        db = self.lib.db
        for job_id in db.zrevrange("jobs:pending", 0, 0):
            job = self.lib.job(job_id)
            db.zrem("jobs:pending", job_id)
            db.hset(f"job:{job_id}", mapping={"status": "assigned", "worker_id": OLD, "assigned_at": "1.000000"})
            db.hset(f"jobs:active:{OLD}", job_id, json.dumps(job))

    @rule(number=PICK, kind=st.sampled_from(("completed", "failed", "retry")))
    def old_worker_ends_a_job(self, number: int, kind: str) -> None:
        db = self.lib.db
        hashes = {job_id: self.lib.job(job_id) for job_id in sorted(self.jobs)}
        held = [j for j, job in hashes.items() if job.get("worker_id") == OLD and job["status"] in RUNNING]
        if not held:
            return
        job_id = held[number % len(held)]
        life = self.jobs[job_id]
        db.hdel(f"jobs:active:{OLD}", job_id)
        if kind == "retry":
            life.retries += 1
            self.put_back(job_id, {"retry_count": life.retries})
        else:
            db.hset(f"job:{job_id}", mapping={"status": kind})
            message = {"job_id": job_id, "can_retry": False, "timestamp": 1}
            db.publish("complete_job" if kind == "completed" else "job_failed", json.dumps(message))
            self.end(life)

    def put_back(self, job_id: str, also: dict[str, Any]) -> None:
        fields = {"status": "pending", "worker_id": "", "assigned_at": "", **also}
        self.lib.db.hset(f"job:{job_id}", mapping=fields)
        self.lib.db.zadd("jobs:pending", {job_id: old_score(50, 1.7e12)})

    # -- what must hold after each step

    def end(self, life: Life) -> None:
        life.token, life.over = None, True
        life.announced += 1

    def listen(self) -> None:
        for _, message in self.ear.heard("complete_job", "job_failed"):
            if message.get("can_retry") is False or "token" in message:
                self.jobs[message["job_id"]].said += 1

    @invariant()
    def one_outcome_per_life(self) -> None:
        self.listen()
        for job_id, life in self.jobs.items():
            assert life.said == life.announced, job_id

    @invariant()
    def each_job_is_in_exactly_one_place(self) -> None:
        db = self.lib.db
        pending, delayed, leased = (set(db.zrange(k, 0, -1)) for k in ("jobs:pending", "emp:delayed", "emp:leases"))
        for job_id, life in self.jobs.items():
            job = self.lib.job(job_id)
            places = [job_id in pending]
            if job["status"] in RUNNING and job["worker_id"] == OLD:
                places += [True, job_id in delayed]
            elif job["status"] in RUNNING:
                assert job["lease_worker"] == job["worker_id"]
                assert job["lease_token"] == life.token
                places += [job_id in leased, job_id in delayed]
            elif job["status"] == "pending":
                places += [job_id in delayed]
            else:
                places += [True]
            assert sum(places) == 1, (job_id, job["status"], places)
            assert (job["status"] in ("completed", "failed")) is life.over
            assert int(job.get("retry_count") or 0) == life.retries or job["status"] == "failed"
            if not life.over:
                assert int(job.get("crashes") or 0) == life.crashes

    @invariant()
    def slots_hold_what_they_lease(self) -> None:
        leases = set(self.lib.db.zrange("emp:leases", 0, -1))
        for slot in SLOTS:
            for job_id in self.lib.db.hkeys(f"jobs:active:{slot}"):
                assert job_id in leases, "a slot keeps a job that has left it"
                assert self.lib.job(job_id)["lease_worker"] == slot


def test_invariants_hold_whatever_happens_in_whatever_order(valkey: str) -> None:
    lib = Library(valkey)
    with listening(valkey) as ear:
        machine = type("Machine", (Fleet,), {"lib": lib, "ear": ear})
        run_state_machine_as_test(machine, settings=SETTINGS)
    lib.db.close()
