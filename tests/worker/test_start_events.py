"""Nobody misses the start of a job because the worker was quicker than its announcement."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from typing import Any, cast

import pytest
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from emp_trio.queue.client import open_queue
from emp_trio.queue.messages import announced_job
from emp_trio.secrets import Redactor
from emp_trio.worker.context import MachineContext
from emp_trio.worker.observer import Observers
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.start_events import StartEvents, publish_at
from tests.queue.support import Ear
from tests.worker.processes import open_worker
from tests.worker.standin import saw_the_start, submitted_by_api
from tests.worker.support import DONE, Play, cancel_as_api, eventually, open_machine, submit, until_status

NOW, WINDOW = 1000.0, 0.025


@pytest.mark.parametrize(
    ("known", "at"),
    [
        ({}, 0.025),
        ({"heard": NOW - 1}, -0.995),
        ({"heard": NOW}, 0.005),  # its submitter does not listen yet
        ({"pushed": NOW - 0.03}, 0),  # nothing new since: the job was there before
        ({"pushed": NOW - 0.03, "age": 0.001}, 0.025),  # ... but this one was made this moment
        ({"pushed": NOW - 0.03, "age": 1.0}, 0),
        ({"pushed": math.inf}, 0.025),  # pushes are not to be had
        ({"age": None, "vain": NOW - 0.1}, 0.025),  # it does not say when it was made
        ({"age": -3600.0, "vain": NOW - 0.1}, 0.025),  # the submitter's clock is ahead
        ({"age": 3600.0}, 0.025),  # or behind: nobody can tell
        ({"age": 3600.0, "vain": NOW - 0.1}, 0),  # of a backlog that nobody announces, one wait in a while is enough
        ({"age": 3600.0, "vain": NOW - 0.6}, 0.025),
    ],
)
def test_when_the_first_events_of_a_job_may_be_published(known: dict[str, Any], at: float) -> None:
    given = {"heard": None, "pushed": NOW - 0.01, "age": 1.0, "vain": -math.inf} | known
    assert publish_at(now=NOW, window=WINDOW, **given) == pytest.approx(NOW + at, abs=1e-6)


@pytest.mark.parametrize(
    ("message", "job_id"),
    [
        (b'{"job_id":"a-1","payload":{}}', "a-1"),
        (b' { "job_id" : "a-1" }', "a-1"),
        (b'{"payload": {"job_id": "no"}, "job_id": "a-1"}', "a-1"),
        (b'{"job_id":"a\\"b"}', 'a"b'),
        ('{"job_id":"ü"}'.encode(), "ü"),
        (b'{"job_id":"a-1","payload":"' + b"x" * 10_000_000 + b'"}', "a-1"),
        (b'{"payload":"' + b"x" * 10_000_000 + b'","job_id":"a-1"}', None),
        (b'{"job_id": 5}', None),
        (b"[]", None),
        (b"{", None),
        (b"\xff\xfe", None),
        (b"", None),
        (b"[" * 5000, None),
    ],
)
def test_the_id_in_an_announcement(message: bytes, job_id: str | None) -> None:
    assert announced_job(message) == job_id


def _in_order(heard: list[tuple[str, dict[str, Any]]], job_id: str) -> bool:
    """Whether nothing at all was said of a job before its announcement."""
    about = [c for c, m in heard if m.get("job_id") == job_id or m.get("current_job_id") == job_id]
    return about[0] == "job_submitted"


async def test_announcements_are_remembered_at_the_same_cost_however_many_have_been_heard() -> None:
    context = MachineContext(
        settings=WorkerSettings(machine_id="m"),
        queue=cast(Any, None),
        redactor=Redactor(),
        observers=Observers(),
    )
    starts = StartEvents(context, lambda: None)

    def hear(first: int, count: int) -> float:
        began = time.thread_time()
        for number in range(first, first + count):
            starts.heard(b'{"job_id":"job-%d"}' % number)
        return time.thread_time() - began

    # The quickest of several parts, since a busy machine makes some of them slow.
    early = min(hear(part * 2000, 2000) for part in range(5))
    hear(10_000, 140_000)
    late = min(hear(150_000 + part * 2000, 2000) for part in range(5))
    assert late < 5 * early, "once as many are remembered as may be"
    assert starts._heard_at("job-159999") is not None
    assert starts._heard_at(f"job-{160_000 - 32_768}") is not None
    assert starts._heard_at("job-0") is None


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_client_sees_the_start_of_its_job_however_late_it_is_announced(
    valkey: str, db: Any, ear: Ear, busy: bool
) -> None:
    """The window is wide here, so that a slow machine does not matter."""
    delays, seen, stop = [n / 1000 for n in range(0, 21, 2)], [], trio.Event()

    async def one(late: float) -> None:
        fields: dict[str, Any] = {"priority": "90", "score": 90} if busy else {}
        hear = partial(submitted_by_api, valkey, "mock", late, {"delay_ms": 0}, **fields)
        heard = await trio.to_thread.run_sync(hear)
        seen.append((late, heard))

    async def keep_busy() -> None:
        async with open_queue(valkey) as queue:
            while not stop.is_set():
                jobs = [await queue.submit("mock", {"delay_ms": 3}) for _ in range(20)]
                await eventually(partial(_all_ended, db, jobs))

    async with (
        open_worker(valkey, "--workers", "mock:2", EMP_TRIO_ANNOUNCEMENT_SECONDS="2"),
        trio.open_nursery() as nursery,
    ):
        if busy:
            nursery.start_soon(keep_busy)
        for late in delays:
            await one(late)
        stop.set()
    missed = [(late, heard) for late, heard in seen if not saw_the_start(heard)]
    assert not missed
    everything = ear.heard()
    assert all(_in_order(everything, heard[0]["job_id"]) for _, heard in seen)
    ends = [heard[-1]["channel"] for _, heard in seen]
    assert ends == ["complete_job"] * len(delays)


def _all_ended(db: Any, jobs: list[str]) -> bool:
    return all(db.hget(f"job:{job_id}", "status") == "completed" for job_id in jobs)


async def test_a_failure_is_not_told_before_the_job_is_announced(valkey: str) -> None:
    """Also of a job that can't even be begun."""
    async with open_worker(valkey, "--workers", "mock:2", EMP_TRIO_ANNOUNCEMENT_SECONDS="2"):
        for fields in ({"payload": {"delay_ms": "soon"}}, {"ctx": "{"}):
            hear = partial(submitted_by_api, valkey, "mock", 0.02, **fields)
            heard = await trio.to_thread.run_sync(hear)
            assert saw_the_start(heard)
            assert heard[-1]["channel"] == "job_failed"


async def test_the_work_does_not_wait_for_the_announcement(valkey: str, db: Any, ear: Ear) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, announcement=30.0):
        job_id = submit(db, "t", tell=False)
        await play.until_begun()
        play.attempts[0].progress.report(50, "half")
        assert (await until_status(db, job_id, "in_progress"))["started_at"]
        assert not ear.heard("job_claimed", "update_job_progress", "worker_status")
        play.finish.set()
        await play.until_over()
        assert db.hget(f"job:{job_id}", "status") == "in_progress"
        db.publish("job_submitted", json.dumps({"job_id": job_id}))
        await until_status(db, job_id, "completed")
        said = [(c, m.get("progress")) for c, m in ear.heard() if m.get("job_id") == job_id]
        assert said[:4] == [
            ("job_submitted", None),
            ("job_claimed", None),
            ("update_job_progress", 0),
            ("update_job_progress", 1),
        ]
        assert said[-1][0] == "complete_job"


async def test_what_nobody_announces_is_told_after_the_window(valkey: str, db: Any, ear: Ear) -> None:
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}, announcement=0.05):
        await until_status(db, submit(db, "t", tell=False), "completed")
    assert [m["progress"] for _, m in ear.heard("update_job_progress")] == [0, 1, 100]


async def test_our_own_submit_waits_for_nothing(valkey: str, ear: Ear) -> None:
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}, announcement=30.0), open_queue(valkey) as queue:
        job_id = await queue.submit("t", {})
        async with queue.watch(job_id) as events:
            assert [event.kind async for event in events][-1] == "completed"


async def test_a_job_that_is_cancelled_before_it_is_announced(valkey: str, db: Any, ear: Ear) -> None:
    """The slot says that it was busy, so that busy and idle come in turn, and is free again at once."""

    async def act(job: Job, context: AttemptContext) -> JobResult:
        await first.wait()
        return DONE

    first = trio.Event()
    play = Play(act)
    async with open_machine(valkey, {"t": play}, slots=1, announcement=1.0):
        job_id = submit(db, "t", tell=False)
        await play.until_begun()
        cancel_as_api(db, job_id)
        await play.until_over()
        first.set()
        second = submit(db, "t", tell=False)
        await until_status(db, second, "completed")
        changes = [(m["new_status"], m["current_job_id"]) for _, m in ear.heard("worker_status")]
    assert changes == [("busy", job_id), ("idle", ""), ("busy", second), ("idle", "")]


async def test_a_job_that_is_handed_back_before_it_is_announced(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, slots=1, announcement=0.5, drain=0.05):
        job_id = submit(db, "t", tell=False)
        await play.until_begun()
    assert db.hget(f"job:{job_id}", "status") == "pending"
    assert db.zscore("jobs:pending", job_id)
    assert db.hget(f"job:{job_id}", "retry_count") == "0"
