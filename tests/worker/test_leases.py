"""A lease is the right to finish: who loses it stops at once, and who stops renewing can't settle any more."""

from __future__ import annotations

import time
from typing import Any

import trio

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from emp_trio.testing.proxy import open_proxy
from tests.queue.support import Ear
from tests.worker.support import DONE, LIMIT, Play, eventually, open_machine, submit, until_status


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def test_a_lease_of_another_holder_stops_the_work_at_once_and_nothing_is_settled(
    valkey: str, db: Any, ear: Ear
) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, lease=15.0, renew_every=0.2):
        job_id = submit(db, "t")
        attempt = await play.until_begun()
        await until_status(db, job_id, "in_progress")
        db.hset(f"job:{job_id}", mapping={"lease_token": "other/9", "lease_worker": "w9", "worker_id": "w9"})
        taken = trio.current_time()
        await play.until_over()
        assert attempt.cancelled
        assert trio.current_time() - taken < 10  # a renewal period, not the rest of the lease
        assert attempt.stop_remote_work is False  # the other holder may adopt the upstream work
        await until_idle(db, "m1-worker-t-0")
        job = db.hgetall(f"job:{job_id}")
    assert (job["lease_token"], job["status"], job["retry_count"]) == ("other/9", "in_progress", "0")
    assert ear.heard("complete_job", "job_failed") == []


async def test_a_result_of_a_stale_holder_changes_nothing(valkey: str, db: Any, ear: Ear) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, lease=15.0, renew_every=5.0):
        job_id = submit(db, "t")
        await play.until_begun()
        await until_status(db, job_id, "in_progress")
        db.hset(f"job:{job_id}", mapping={"lease_token": "other/9", "lease_worker": "w9", "worker_id": "w9"})
        before = db.hgetall(f"job:{job_id}")
        ear.heard()
        play.finish.set()
        await play.until_over()
        await eventually(lambda: any(m["new_status"] == "idle" for _, m in ear.heard("worker_status")))
        assert db.hgetall(f"job:{job_id}") == before
    assert ear.heard("complete_job", "job_failed") == []
    assert db.exists("jobs:completed", "jobs:failed") == 0


async def test_a_job_that_vanished_is_stopped(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}):
        job_id = submit(db, "t")
        await play.until_begun()
        await until_status(db, job_id, "in_progress")
        db.delete(f"job:{job_id}")
        await play.until_over()
        await until_idle(db, "m1-worker-t-0")
    assert db.exists(f"job:{job_id}") == 0


async def until_idle(db: Any, worker: str) -> None:
    await eventually(lambda: db.hget(f"worker:{worker}", "status") == "idle")


async def test_a_partition_stops_the_work_before_the_lease_can_be_given_away(valkey: str, db: Any) -> None:
    """The machine is cut off without a word; the job goes to another machine, never to both at once."""
    here, there = Play(), Play()
    async with open_proxy(port_of(valkey)) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        quick = {"reply_timeout": 1.0, "longest_pause": 0.1}
        async with open_machine(url, {"t": here}, machine_id="here", redis_settings=quick) as machine:
            job_id = submit(db, "t")
            cut_off = await here.until_begun()
            await until_status(db, job_id, "in_progress")
            proxy.blackhole = True
            async with open_machine(valkey, {"t": there}, machine_id="there"):
                adopted = await there.until_begun()
                assert cut_off.ended is not None
                assert cut_off.ended < adopted.began
                assert cut_off.stop_remote_work is False
                assert (adopted.job.attempt, adopted.job.retry_count) == (2, 0)
                there.finish.set()
                await until_status(db, job_id, "completed")
            proxy.blackhole = False
            proxy.reset_all()
            here.finish.set()
            with trio.fail_after(LIMIT):
                second = submit(db, "t")
                await until_status(db, second, "completed")  # it has recovered
            await eventually(lambda: len(machine.leases) == 0)
    assert db.hget(f"job:{job_id}", "crashes") == "1"


async def test_local_work_ends_before_the_servers_own_idea_of_the_lease(valkey: str, db: Any) -> None:
    play = Play()
    async with open_proxy(port_of(valkey)) as proxy:
        quick = {"reply_timeout": 1.0, "longest_pause": 0.1}
        url = f"redis://127.0.0.1:{proxy.port}"
        async with open_machine(url, {"t": play}, redis_settings=quick, reap_every=60.0, lease=9.0, lease_margin=6.0):
            job_id = submit(db, "t")
            await play.until_begun()
            await until_status(db, job_id, "in_progress")
            proxy.blackhole = True
            await play.until_over()
            left = float(db.zscore("emp:leases", job_id)) / 1000 - time.time()
            assert 0 < left < 7.0  # the server counts from when a renewal came, the worker from when it was sent
            proxy.blackhole = False
            proxy.reset_all()


async def test_an_outcome_in_hand_outlives_an_outage_longer_than_its_lease(valkey: str, db: Any, ear: Ear) -> None:
    """What was paid for is stored when Redis is back, although another machine, and its reaper, was back before."""
    play = Play()
    quick = {"longest_pause": 0.05}
    async with open_proxy(port_of(valkey)) as ours, open_proxy(port_of(valkey)) as theirs:
        url, other = (f"redis://127.0.0.1:{proxy.port}" for proxy in (ours, theirs))
        async with (
            open_machine(url, {"t": play}, redis_settings=quick, lease=1.0, renew_every=0.3),
            open_machine(other, {"u": Play()}, machine_id="m2", redis_settings=quick, renew_every=1.0, reap_every=0.05),
        ):
            job_id = submit(db, "t")
            await play.until_begun()
            await until_status(db, job_id, "in_progress")
            for proxy in (ours, theirs):
                proxy.refuse = True
                proxy.reset_all()
            play.finish.set()
            await play.until_over()
            await eventually(lambda: float(db.zscore("emp:leases", job_id)) / 1000 < time.time() - 0.1)
            theirs.refuse = False
            await eventually(lambda: theirs.connections)
            await trio.sleep(0.3)  # time in which their reaper would have looked six times
            ours.refuse = False
            job = await until_status(db, job_id, "completed")
    assert (job["retry_count"], job.get("crashes"), job["attempt"]) == ("0", None, "1")
    assert len(ear.heard("complete_job")) == 1


async def test_a_job_put_back_and_claimed_again_here_runs_once(valkey: str, db: Any) -> None:
    """An API put the job back behind our back, and our other slot takes it: the first attempt ends."""
    play = Play()
    async with open_machine(valkey, {"t": play}, renew_every=30.0, lease=60.0):
        job_id = submit(db, "t")
        first = await play.until_begun()
        await until_status(db, job_id, "in_progress")
        db.hset(f"job:{job_id}", mapping={"status": "pending", "worker_id": ""})
        db.zadd("jobs:pending", {job_id: 1})
        second = await play.until_begun(2)
        await play.until_over(1)
        assert first.cancelled
        assert second.ended is None
        play.finish.set()
        job = await until_status(db, job_id, "completed")
    assert job["attempt"] == "2"


async def test_a_connector_that_never_ends_keeps_neither_its_job_nor_other_slots(valkey: str, db: Any) -> None:
    """Told to stop by its deadline it goes on behind a shield: its lease runs out and another machine does the job."""
    freedom = trio.Event()

    async def act(job: Job, context: AttemptContext) -> JobResult:
        if job.payload.get("hang"):
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await freedom.wait()
        return DONE

    here, there = Play(act), Play()
    there.finish.set()
    quick: dict[str, Any] = {"lease": 0.8, "renew_every": 0.2, "lease_margin": 0.15, "reap_every": 0.2}
    async with open_machine(valkey, {"t": here}, machine_id="here", job_timeout=0.3, cleanup=0.2, **quick):
        job_id = submit(db, "t", {"hang": True})
        await here.until_begun()
        await until_status(db, submit(db, "t"), "completed")
        async with open_machine(valkey, {"t": there}, machine_id="there", slots=3, **quick):
            # both may claim it again; "here" has one slot left that can hang too
            await eventually(lambda: db.hget(f"job:{job_id}", "status") in ("completed", "failed"))
        assert int(db.hget(f"job:{job_id}", "crashes")) >= 1
        freedom.set()
    assert db.zcard("emp:leases") == 0
