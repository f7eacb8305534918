"""Who observes a machine hears of every job what it asked for, and can't do any harm."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.jobs import Job
from emp_trio.worker.observer import (
    ConnectorHealthChanged,
    JobClaimed,
    JobObserver,
    JobProgressed,
    JobRequeued,
    JobSettled,
    JobStarted,
    LeaseLost,
    Observers,
    StageEnded,
)
from tests.worker.support import DONE, Play, cancel_as_api, eventually, open_machine, submit, until_status


class Everything(JobObserver):
    """Keeps all events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def job_claimed(self, event: JobClaimed) -> None:
        self.events.append(event)

    def job_started(self, event: JobStarted) -> None:
        self.events.append(event)

    def job_progressed(self, event: JobProgressed) -> None:
        self.events.append(event)

    def stage_ended(self, event: StageEnded) -> None:
        self.events.append(event)

    def job_settled(self, event: JobSettled) -> None:
        self.events.append(event)

    def job_requeued(self, event: JobRequeued) -> None:
        self.events.append(event)

    def lease_lost(self, event: LeaseLost) -> None:
        self.events.append(event)

    def connector_health_changed(self, event: ConnectorHealthChanged) -> None:
        self.events.append(event)

    def of(self, job_id: str) -> list[str]:
        """The kinds of a job's events, in their order."""
        return [type(event).__name__ for event in self.events if getattr(event, "job_id", None) == job_id]

    def last(self, kind: type[Any]) -> Any:
        return [event for event in self.events if isinstance(event, kind)][-1]


class Outcomes(JobObserver):
    """A counter by outcome: all that one takes, beside handing it to the machine."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def job_settled(self, event: JobSettled) -> None:
        self.counts[event.kind] += 1


class Broken(JobObserver):
    """Fails at everything it hears."""

    def job_settled(self, event: JobSettled) -> None:
        raise ValueError("a full disk")


def test_an_event_that_nobody_wants_is_not_made() -> None:
    observers = Observers([Outcomes(), Outcomes()])
    assert observers.job_settled is not None
    others = (
        observers.job_claimed,
        observers.job_started,
        observers.job_progressed,
        observers.stage_ended,
        observers.job_requeued,
        observers.lease_lost,
        observers.connector_health_changed,
    )
    assert set(others) == {None}


async def test_the_life_of_a_job(valkey: str, db: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> Any:
        context.report(50, "half")
        await eventually(lambda: "JobProgressed" in everything.of(job.id))
        with context.stage("upload"):
            await trio.sleep(0.01)
        return DONE

    everything, outcomes = Everything(), Outcomes()
    async with open_machine(valkey, {"t": Play(act)}, observers=[everything, outcomes]):
        job_id = submit(db, "t")
        await until_status(db, job_id, "completed")
        await eventually(lambda: outcomes.counts)
    assert everything.of(job_id) == [
        "JobClaimed",
        "JobStarted",
        "JobProgressed",
        "StageEnded",
        "StageEnded",
        "JobSettled",
    ]
    assert everything.last(JobClaimed).size > 50
    started = everything.last(JobStarted)
    assert (started.slot, started.attempt, started.job_type) == ("m1-worker-t-0", 1, "t")
    assert (started.service, started.connector) == ("t-service", "PlayConnector")
    assert everything.last(JobProgressed).value == 50
    upload, service = [event for event in everything.events if isinstance(event, StageEnded)]
    assert (upload.stage, service.stage) == ("upload", "service")
    assert upload.seconds >= 0.01
    settled = everything.last(JobSettled)
    assert (settled.kind, settled.stored, settled.failure) == ("completed", True, None)
    assert settled.seconds >= upload.seconds + service.seconds
    assert settled.size > 10
    assert everything.last(ConnectorHealthChanged).state == "healthy"
    assert outcomes.counts == {"completed": 1}


@pytest.mark.parametrize(
    ("error", "kind", "events"),
    [
        (InvalidJob("no prompt"), "failed", ["JobSettled"]),
        (ServiceError("out of order"), "retry", ["JobSettled", "JobRequeued"]),
    ],
)
async def test_a_failure_is_told_with_type_and_reason(
    valkey: str, db: Any, error: Exception, kind: str, events: list[str]
) -> None:
    async def act(job: Job, context: AttemptContext) -> Any:
        raise error

    everything = Everything()
    async with open_machine(valkey, {"t": Play(act)}, observers=[everything]):
        job_id = submit(db, "t")
        await eventually(lambda: everything.of(job_id)[-len(events) :] == events)
    settled = next(event for event in everything.events if isinstance(event, JobSettled))
    assert settled.kind == kind
    assert settled.failure is not None
    assert (settled.failure.type, settled.failure.reason) == (error.type, error.reason)  # type: ignore[attr-defined]
    assert (settled.delay > 0) is (kind == "retry")


async def test_a_cancel_and_a_lost_lease_are_told(valkey: str, db: Any) -> None:
    everything, play = Everything(), Play()
    async with open_machine(valkey, {"t": play}, observers=[everything]) as machine:
        job_id = submit(db, "t")
        await play.until_begun()
        await until_status(db, job_id, "in_progress")
        cancel_as_api(db, job_id)
        await play.until_over()
        assert everything.last(LeaseLost).cause == "cancel_heard"
        other = submit(db, "t")
        await play.until_begun(2)
        await until_status(db, other, "in_progress")
        db.hset(f"job:{other}", "lease_token", "somebody/2")
        machine.leases.renew_now()
        await play.until_over(2)
        assert everything.last(LeaseLost).cause == "lost"


async def test_a_job_of_a_dead_machine_is_told_of_by_who_puts_it_back(valkey: str, db: Any) -> None:
    everything = Everything()
    async with open_machine(valkey, {"t": Play()}, observers=[everything]):
        db.hset("job:old", mapping={"id": "old", "service_required": "other", "status": "in_progress", "attempt": "1"})
        db.hset("job:old", mapping={"lease_token": "w/n/1", "lease_worker": "w", "worker_id": "w", "payload": "{}"})
        db.zadd("emp:leases", {"old": 1.0})
        await eventually(lambda: everything.of("old"))
    assert everything.last(JobRequeued).cause == "lease_expired"


async def test_an_observer_that_fails_stops_nothing(valkey: str, db: Any) -> None:
    outcomes, play = Outcomes(), Play()
    play.finish.set()
    with structlog.testing.capture_logs() as logs:
        async with open_machine(valkey, {"t": play}, observers=[Broken(), outcomes]):
            job_id = submit(db, "t")
            await until_status(db, job_id, "completed")
            await eventually(lambda: outcomes.counts["completed"] == 1)
    failed = [line for line in logs if line["event"] == "observer.failed"]
    assert [(line["observer"], line["method"]) for line in failed] == [("Broken", "job_settled")]
