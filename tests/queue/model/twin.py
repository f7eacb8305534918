"""A real server and the model of it, which are told the same and must say the same.

The library's text is that of emp-trio but for its clock, which the twin sets: so times are compared to the millisecond.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from emp_trio.queue import library
from tests.queue.model import functions as model
from tests.queue.support import Ear, Library, iso, old_score

# Times are in ms. They are long, since emp:grace runs out by the server's own clock while a slow test looks at it.
LEASE, SILENCE, GRACE, DELAY, UNTIL = 15_000_000, 8_000_000, 600_000, 30_000_000, 11_000_000
SLOWEST = 500_000  # of a test
MAX_CRASHES, SPEAKS = 3, 8000
OLD = "old-1"
SLOTS = {"s1": "p1", "s2": "p1", "s3": "p3"}
PROCESSES = ("p1", "p3")
CHANNELS = frozenset("job_claimed update_job_progress worker_status complete_job job_failed cancel_job".split())
_CLOCK = "redis.call('TIME')"
_SET_CLOCK = "redis.call('HMGET', 'test:clock', 'seconds', 'micros')"


def with_clock(text: str) -> str:
    """The library's text, with a clock that a test sets."""
    assert text.count(_CLOCK) == 1
    return text.replace(_CLOCK, _SET_CLOCK)


class Twin:
    """Jobs of one server and of the model.

    Args:
        text: of the library; by default emp-trio's.

    Attributes:
        server: the model's state.
        now: ms on the server's clock.
        tokens: (job, token) of all leases that there were; ``claims``: (workers, nonces) of all claims.
        expected: what is to be published by now; ``said``: outcomes that were published so far, by job.
    """

    def __init__(self, url: str, ear: Ear, text: str | None = None) -> None:
        self.lib = Library(url)
        self.db = self.lib.db
        self.ear = ear
        self.text = with_clock(library.source()[0] if text is None else text)

    def begin(self) -> None:
        """Empty both."""
        self.db.flushall()
        self.db.function_load(self.text, replace=True)
        self.ear.heard()
        self.server = model.Server()
        self.now = 1_790_000_000_000
        self.tokens: list[tuple[int, str]] = []
        self.claims: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self.said: Counter[int] = Counter()
        self.expected: list[tuple[str, int]] = []
        self.pass_time(0)

    def pass_time(self, ms: int) -> None:
        """The server's clock goes on, or jumps."""
        self.now += ms
        self.db.hset("test:clock", mapping={"seconds": self.now // 1000, "micros": self.now % 1000 * 1000})
        if self.server.grace is not None:  # which runs out by the server's own clock
            left = self.server.grace - self.now
            self.db.pexpire("emp:grace", left)  # 0 and less delete it
            self.server = self.server._replace(grace=self.server.grace if left > 0 else None)

    def take(self, result: model.Result) -> Any:
        """The model's step: its reply."""
        self.server, reply, said = result
        self.expected += said
        return reply

    # -- both are told

    def submit(self, most: int, old: bool) -> None:
        number = len(self.server.jobs)
        priority = 1000 - number  # so that the queue has one order
        if old:
            self.lib.submit(f"j{number}", max_retries=most, priority=priority)
            self.server = model.submit(self.server, most)[0]
            return
        fields = {"service_required": "comfyui", "created_at": iso(), "max_retries": most, "priority": priority}
        flat = [part for pair in fields.items() for part in pair]
        message = json.dumps({"job_id": f"j{number}"})
        for _ in range(2):  # sent twice
            assert self.lib.call("submit", f"j{number}", f"n{number}", message, *flat) == "submitted"
        self.take(model.submit(self.server, most))
        assert self.lib.call("submit", f"j{number}", "another", "{}", *flat) == "exists"

    def claim(self, workers: tuple[str, ...], nonces: tuple[str, ...], *, repeated: bool) -> None:
        answer = self.lib.claim(*workers, nonces=nonces, lease=LEASE / 1000, repeated=repeated)
        got = {job: (worker, token) for job, (worker, token, _) in answer["jobs"].items()}
        wanted: dict[str, tuple[str, str]] = {}
        free = list(zip(workers, nonces, strict=True))
        dropped = set()

        def skip() -> None:
            while repeated and free:
                before = self.take(model.taken_before(self.server, *free[0], self.now, LEASE))
                if before is None:
                    return
                wanted[f"j{before[0]}"] = free.pop(0)[0], before[1]

        skip()
        for number in self._pending():
            if not free:
                break
            token = self.take(model.claim(self.server, number, *free[0], self.now, LEASE))
            if token is None:
                dropped.add(f"j{number}")
                continue
            if not token:
                continue
            wanted[f"j{number}"] = free.pop(0)[0], token
            self.tokens.append((number, token))
            skip()
        assert got == wanted
        assert set(answer["dropped"]) == dropped

    def _pending(self) -> list[int]:
        """The queue, best first."""
        jobs = self.server.jobs
        return sorted((n for n, job in enumerate(jobs) if job.queued), key=lambda n: (jobs[n].old_score, n))

    def hold(self, workers: tuple[str, ...], nonces: tuple[str, ...]) -> None:
        """What claims have brought whose replies have not been read."""
        flat = [part for pair in zip(workers, nonces, strict=True) for part in pair]
        count = self.lib.call("hold", LEASE, *flat)
        taken = [
            self.take(model.taken_before(self.server, worker, nonce, self.now, LEASE))
            for worker, nonce in zip(workers, nonces, strict=True)
        ]
        assert count == sum(one is not None for one in taken)

    def start(self, number: int, token: str) -> bool:
        started = self.take(model.start(self.server, number, token))
        assert self.lib.start(f"j{number}", token) is started
        return bool(started)

    def report(self, number: int, token: str) -> None:
        """Progress and a checkpoint."""
        ours = self.take(model.report(self.server, number, token))
        assert self.lib.call("progress", f"j{number}", token, "40", "", "", "0") == ([] if ours else [f"j{number}"])
        assert self.lib.call("remember", f"j{number}", token, "{}") == int(ours)

    def settle(self, number: int, token: str, kind: str, delay: int) -> str:
        job = self.server.jobs[number]
        count = job.retries + (kind in ("failed", "retry"))
        if kind == "retry" and count >= job.most:
            kind = "failed"
        records = {f"worker:completion:step-id:j{number}:attempt:{count}": "{}"}
        reply = self.lib.settle(f"j{number}", token, kind, count=count, delay=delay / 1000, records=records)
        word = self.take(model.settle(self.server, number, token, kind, count, delay, self.now))
        assert reply == ([0, self.server.jobs[number].status] if word == "refused" else [1, word])
        return str(word)

    def renew(self, leases: list[tuple[int, str]]) -> None:
        gone = self.take(model.renew(self.server, leases, self.now, LEASE))
        flat = [part for number, token in leases for part in (f"j{number}", token)]
        assert self.lib.call("renew", LEASE, *flat) == [[f"j{number}", why] for (number, _), why in gone.items()]

    def reap(self, process: str, late: bool) -> None:
        """A look for what is due, of a process or of somebody who looks once; one that is late judges nothing."""
        until = (self.now - 1 if late else self.now + UNTIL) if process else 0
        times = (until, SILENCE, GRACE) if process else ()
        replied = self.lib.call("reap", 1000, MAX_CRASHES, process, *times)
        reaped = self.take(
            model.reap(
                self.server,
                process,
                self.now,
                max_crashes=MAX_CRASHES,
                until=until,
                silence=SILENCE if process else None,
                pause=GRACE,
            )
        )
        _, requeued, failed, due, broken = replied[:5]
        names = [[f"j{number}" for number in numbers] for numbers in reaped]
        assert [sorted(requeued), sorted(job for job, _ in failed), sorted(due)] == list(map(sorted, names))
        assert broken == []

    def alive(self, process: str) -> None:
        self.lib.call("alive", process, "m1", "here", "0", "0", 0, 10**12, 0)
        self.take(model.alive(self.server, process, self.now))

    def ended(self, process: str) -> None:
        self.lib.call("ended", process)
        self.take(model.ended(self.server, process))

    def depart(self, process: str, in_doubt: bool) -> None:
        back, delayed, leased, ends, looked, _ = self.lib.call("depart", process, 1000, int(in_doubt))
        went, when = self.take(model.depart(self.server, process, self.now, SPEAKS, in_doubt=in_doubt))
        left = [job.ends for job in self.server.jobs if job.ends is not None]
        assert (sorted(back), looked) == (sorted(f"j{number}" for number in went), when)
        assert delayed == sum(job.due is not None for job in self.server.jobs)
        assert (leased, ends) == (len(left), max(left, default=0))

    def cancel(self, number: int) -> None:
        status = self.server.jobs[number].status
        reply = self.take(model.cancel(self.server, number))
        assert self.lib.call("cancel", f"j{number}", "user") == [reply, status]

    def retry(self, number: int, nonce: str) -> None:
        status = self.server.jobs[number].status
        reply = self.take(model.retry(self.server, number, nonce, self.now))
        assert self.lib.call("retry", f"j{number}", nonce) == [reply, status]

    # -- others, who know nothing of leases

    def api_cancel(self, number: int) -> None:
        job, key = self.server.jobs[number], f"job:j{number}"
        if job.status in ("completed", "failed"):
            return
        self.db.hset(key, mapping={"status": "failed", "failed_at": iso(), "error": "cancelled"})
        if job.worker:
            self.db.hdel(f"jobs:active:{job.worker}", f"j{number}")
        if job.status == "pending":
            self.db.zrem("jobs:pending", f"j{number}")
        self.db.hset("jobs:failed", f"j{number}", '{"error":"cancelled","cancelled":true}')
        self.server = model.api_cancel(self.server, number)

    def foreign_put_back(self, number: int, **also: Any) -> None:
        fields = {"status": "pending", "worker_id": "", "assigned_at": "", "started_at": ""}
        fields |= {"retry_count" if name == "retries" else name: value for name, value in also.items()}
        self.db.hset(f"job:j{number}", mapping=fields)
        self.db.zadd("jobs:pending", {f"j{number}": old_score(1000 - number, 1.7e12)})
        self.server = model.foreign_put_back(self.server, number, **also)

    def old_claim(self) -> None:
        for number in self._pending()[:1]:
            self.db.zrem("jobs:pending", f"j{number}")
            mapping = {"status": "assigned", "worker_id": OLD, "assigned_at": "1.000000"}
            self.db.hset(f"job:j{number}", mapping=mapping)
            self.db.hset(f"jobs:active:{OLD}", f"j{number}", "{}")
            self.server = model.old_claim(self.server, number, OLD)

    def old_end(self, number: int, status: str) -> None:
        self.db.hdel(f"jobs:active:{OLD}", f"j{number}")
        if status == "retry":
            self.server = model.old_end(self.server, number, OLD, "assigned")
            self.foreign_put_back(number, retries=self.server.jobs[number].retries + 1)
            return
        self.db.hset(f"job:j{number}", mapping={"status": status})
        channel = "complete_job" if status == "completed" else "job_failed"
        self.db.publish(channel, json.dumps({"job_id": f"j{number}", "can_retry": False}))
        self.server = model.old_end(self.server, number, OLD, status)
        self.expected.append((channel, number))

    # -- both must agree

    def compare(self) -> None:
        """Where each job is and who may end it, the lists, and everything that was published."""
        assert [self._real(number) for number in range(len(self.server.jobs))] == list(self.server.jobs)
        self._compare_times()
        heard = [
            (channel, None if channel == "worker_status" else int(message["job_id"][1:]))
            for channel, message in self.ear.heard()
            if channel in CHANNELS
        ]
        expected = [(c, None if c == "worker_status" else n) for c, n in self.expected if c in CHANNELS]
        assert heard == expected
        self.said.update(n for c, n in self.expected if c in ("complete_job", "job_failed"))
        self.expected = []

    def _compare_times(self) -> None:
        db, server = self.db, self.server
        heard = db.hgetall("emp:heard")
        assert heard.get("at") == (None if server.heard is None else str(server.heard))
        assert int(heard.get("silence", 8000)) == server.silence
        assert int(heard.get("grace", 6000)) == server.pause
        grace = server.grace - self.now if server.grace is not None else -2  # what PTTL says of a missing key
        left = db.pttl("emp:grace")
        assert grace - SLOWEST < left <= grace, (grace, left)
        assert {n: int(at) for n, at in db.zrange("emp:processes", 0, -1, withscores=True)} == dict(server.looks)
        for process in PROCESSES:
            charged = {f"j{n}" for n, j in enumerate(server.jobs) if process in j.charged}
            live = {job for job in charged if server.jobs[int(job[1:])].status not in model.SETTLED}
            assert live <= set(db.smembers(f"emp:charges:{process}"))

    def _real(self, number: int) -> model.Job:
        db, name = self.db, f"j{number}"
        job = self.lib.job(name)
        score, due, ends = (db.zscore(key, name) for key in ("jobs:pending", "emp:delayed", "emp:leases"))
        count = {n: int(job.get(n) or 0) for n in ("attempt", "retry_count", "max_retries", "crashes", "unstarted")}
        return model.Job(
            status=job["status"],
            queued=score is not None,
            old_score=score < 1e17 if score is not None else self.server.jobs[number].old_score,
            due=None if due is None else int(due),
            ends=None if ends is None else int(ends),
            worker=job.get("worker_id", ""),
            holder=job.get("lease_worker", ""),
            token=job.get("lease_token", ""),
            settled=job.get("settled_token", ""),
            listed=tuple(sorted(w for w in (*SLOTS, OLD) if db.hexists(f"jobs:active:{w}", name))),
            attempt=count["attempt"],
            retries=count["retry_count"],
            most=count["max_retries"],
            crashes=count["crashes"],
            charged=tuple(job.get("charged", "").split()),
            unstarted=count["unstarted"],
            cancelled=bool(job.get("cancelled_at")),
            life=job.get("retry_token", ""),
        )
