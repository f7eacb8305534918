"""Supervisors: a connector that fails to open, falters, lies or crashes costs its own service and nobody else's."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import structlog.testing
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ConfigError, ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.mapping import Plan, ServicePlan, WorkerPlan
from emp_trio.mapping.schema import Service
from emp_trio.services.connector import Connector, Health
from tests.worker.support import Play, eventually, open_machine, submit, until_status


def opening_with(*errors: BaseException | None) -> Any:
    """An ``opening`` that raises each error in turn, then works; ``opened`` counts."""
    turns = iter(errors)

    @asynccontextmanager
    async def opening(self: Connector) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        error = next(turns, None)
        if error is not None:
            raise error
        yield

    return opening


class Panic(BaseException):
    """As libraries in other languages raise it."""


@pytest.mark.parametrize(
    "error",
    [
        ServiceError("no socket"),
        ConfigError("no key"),
        ValueError("a defect"),
        SystemExit(1),
        Panic("rust"),
        BaseExceptionGroup("several", [Panic("a"), ValueError("b")]),
    ],
    ids=repr,
)
async def test_a_connector_that_does_not_open_at_first_is_opened_again(
    valkey: str, db: Any, error: BaseException
) -> None:
    late, other = Play(opening=opening_with(error, error)), Play()
    late.finish.set()
    other.finish.set()
    async with open_machine(valkey, {"late": late, "other": other}, health_retry=0.05) as machine:
        job_id = submit(db, "late")
        await until_status(db, submit(db, "other"), "completed")
        await until_status(db, job_id, "completed")
        assert machine.supervisors["late-service"].usable
    assert len(late.attempts) == 1
    assert db.hget(f"job:{job_id}", "retry_count") == "0"


async def test_what_is_wrong_with_a_service_is_told_in_one_line(valkey: str, db: Any) -> None:
    secret = "sk-0123456789abcdef"
    group = ExceptionGroup("several", [ValueError("x"), ServiceError(f"refused {secret}")])
    with structlog.testing.capture_logs() as logs:
        async with open_machine(valkey, {"t": Play(opening=opening_with(group))}) as machine:
            await eventually(lambda: machine.supervisors["t-service"].usable)
    crash = next(line for line in logs if line["event"] == "connector.crashed")
    assert (crash["service"], crash["error"]) == ("t-service", "refused sk-***")
    statuses = [line for line in logs if line["event"] == "connector.unhealthy"]
    assert statuses[0]["detail"] == "refused sk-***"


@pytest.mark.parametrize(
    "said",
    [
        *(None, True, "fine", ValueError("a defect"), ServiceError("down")),
        *(Health(healthy=None), Health(healthy=False, detail=5)),  # type: ignore[arg-type]
    ],
    ids=repr,
)
async def test_a_health_check_that_fails_or_lies_closes_nothing(valkey: str, db: Any, said: Any) -> None:
    """A running job is not torn down because the check of its service has a defect; no new one is claimed."""
    answers = itertools.chain([Health(healthy=True)], itertools.repeat(said))

    async def health(self: Connector) -> Health:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    opened: list[int] = []

    @asynccontextmanager
    async def opening(self: Connector) -> AsyncIterator[None]:
        opened.append(1)
        yield

    play = Play(health=health, opening=opening)
    async with open_machine(valkey, {"t": play}, health_every=0.2, health_retry=0.02) as machine:
        job_id = submit(db, "t")
        await play.until_begun()
        await eventually(lambda: not machine.supervisors["t-service"].usable)
        waiting = submit(db, "t")
        await trio.sleep(0.1)
        assert opened == [1]
        play.finish.set()
        await until_status(db, job_id, "completed")
        assert db.hget(f"job:{waiting}", "status") == "pending"


async def test_no_secret_is_told_with_the_health_of_a_service(valkey: str, db: Any) -> None:
    async def health(self: Connector) -> Health:
        return Health(healthy=False, detail="GET https://user:hidden-word@host/ says no to machine-key")

    async with open_machine(valkey, {"t": Play(health=health)}, secrets=("machine-key",), beat_every=0.05):
        told = await eventually(lambda: db.hget("worker:m1-worker-t-0", "connector_statuses"))
    assert '"status":"inactive"' in told
    assert "hidden-word" not in told
    assert "machine-key" not in told


async def test_a_health_check_that_hangs_counts_as_unhealthy(valkey: str, db: Any) -> None:
    async def health(self: Connector) -> Health:
        await trio.sleep_forever()
        raise AssertionError

    async with open_machine(valkey, {"t": Play(health=health)}, health_timeout=0.05) as machine:
        supervisor = machine.supervisors["t-service"]
        await supervisor.checked.wait()
        assert "no answer to the health check within 0.05 s" in supervisor.health.detail


async def test_a_service_that_flaps_gets_jobs_while_it_is_up(valkey: str, db: Any) -> None:
    turns = itertools.cycle([True, False])

    async def health(self: Connector) -> Health:
        return Health(healthy=next(turns), detail="flapping")

    play = Play(health=health)
    play.finish.set()
    async with open_machine(valkey, {"t": play}, health_every=0.05, health_retry=0.05):
        jobs = [submit(db, "t") for _ in range(20)]
        for job_id in jobs:
            job = await until_status(db, job_id, "completed")
            assert job["retry_count"] == "0"


async def test_a_failure_that_tells_of_the_service_leads_to_a_look_at_it(valkey: str, db: Any) -> None:
    looks: list[float] = []

    async def health(self: Connector) -> Health:
        looks.append(trio.current_time())
        return Health(healthy=len(looks) < 2, detail="gone")

    async def act(job: Job, context: AttemptContext) -> JobResult:
        raise ServiceError("refused", type="network_error", reason="connection_failed")

    async with open_machine(valkey, {"t": Play(act, health=health)}, health_every=60.0) as machine:
        submit(db, "t")
        await eventually(lambda: not machine.supervisors["t-service"].usable)
        assert len(looks) >= 2


@pytest.mark.parametrize("said", [None, "abc", [1, 2], {"a": 1}, ValueError("x")], ids=repr)
async def test_models_that_are_no_list_of_names_do_no_harm(valkey: str, db: Any, said: Any) -> None:
    async def models(self: Connector) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    play = Play(models=models)
    play.finish.set()
    async with open_machine(valkey, {"t": play}):
        await until_status(db, submit(db, "t"), "completed")


async def test_a_service_that_lists_a_key_as_a_model_does_not_bring_it_into_redis(valkey: str, db: Any) -> None:
    async def models(self: Connector) -> list[str]:
        return ["a", "model of Kq7Wm2Xv9Lp4Kt8Rb3Ny"]

    play = Play(models=models)
    async with open_machine(valkey, {"t": play}, secrets=("Kq7Wm2Xv9Lp4Kt8Rb3Ny",)):
        play.finish.set()
        await until_status(db, submit(db, "t", requirements={"models": ["a"]}), "completed")
        assert '"a","model of ***"' in db.hget("worker:m1-worker-t-0", "capabilities")


async def test_models_are_found_by_job_type_and_by_service_type(valkey: str, db: Any) -> None:
    async def models(self: Connector) -> list[str]:
        return ["a", "b"]

    play = Play(models=models, service_type="image_generation")
    play.finish.set()
    async with open_machine(valkey, {"t": play}):
        await until_status(db, submit(db, "t", requirements={"models": ["b"]}), "completed")
        missing = submit(db, "t", requirements={"models": ["c"]})
        assert '"image_generation":["a","b"]' in db.hget("worker:m1-worker-t-0", "capabilities")
        await until_status(db, submit(db, "t"), "completed")
        assert db.hget(f"job:{missing}", "status") == "pending"


async def test_a_connector_that_crashes_while_it_watches_is_opened_anew(valkey: str, db: Any) -> None:
    """Its resources break under it: jobs that come meanwhile wait, and use no attempt."""
    broken = trio.Event()
    lives: list[int] = []

    @asynccontextmanager
    async def opening(self: Connector) -> AsyncIterator[None]:
        lives.append(1)
        async with trio.open_nursery() as nursery:
            if len(lives) == 1:
                nursery.start_soon(_break, broken)
            yield
            nursery.cancel_scope.cancel()

    play = Play(opening=opening)
    play.finish.set()
    async with open_machine(valkey, {"t": play}, health_retry=0.2, health_every=60.0) as machine:
        await until_status(db, submit(db, "t"), "completed")
        broken.set()
        await eventually(lambda: machine.supervisors["t-service"].connector is None)
        job_id = submit(db, "t")
        job = await until_status(db, job_id, "completed")
    assert job["retry_count"] == "0"
    assert len(lives) == 2


async def _break(broken: trio.Event) -> None:
    await broken.wait()
    raise ServiceError("the socket broke")


async def test_a_claim_that_meets_a_closed_connector_is_handed_back(valkey: str, db: Any) -> None:
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}) as machine:
        supervisor = machine.supervisors["t-service"]
        kept, supervisor.connector = supervisor.connector, None
        machine.availability.claim_argument = lambda lane: b'{"job_service_required_map":["t"]}'
        job_id = submit(db, "t")
        await eventually(lambda: db.zscore("emp:delayed", job_id))
        supervisor.connector = kept
        job = await until_status(db, job_id, "completed")
    assert job["retry_count"] == "0"


async def test_each_slot_keeps_to_its_own_instance_of_the_service(valkey: str, db: Any) -> None:
    """One plan, two lanes: a job runs at the instance of the slot that has it, and none at an instance that is down."""
    plays = {number: Play() for number in range(2)}
    services = [
        ServicePlan(
            worker_service="gpu",
            connector_name="Gpu",
            connector=play.connector,
            settings=play.connector.Settings(),
            entry=Service(connector="Gpu"),
            instance=number,
        )
        for number, play in plays.items()
    ]
    lanes = tuple(
        WorkerPlan(name="render", numbers=(n, n + 2), is_gpu_bound=True, routes={"t": services[n]}, lane=n)
        for n in range(2)
    )
    plan = Plan(workers=lanes, services={service.key: service for service in services})
    async with open_machine(valkey, {}, plan=plan) as machine:
        jobs = [submit(db, "t") for _ in range(4)]
        for play in plays.values():
            await play.until_begun(2)
        for number, play in plays.items():
            ran = {db.hget(f"job:{attempt.job.id}", "worker_id") for attempt in play.attempts}
            assert ran == {f"m1-worker-render-{number}", f"m1-worker-render-{number + 2}"}
        assert sorted(machine.supervisors) == ["gpu#0", "gpu#1"]
        for play in plays.values():
            play.finish.set()
        for job_id in jobs:
            await until_status(db, job_id, "completed")
