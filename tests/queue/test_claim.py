"""What a claim takes and in which order; how far it looks, and what it costs Redis to look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from emp_trio.queue.worker_queue import WorkerQueue
from tests.queue.support import CAPABILITIES, Library, iso


def test_highest_score_first_and_reverse_byte_order_of_ids_among_equals(lib: Library) -> None:
    base = 1759600000000
    for job_id, later in (("aaa", 0), ("zzz", 1000), ("mmm", 2000), ("bbb", 9000)):
        lib.submit(job_id, created_at=iso(base + later))
    lib.submit("urgent", priority=51, created_at=iso(base + 3_600_000))
    order = [next(iter(lib.claim("w1")["jobs"])) for _ in range(5)]
    assert order == ["urgent", "zzz", "mmm", "aaa", "bbb"]  # queue protocol 8.1


def test_a_retry_of_an_old_worker_sorts_between_priorities_9_and_10(lib: Library) -> None:
    base = 1759600000000
    for job_id, priority in (("s1-10", 10), ("s1-9", 9)):
        lib.submit(job_id, priority=priority, created_at=iso(base))
    lib.submit("s2-50")
    lib.db.zadd("jobs:pending", {"s2-50": 9005439704740991})
    assert list(lib.claim("w1", "w2", "w3")["jobs"]) == ["s1-10", "s2-50", "s1-9"]


def test_one_call_fills_many_slots_best_job_to_first_slot(lib: Library) -> None:
    for priority in range(1, 101):
        lib.submit(f"j{priority:03}", priority=priority)
    workers = [f"w{n}" for n in range(60)]
    jobs = lib.claim(*workers)["jobs"]
    assert list(jobs) == [f"j{p:03}" for p in range(100, 40, -1)]
    assert [worker for worker, _, _ in jobs.values()] == workers
    assert len({token for _, token, _ in jobs.values()}) == 60
    assert lib.db.zcard("jobs:pending") == 40


def test_slots_beyond_the_jobs_stay_free(lib: Library) -> None:
    lib.submit("only")
    assert list(lib.claim("w1", "w2", "w3")["jobs"]) == ["only"]
    assert lib.db.exists("jobs:active:w2", "worker:w2") == 0


@pytest.mark.parametrize("slots", [1, 7, 40])
def test_no_window_hides_a_job_behind_150_that_do_not_match(lib: Library, slots: int) -> None:
    for number in range(150):
        lib.submit(f"other{number:03}", service_required="p5", priority=90)
    lib.submit("ours", priority=1)
    claims = lib.claim(*(f"w{n}" for n in range(slots)))
    assert list(claims["jobs"]) == ["ours"]
    assert claims["next"] == -1
    assert lib.db.zcard("jobs:pending") == 150


def test_a_queue_longer_than_one_look_is_looked_through_in_several(lib: Library) -> None:
    pipe = lib.db.pipeline()
    for number in range(1300):
        pipe.hset(f"job:o{number:04}", mapping={"id": f"o{number:04}", "service_required": "p5", "status": "pending"})
        pipe.zadd("jobs:pending", {f"o{number:04}": 9e16})
    pipe.execute()
    lib.submit("ours", priority=1)
    first = lib.claim("w1")
    assert (first["jobs"], first["next"]) == ({}, 512)
    second = lib.claim("w1", rank=first["next"])
    assert (second["jobs"], second["next"]) == ({}, 1024)
    third = lib.claim("w1", rank=second["next"])
    assert list(third["jobs"]) == ["ours"]
    assert lib.claim("w1", rank=1024)["next"] == -1  # seen to its end


def test_a_look_goes_on_where_jobs_were_taken_out_before_it(lib: Library) -> None:
    for number in range(20):
        lib.submit(f"o{number:02}", service_required="p5", priority=90 - number)
        lib.submit(f"ours{number:02}", priority=90 - number)
    first = lib.claim("w1", "w2", "w3", budget=4)
    assert len(first["jobs"]) == 2
    second = lib.claim("w3", rank=first["next"], budget=400)
    third = lib.claim(*(f"x{n}" for n in range(20)), rank=0)
    taken = [*first["jobs"], *second["jobs"], *third["jobs"]]
    assert sorted(taken) == [f"ours{n:02}" for n in range(20)]


@contextmanager
def _commands(lib: Library) -> Iterator[list[list[str]]]:
    """Collects every command that the server runs during the block, those inside functions, too."""
    seen: list[list[str]] = []
    with redis.Redis.from_url(lib.url, decode_responses=True).monitor() as monitor:
        yield seen
        lib.db.echo("the end of the block")
        for entry in monitor.listen():
            if entry["command"] == "ECHO the end of the block":
                return
            seen.append(entry["command"].split())


def test_payloads_are_not_read_while_matching(lib: Library) -> None:
    for number in range(100):
        lib.submit(f"other{number:03}", service_required="p5", payload="x" * 1000, priority=90)
    lib.submit("ours", priority=1)
    with _commands(lib) as commands:
        assert list(lib.claim("w1")["jobs"]) == ["ours"]
    reads = [words for words in commands if len(words) > 1 and words[1].startswith("job:other")]
    assert len(reads) >= 100
    assert {words[0].upper() for words in reads} <= {"HMGET", "HSTRLEN", "HLEN"}
    assert not any("payload" in words or "ctx" in words for words in reads)


async def test_a_job_of_20_mb_is_claimed_whole(worker_queue: WorkerQueue, lib: Library) -> None:
    payload = b'{"x":"' + b"y" * 20 * 2**20 + b'"}'
    lib.submit("big", payload=payload, workflow_id="wf")
    before = lib.job("big")
    [claim] = (await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", "n1")], lease=15)).jobs
    assert "payload" not in claim.fields, "the call that holds Redis carries no large values"
    claim = await worker_queue.whole(claim)
    assert {name: value.decode() for name, value in claim.fields.items()} == before
    listed = json.loads(lib.db.hget("jobs:active:w1", "big"))
    assert listed == {name: value for name, value in before.items() if name != "payload"}
    assert lib.settle("big", claim.token, "completed") == [1, "done"]


def test_attempts_count_up_over_all_claims(lib: Library) -> None:
    lib.submit("j")
    for attempt in range(1, 5):
        token = lib.claim("w1")["jobs"]["j"][1]
        assert token.endswith(f"/{attempt}")
        assert lib.job("j")["attempt"] == str(attempt)
        lib.settle("j", token, "release")
    assert lib.job("j")["retry_count"] == "0"
