"""Starting and stopping again and again leaves no task, no socket, no key; and a machine is quick at both."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio
import trio.testing

from emp_trio.worker.wakeup import Wakeup, first_of
from tests.worker.support import HEAVY, Play, eventually, open_machine, submit, until_status


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_ten_lives_leave_nothing_behind(valkey: str, db: Any, busy: bool) -> None:
    async with open_machine(valkey, {"t": Play()}):  # what is made once: caches, the signal wake-up socket
        pass
    clients = len(db.client_list())
    files, tasks = open_files(), trio.lowlevel.current_statistics().tasks_living
    for _ in range(50 if HEAVY else 10):
        play = Play()
        async with open_machine(valkey, {"t": play, "u": Play()}, slots=4, drain=0.0):
            if busy:
                job_id = submit(db, "t")
                await play.until_begun()
        if busy:
            assert db.hget(f"job:{job_id}", "status") == "pending"
            db.delete("jobs:pending", f"job:{job_id}")
    assert open_files() <= files
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    await eventually(lambda: len(db.client_list()) <= clients)
    kept = {"function", "progress:", "job:"}
    assert [key for key in db.keys("*") if not any(key.startswith(k) for k in kept)] == []


async def test_a_stop_in_any_moment_of_the_start_is_a_clean_one(valkey: str, db: Any) -> None:
    for moment in range(40 if HEAVY else 12):
        with trio.move_on_after(moment * 0.004):
            async with open_machine(valkey, {"t": Play()}):
                await trio.sleep_forever()
    await eventually(lambda: not db.keys("worker:*"))
    assert db.scard("workers:active") == 0


async def test_five_hundred_slots_start_work_and_stop(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, slots=500, lease=15.0, renew_every=1.0, beat_every=5.0):
        assert db.scard("workers:active") == 500
        pipe = db.pipeline()
        jobs = [submit(pipe, "t", tell=False) for _ in range(500)]
        pipe.execute()
        await play.until_begun(500)
        play.finish.set()
        for job_id in jobs:
            await until_status(db, job_id, "completed")
    assert db.scard("workers:active") == 0
    assert {a.job.id for a in play.attempts} == set(jobs)


async def test_a_job_of_twenty_megabytes_passes_through(valkey: str, db: Any) -> None:
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}, lease=15.0, renew_every=2.0):
        big = submit(db, "t", {"image": "A" * 20_000_000})
        small = submit(db, "t")
        await until_status(db, big, "completed")
        await until_status(db, small, "completed")
    assert db.strlen(next(iter(db.keys(f"worker:completion:step-id:{big}:*")))) < 10_000


async def test_a_payload_beyond_all_bounds_fails_the_job_alone(valkey: str, db: Any) -> None:
    db.config_set("proto-max-bulk-len", "512mb")
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}, lease=15.0, renew_every=2.0):
        big = submit(db, "t", {"image": "A" * 65 * 2**20})
        job = await until_status(db, big, "failed")
        await until_status(db, submit(db, "t"), "completed")
    assert "larger than 64 MiB" in job["error"]


async def test_a_signal_wakes_once_for_all_sets_and_loses_none() -> None:
    signal_ = Wakeup()
    signal_.set()
    signal_.set()
    assert await signal_.wait(5) is True
    assert await signal_.wait(0.01) is False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(signal_.wait, 5)
        await trio.testing.wait_all_tasks_blocked()
        signal_.set()


async def test_first_of_ends_with_the_first_and_cancels_the_others() -> None:
    event = trio.Event()
    with trio.fail_after(60):
        await first_of(event.wait, trio.lowlevel.checkpoint)
    assert not event.is_set()
