"""A lease that ran out is a crash until its process speaks again, and nobody's fault where the server was away."""

from __future__ import annotations

import pytest

from emp_trio.queue.worker_queue import LeaseRef, WorkerQueue
from tests.queue.support import Ear, Library


def run_out(lib: Library, job_id: str = "a", process: str = "p1") -> LeaseRef:
    """A job runs under a process and its lease runs out; the token that it had."""
    token = lib.claim("w", nonces=(f"{process}.{lib.nonce()}",))["jobs"][job_id][1]
    lib.start(job_id, token)
    lib.expire_leases()
    lib.call("reap", 100, 3)
    return LeaseRef(job_id, token)


def crashes(lib: Library, job_id: str = "a") -> int:
    return int(lib.job(job_id).get("crashes") or 0)


def alive(lib: Library, process: str) -> None:
    lib.call("alive", process, "m1", "here", "0", "0", 0, 10**9, 0)


@pytest.mark.parametrize("word", ["alive", "renew", "settle", "ended"])
async def test_a_process_that_speaks_again_had_a_lapse(worker_queue: WorkerQueue, lib: Library, word: str) -> None:
    lib.submit("a")
    lease = run_out(lib)
    assert crashes(lib) == 1
    match word:
        case "alive":
            alive(lib, "p1")
        case "renew":
            assert await worker_queue.renew([lease], lease=15) == {"a": "lost"}
        case "settle":
            assert lib.settle("a", lease.token, "completed") == [0, "pending"]
        case _:
            lib.call("ended", "p1")
    assert (crashes(lib), lib.job("a")["status"], lib.job("a")["retry_count"]) == (0, "pending", "0")
    assert lib.db.keys("emp:charges:*") == []


def test_another_process_of_the_same_machine_takes_no_charge_back(lib: Library) -> None:
    """As one that was started in place of a killed one."""
    lib.submit("a")
    run_out(lib)
    alive(lib, "p2")
    assert crashes(lib) == 1


def test_crashes_have_a_budget_of_their_own(lib: Library, ear: Ear) -> None:
    lib.submit("a", max_retries=1)
    for count in (1, 2):
        run_out(lib)
        assert (crashes(lib), lib.job("a")["status"], lib.job("a")["retry_count"]) == (count, "pending", "0")
    run_out(lib)
    assert (crashes(lib), lib.job("a")["status"]) == (3, "failed")
    assert len(ear.heard("job_failed")) == 1


def test_lapses_never_add_up_to_a_failure(lib: Library) -> None:
    lib.submit("a")
    for number in range(6):
        run_out(lib, process=f"p{number}")
        alive(lib, f"p{number}")
    assert (crashes(lib), lib.job("a")["status"]) == (0, "pending")


def test_each_charge_is_taken_back_by_its_own_process(lib: Library) -> None:
    lib.submit("a")
    run_out(lib, process="p1")
    run_out(lib, process="p2")
    alive(lib, "p1")
    assert (crashes(lib), lib.job("a")["charged"]) == (1, "p2")
    alive(lib, "p1")
    assert crashes(lib) == 1


@pytest.mark.parametrize("how", ["settled", "new life"])
def test_an_attempt_that_ends_clears_the_crashes_and_no_later_word_counts(lib: Library, how: str) -> None:
    lib.submit("a")
    run_out(lib, process="p1")
    token = lib.claim("w", nonces=(f"p2.{lib.nonce()}",))["jobs"]["a"][1]
    lib.start("a", token)
    if how == "settled":
        lib.settle("a", token, "retry", count=1)
    else:
        lib.settle("a", token, "failed", count=1)
        assert lib.call("retry", "a", "n")[0] == "queued"
    assert crashes(lib) == 0
    run_out(lib, process="p3")
    alive(lib, "p1")
    assert crashes(lib) == 1


def test_a_job_that_failed_for_good_stays_so(lib: Library, ear: Ear) -> None:
    lib.submit("a")
    for _ in range(3):
        run_out(lib)
    before = lib.job("a")
    ear.heard()
    alive(lib, "p1")
    assert lib.job("a") == before
    assert ear.heard("job_failed", "complete_job") == []


def test_a_job_that_was_never_begun_is_charged_to_nobody(lib: Library) -> None:
    lib.submit("a")
    lib.claim("w", nonces=(f"p1.{lib.nonce()}",))
    lib.expire_leases()
    lib.call("reap", 100, 3)
    assert (crashes(lib), lib.db.keys("emp:charges:*")) == (0, [])


@pytest.mark.parametrize("key", ["emp:charges:p1", "emp:heard", "emp:grace"])
@pytest.mark.parametrize("kind", ["text", "list", "hash"])
def test_keys_of_another_type_stop_nobody(lib: Library, key: str, kind: str) -> None:
    lib.submit("a")
    if kind == "text":
        lib.db.set(key, "x")
    elif kind == "list":
        lib.db.rpush(key, "a", "b")
    else:
        lib.db.hset(key, mapping={"at": "nan", "silence": "-1", "grace": "1e400", "a": "x"})
    run_out(lib)
    alive(lib, "p1")
    lib.call("reap", 100, 3, "p1", 0, 8000, 6000)
    lib.call("ended", "p1")
    assert lib.job("a")["status"] in ("pending", "in_progress")


class TestTheServerWasAway:
    """No word of anybody for longer than ``silence``: holders of leases have ``grace`` to renew them."""

    SILENCE, GRACE = 8000, 6000

    def reap(self, lib: Library, *, until: int = 0, process: str = "p1") -> list[str]:
        reply = lib.call("reap", 100, 3, process, until, self.SILENCE, self.GRACE)
        return list(reply[1])

    def held(self, lib: Library) -> LeaseRef:
        lib.submit("a")
        token = lib.claim("w", nonces=(f"p1.{lib.nonce()}",))["jobs"]["a"][1]
        lib.start("a", token)
        return LeaseRef("a", token)

    def stand_still(self, lib: Library, seconds: float) -> None:
        """As if the server had been away."""
        at = float(lib.db.hget("emp:heard", "at")) - seconds * 1000
        lib.db.hset("emp:heard", "at", f"{at:.0f}")
        lib.db.zadd("emp:leases", {"a": float(lib.db.zscore("emp:leases", "a")) - seconds * 1000})

    @pytest.mark.parametrize("first", ["alive", "reap"])
    async def test_leases_may_be_renewed_first(self, worker_queue: WorkerQueue, lib: Library, first: str) -> None:
        self.reap(lib)
        lease = self.held(lib)
        self.stand_still(lib, 20)
        if first == "alive":
            alive(lib, "p9")
        assert self.reap(lib) == []
        assert 0 < (await worker_queue.reap()).next_due <= self.GRACE / 1000  # type: ignore[operator]
        assert await worker_queue.renew([lease], lease=15) == {}
        lib.db.delete("emp:grace")
        assert self.reap(lib) == []
        assert (crashes(lib), lib.job("a")["status"]) == (0, "in_progress")

    def test_who_does_not_is_reaped_afterwards(self, lib: Library) -> None:
        self.reap(lib)
        self.held(lib)
        self.stand_still(lib, 20)
        assert self.reap(lib) == []
        assert 0 < lib.db.pttl("emp:grace") <= self.GRACE
        lib.db.delete("emp:grace")
        assert self.reap(lib) == ["a"]

    def test_one_machine_that_was_killed_among_others_is_reaped_at_once(self, lib: Library) -> None:
        self.reap(lib)
        self.held(lib)
        lib.expire_leases()
        alive(lib, "p2")
        assert self.reap(lib, process="p2") == ["a"]

    def test_who_looks_once_does_not_wait_for_anybody(self, lib: Library) -> None:
        """``emp-trio reap`` after the last worker was killed."""
        self.reap(lib)
        self.held(lib)
        self.stand_still(lib, 20)
        assert lib.call("reap", 100, 3, "")[1] == ["a"]

    def test_a_look_that_was_under_way_meanwhile_does_nothing(self, lib: Library) -> None:
        seconds, _ = lib.db.time()
        self.held(lib)
        lib.expire_leases()
        assert self.reap(lib, until=seconds * 1000 - 1) == []
        assert self.reap(lib, until=(seconds + 60) * 1000) == ["a"]


def test_of_jobs_that_crash_together_each_is_tried_by_itself_before_it_fails(lib: Library) -> None:
    """One of them takes the whole process along, and nobody can tell which."""
    jobs = [lib.submit(name) for name in "abcd"]
    for life in ("p1", "p2"):
        nonces = tuple(f"{life}.{lib.nonce()}" for _ in jobs)
        for job_id, (_, token, _) in lib.claim("w1", "w2", "w3", "w4", nonces=nonces)["jobs"].items():
            lib.start(job_id, token)
        lib.expire_leases()
        lib.call("reap", 100, 3)
    assert [crashes(lib, job_id) for job_id in jobs] == [2] * 4
    done = []
    for _ in range(3):  # three turn out not to be it
        answer = lib.claim("w1", "w2", nonces=(f"p3.{lib.nonce()}", f"p3.{lib.nonce()}"))
        ((job_id, (_, token, _)),) = answer["jobs"].items()
        lib.start(job_id, token)
        assert lib.claim("w2", nonces=(f"p3.{lib.nonce()}",))["jobs"] == {}
        lib.settle(job_id, token, "completed")
        done.append(job_id)
    (last,) = set(jobs) - set(done)
    run_out(lib, last, process="p3")
    assert {job_id: lib.job(job_id)["status"] for job_id in jobs} == dict.fromkeys(done, "completed") | {last: "failed"}


def test_another_process_and_other_jobs_do_not_wait_for_that(lib: Library) -> None:
    for name in ("a", "b"):
        lib.submit(name, crashes=2)
    lib.submit("c")
    first = lib.claim("w1", "w2", "w3", nonces=tuple(f"p1.{lib.nonce()}" for _ in range(3)))
    assert len(first["jobs"]) == 2
    assert "c" in first["jobs"]
    assert len(lib.claim("w4", nonces=(f"p2.{lib.nonce()}",))["jobs"]) == 1
