"""The circuit: a service that fails job after job is left alone for a while, and found again by one job."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.attempt import AttemptContext
from emp_trio.errors import AssetError, DeadlineExceeded, EmpTrioError, InvalidJob, Refused, ServiceError, failure_of
from emp_trio.jobs import Job
from emp_trio.worker.circuit import Circuit, Verdict, verdict
from tests.worker.support import DONE, Play, eventually, open_machine, submit, until_status


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Refused("not that"), "good"),
        (ServiceError("down", status=503), "bad"),
        (ServiceError("no route", type="network_error"), "bad"),
        (ServiceError("hangs", type="timeout"), "bad"),
        (DeadlineExceeded("service", 5), "bad"),
        (DeadlineExceeded("upload", 5), "neutral"),
        (ServiceError("who are you", status=401), "fatal"),
        (ServiceError("no credit", type="rate_limit", reason="daily_quota_exceeded", retry=False), "fatal"),
        (ServiceError("slower", status=429), "neutral"),
        (ServiceError("bad size", status=400), "neutral"),
        (ServiceError("half an image", type="response_error"), "neutral"),
        (AssetError("the store is down"), "neutral"),
        (InvalidJob("no prompt"), "neutral"),
        (EmpTrioError("a defect"), "neutral"),
        (ValueError("a defect"), "neutral"),
    ],
    ids=repr,
)
def test_what_an_error_says_about_the_service(error: BaseException, said: Verdict) -> None:
    assert verdict(error, failure_of(error)) == said


ENDS = st.lists(st.tuples(st.sampled_from(["good", "bad", "fatal", "neutral"]), st.integers(0, 40)), max_size=60)


@given(ends=ENDS)
def test_one_job_at_a_time_goes_through_a_circuit_that_is_not_closed(ends: list[tuple[Verdict, int]]) -> None:
    circuit, now, paused = Circuit(3, 10.0, 35.0), 0.0, 0.0
    for said, later in ends:
        now += later
        was_open = circuit.until is not None
        began = circuit.begin(now)
        assert began or was_open
        if began and was_open:
            assert not circuit.admits(now), "a second job beside the probe"
        if not began:
            continue
        circuit.end(said, now, began=now)
        if said == "good":
            assert circuit.admits(now)
            paused = 0.0
        elif was_open and said in ("bad", "fatal"):
            assert circuit.until is not None
            assert circuit.until - now <= 35.0
            assert circuit.until - now >= min(35.0, paused)
        elif said == "fatal":
            assert circuit.until == now + 10.0
        if circuit.until is not None and not was_open:
            paused = 10.0


def test_so_many_bad_ends_in_a_row_open_it() -> None:
    circuit = Circuit(3, 10.0, 60.0)
    for said in ("bad", "bad", "good", "bad", "bad"):
        circuit.end(said, 0.0, began=0.0)
    assert circuit.admits(0.0)
    circuit.end("bad", 1.0, began=0.0)
    assert not circuit.admits(10.9)
    assert circuit.admits(11.0)


@pytest.mark.parametrize("said", ["good", "neutral", "bad", "fatal"])
def test_jobs_from_before_it_opened_do_not_decide(said: Verdict) -> None:
    circuit = Circuit(3, 10.0, 60.0)
    circuit.end("fatal", 1.0, began=0.5)
    circuit.end(said, 2.0, began=0.0)
    assert circuit.until == 11.0
    assert circuit.begin(12.0)
    circuit.end(said, 13.0, began=0.0)
    assert not circuit.begin(14.0), "a second job beside the probe"
    circuit.end("good", 15.0, began=12.0)
    assert circuit.until is None


class Faulty:
    """A service that fails until it is told to work."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.calls = 0
        self.held: trio.Event | None = None

    async def act(self, job: Job, context: AttemptContext) -> Any:
        self.calls += 1
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        return DONE


async def test_a_service_that_fails_every_job_gets_no_more_until_one_succeeds(valkey: str, db: Any) -> None:
    service = Faulty(ServiceError("out of order", type="service_error", retry=False))
    settings: dict[str, Any] = {"circuit_failures": 2, "circuit_pause": 0.6, "health_retry": 0.05}
    async with open_machine(valkey, {"t": Play(service.act)}, slots=4, **settings) as machine:
        supervisor = machine.supervisors["t-service"]
        for _ in range(2):
            await until_status(db, submit(db, "t"), "failed")
        await eventually(lambda: not supervisor.usable)
        assert "out of order" in supervisor.status()["error_message"]
        assert service.calls == 2
        service.error, service.held = None, trio.Event()
        waiting = [submit(db, "t") for _ in range(4)]
        await eventually(lambda: service.calls == 3)
        await eventually(lambda: sum(db.hget(f"job:{j}", "status") == "pending" for j in waiting) == 3)
        assert service.calls == 3, "one job is the probe, and no second one begins"
        service.held.set()
        for job_id in waiting:
            await until_status(db, job_id, "completed")
            assert db.hget(f"job:{job_id}", "retry_count") == "0"


async def test_exhausted_credit_stops_the_service_at_once(valkey: str, db: Any) -> None:
    service = Faulty(ServiceError("no credit", type="rate_limit", reason="daily_quota_exceeded", retry=False))
    async with open_machine(valkey, {"t": Play(service.act)}, circuit_pause=30.0) as machine:
        await until_status(db, submit(db, "t"), "failed")
        await eventually(lambda: not machine.supervisors["t-service"].usable)
        waiting = submit(db, "t")
        other = machine.availability.claim_argument("t")
        assert other is None
        assert db.hget(f"job:{waiting}", "status") == "pending"
        assert service.calls == 1


async def test_the_end_of_an_older_job_brings_no_credit_back(valkey: str, db: Any) -> None:
    service = Faulty(ServiceError("no credit", type="rate_limit", reason="daily_quota_exceeded", retry=False))
    paid, running = trio.Event(), trio.Event()

    async def act(job: Job, context: AttemptContext) -> Any:
        if not running.is_set():
            running.set()
            await paid.wait()
            return DONE
        return await service.act(job, context)

    async with open_machine(valkey, {"t": Play(act)}, slots=2, circuit_pause=30.0) as machine:
        older = submit(db, "t")
        await running.wait()
        await until_status(db, submit(db, "t"), "failed")
        paid.set()
        await until_status(db, older, "completed")
        assert not machine.supervisors["t-service"].usable
        assert db.hget(f"job:{submit(db, 't')}", "status") == "pending"
        assert service.calls == 1


async def test_refused_jobs_open_nothing(valkey: str, db: Any) -> None:
    service = Faulty(Refused("not that"))
    async with open_machine(valkey, {"t": Play(service.act)}, circuit_failures=1) as machine:
        for _ in range(3):
            await until_status(db, submit(db, "t"), "failed")
        assert machine.supervisors["t-service"].usable
