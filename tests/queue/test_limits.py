"""What one call does at most, whatever stands at the head of the queue; and ids that can't be run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from emp_trio.errors import InvalidJob
from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge
from emp_trio.queue.client import Queue
from emp_trio.queue.ids import LONGEST_ID, why_refused
from emp_trio.queue.job_hash import MAX_PAYLOAD_BYTES
from emp_trio.queue.worker_queue import WorkerQueue
from tests.queue.support import CAPABILITIES, Ear, Library

KIB = 1024


def requirements(size: int, mark: int) -> str:
    """Requirements of so many bytes that no worker has."""
    head = f'{{"mark{mark}": "'
    return head + "x" * (size - len(head) - 2) + '"}'


def test_requirements_of_more_than_16_kib_fail_their_job_without_being_read(lib: Library, ear: Ear) -> None:
    lib.submit("just", requirements=requirements(16 * KIB, 0), priority=90)
    lib.submit("over", requirements=requirements(16 * KIB + 1, 1), priority=90)
    lib.submit("huge", requirements=requirements(8 * KIB * KIB, 2), priority=90)
    lib.submit("good", priority=1)
    claims = lib.claim("w1", "w2")
    assert list(claims["jobs"]) == ["good"]
    assert set(claims["dropped"]) == {"over", "huge"}
    for job_id in claims["dropped"]:
        job = lib.job(job_id)
        assert (job["status"], job["failure_reason"]) == ("failed", "invalid_payload")
        assert job["error"] == "invalid_job: requirements is longer than 16 KiB"
    assert {m["job_id"] for _, m in ear.heard("job_failed")} == {"over", "huge"}
    assert lib.job("just")["status"] == "pending"


@pytest.mark.parametrize(
    "field", ["customer_id", "workflow_id", "status", "worker_id", "current_step", "total_steps", "settled_token"]
)
def test_other_fields_that_are_looked_at_are_bounded_too(lib: Library, field: str) -> None:
    lib.submit("bad", priority=90)
    lib.db.hset("job:bad", field, "x" * 100 * KIB)
    lib.submit("good")
    claims = lib.claim("w1")
    assert list(claims["jobs"]) == ["good"]
    assert claims["dropped"] == {"bad": f"invalid_job: {field} is longer than 16 KiB"}


def test_one_call_decodes_64_kib_and_the_next_goes_on(lib: Library) -> None:
    for number in range(10):
        lib.submit(f"j{9 - number}", requirements=requirements(16 * KIB, number), priority=50 + number)
    lib.submit("good", priority=1)
    looked = []
    rank = 0
    while rank >= 0:
        claims = lib.claim("w1", rank=rank)
        rank = claims["next"]
        looked.append(rank)
        assert claims["dropped"] == {}
    assert looked == [4, 8, -1]
    assert list(claims["jobs"]) == ["good"]


def test_the_same_requirements_are_decoded_once(lib: Library) -> None:
    same = requirements(16 * KIB, 0)
    for number in range(20):
        lib.submit(f"j{number:02}", requirements=same, priority=90)
    lib.submit("good", priority=1)
    assert list(lib.claim("w1")["jobs"]) == ["good"]


def test_one_call_answers_with_half_a_megabyte_of_jobs(lib: Library) -> None:
    for number in range(40):
        lib.submit(f"j{number:02}", payload="x" * 40 * KIB)
    workers = [f"w{number}" for number in range(40)]
    first = lib.claim(*workers)
    assert 10 <= len(first["jobs"]) < 20
    assert first["next"] == 0
    taken = len(first["jobs"])
    while taken < 40:
        taken += len(lib.claim(*workers[taken:])["jobs"])
    assert lib.db.zcard("jobs:pending") == 0


async def test_a_claim_goes_on_where_a_budget_ended_at_the_head(worker_queue: WorkerQueue, lib: Library) -> None:
    for number in range(600):
        lib.submit(f"bad{number}", requirements="5", priority=90)
    reply = await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", "n")], lease=15)
    assert reply.next_rank == 0, "there is more to look at, from the beginning"
    assert 100 < len(reply.dropped) < 300


def test_the_library_and_the_reader_agree_on_the_largest_payload(lib: Library) -> None:
    assert f"LONGEST_PAYLOAD = {MAX_PAYLOAD_BYTES} " in library.source()[0]
    assert f"LONGEST_ID = {LONGEST_ID} " in library.source()[0]


# -- only of types that are served here


@pytest.mark.parametrize("broken", ["5", "[1]", '{"hardware": null}', requirements(20 * KIB, 0)])
def test_broken_requirements_of_types_that_others_serve_are_theirs(lib: Library, broken: str) -> None:
    lib.submit("theirs", service_required="p5", requirements=broken, priority=90)
    lib.submit("bound", requirements=broken, workflow_id="other", priority=90)
    claims = lib.claim("w1", capabilities=CAPABILITIES | {"workflow_id": "wf"})
    assert (claims["jobs"], claims["dropped"]) == ({}, {})
    assert lib.db.zcard("jobs:pending") == 2


@pytest.mark.parametrize("broken", ["[1]", '[{"hardware": {}}]', "[null]", '{"positive_requirements": ["a"]}'])
def test_requirements_that_are_a_list_can_never_match(lib: Library, broken: str) -> None:
    lib.submit("bad", requirements=broken)
    [(_, why)] = lib.claim("w1")["dropped"].items()
    assert "is not a" in why


def test_a_job_without_the_field_customer_id_passes_lists_as_in_the_fleet(lib: Library) -> None:
    access: dict[str, Any] = {"customer_access": {"isolation": "loose", "allowed_customers": ["c1"]}}
    lib.submit("none", customer_id=None, requirements={"customer_isolation": "loose"})
    lib.submit("empty", customer_id="", requirements={"customer_isolation": "loose"})
    assert list(lib.claim("w1", "w2", capabilities=CAPABILITIES | access)["jobs"]) == ["none"]


def test_what_earlier_attempts_said_is_gone_when_a_job_completes(lib: Library) -> None:
    lib.submit("j")
    _, token, _ = lib.claim("w1")["jobs"]["j"]
    lib.settle("j", token, "retry", count=1)
    assert lib.job("j")["error"] == "boom"
    _, token, _ = lib.claim("w1")["jobs"]["j"]
    lib.settle("j", token, "completed")
    assert not lib.job("j").keys() & {"error", "failure_type", "failure_reason", "failed_at"}


# -- ids


BAD_IDS = ["v:progress", "a:progress:b", "v:attempt:1", "i" * (LONGEST_ID + 1), "i" * 2**20, ""]


@pytest.mark.parametrize("job_id", BAD_IDS, ids=lambda job_id: job_id[:20])
def test_a_job_whose_id_cannot_be_used_fails_at_its_first_claim(lib: Library, ear: Ear, job_id: str) -> None:
    lib.submit("v", status="in_progress")
    lib.db.zrem("jobs:pending", "v")
    job = {"id": job_id, "service_required": "comfyui", "status": "pending", "payload": "{}"}
    lib.db.hset(f"job:{job_id}", mapping=job)
    lib.db.zadd("jobs:pending", {job_id: 9e16})
    lib.submit("good")
    ear.heard()
    claims = lib.claim("w1", "w2")
    if not claims["jobs"]:  # a megabyte is all that one call looks at
        claims["jobs"] = lib.claim("w1", rank=claims["next"])["jobs"]
    assert list(claims["jobs"]) == ["good"]
    assert "invalid_job: the id" in next(iter(claims["dropped"].values()))
    assert [m["job_id"] for _, m in ear.heard("job_failed")] == [job_id]
    assert lib.db.hexists("jobs:failed", job_id)
    assert "lease_token" not in lib.job(job_id) or lib.job(job_id)["lease_token"] == ""
    assert lib.job(job_id)["status"] == ("pending" if job_id == "v:progress" else "failed")
    assert lib.db.keys("worker:*v*") == [], "a record may belong to the other job"


def test_an_id_of_megabytes_costs_redis_no_more_than_naming_it(lib: Library, ear: Ear) -> None:
    """Compared with what Redis needs for the key itself: no limit in seconds that a busy machine breaks."""
    size = 4 * KIB * KIB

    def took(command: str, act: Callable[[], object]) -> int:
        best = []
        for _ in range(3):
            lib.db.config_resetstat()
            act()
            best.append(int(lib.db.info("commandstats")[f"cmdstat_{command}"]["usec"]))
        return min(best)

    naming = took("eval", lambda: lib.db.eval(f"return redis.call('HGET', string.rep('k', {size}), 'x')", 0))
    for number in range(3):
        lib.submit("i" * size + str(number), priority=90)
    lib.submit("\u00fc" * (size // 2), priority=80)
    ear.heard()
    assert took("fcall", lambda: lib.claim("w1")) < 40 * naming
    lib.claim("w1")
    told = [message["job_id"] for _, message in ear.heard("job_failed")]
    assert [len(job_id) < 300 for job_id in told] == [True] * 4
    assert lib.db.zcard("jobs:pending") == 0


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"service_required": "elsewhere"}, True),
        ({"service_required": "x" * 20 * KIB}, True),
        ({"status": "completed"}, False),
        ({"status": "x" * 20 * KIB}, False),
        ({"service_required": None, "id": None}, False),
    ],
    ids=["another type", "a long type", "completed", "a long status", "no job"],
)
def test_such_an_id_is_judged_as_others_are(lib: Library, fields: dict[str, Any], left: bool) -> None:
    job_id = lib.submit("i" * 2**20, **fields)
    before = lib.job(job_id)
    assert lib.claim("w1")["jobs"] == {}
    assert (lib.db.zscore("jobs:pending", job_id) is not None) == left
    ours = str(fields.get("status", "")).startswith("x")
    assert (lib.job(job_id) != before) == ours
    assert (lib.job(job_id)["status"] == "failed") == ours


def test_an_id_that_is_not_utf_8_burns_no_leases(lib: Library, ear: Ear) -> None:
    lib.db.hset(b"job:\xff\xfe", mapping={"id": "x", "service_required": "comfyui", "status": "pending"})
    lib.db.zadd("jobs:pending", {b"\xff\xfe": 9e16})
    claims = lib.claim("w1")
    assert claims["jobs"] == {}
    assert claims["dropped"] == {"??": "invalid_job: the id is not UTF-8 text"}
    assert lib.db.hget(b"job:\xff\xfe", "status") == "failed"
    assert [m["job_id"] for _, m in ear.heard("job_failed")] == ["??"]


@pytest.mark.parametrize("odd", ['"', "\\", "\n", "\x00", "\x1f", "\x7f", "\u00fc", "/"], ids=ascii)
def test_a_long_id_is_told_as_it_is_whatever_is_in_it(lib: Library, ear: Ear, odd: str) -> None:
    job_id = "i" * 5000 + odd + "i" * 5000
    lib.submit(job_id)
    ear.heard()
    lib.claim("w1")
    assert [m["job_id"] for _, m in ear.heard("job_failed")] == [job_id]


def test_the_progress_of_a_job_is_no_job(lib: Library) -> None:
    lib.submit("v")
    _, token, _ = lib.claim("w1")["jobs"]["v"]
    lib.call("progress", "v", token, "10", "x", "", "0")
    before = lib.job("v:progress")
    lib.db.zadd("jobs:pending", {"v:progress": 9e16})
    assert lib.claim("w2")["dropped"] == {"v:progress": "there is no job of this id"}
    assert lib.call("cancel", "v:progress", "why") == ["missing", ""]
    assert lib.call("retry", "v:progress", "n") == ["missing", ""]
    assert lib.job("v:progress") == before


@pytest.mark.parametrize(
    "job_id", [*BAD_IDS, "tab\t", "\x00", "\x85", "new\nline", "half \ud800", "ü" * 129], ids=ascii
)
async def test_such_ids_are_refused_at_submit(bridge: Bridge, lib: Library, job_id: str) -> None:
    with pytest.raises(InvalidJob, match="the id"):
        await Queue(bridge).submit("comfyui", job_id=job_id)
    assert lib.db.keys("job*") == []


@pytest.mark.parametrize("job_id", ["j", "a/b c", "ünï", "ü" * 128, "step-1", "😀", "x" * LONGEST_ID, "progress"])
def test_other_ids_are_fine(lib: Library, job_id: str) -> None:
    assert why_refused(job_id) is None
    lib.submit(job_id)
    assert list(lib.claim("w1")["jobs"]) == [job_id]
