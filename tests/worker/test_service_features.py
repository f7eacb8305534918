"""What a service can't do is said, and changes what the worker says and does."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
import trio

from emp_trio.services.connector import Connector, Health, ServiceFeatures
from tests.worker.support import Play, cancel_as_api, eventually, open_machine, submit, until_status

ALL = ServiceFeatures(job_status=True, cancellation=True, queue_introspection=True)


def events(logged: list[Any]) -> list[str]:
    return [entry["event"] for entry in logged]


@pytest.mark.parametrize(
    ("service_features", "said"),
    [(ServiceFeatures(), True), (ServiceFeatures(cancellation=True), False)],
    ids=["cannot", "can"],
)
async def test_a_cancel_that_does_not_reach_the_service_is_told(
    valkey: str, db: Any, service_features: ServiceFeatures, said: bool
) -> None:
    play = Play(service_features=service_features)
    with structlog.testing.capture_logs() as logged:
        async with open_machine(valkey, {"t": play}):
            job_id = submit(db, "t")
            await play.until_begun()
            await until_status(db, job_id, "in_progress")
            cancel_as_api(db, job_id)
            await eventually(lambda: "job.stopped" in events(logged))
    assert ("job.not_stopped_upstream" in events(logged)) is said


@pytest.mark.parametrize(("service_features", "said"), [(ServiceFeatures(), True), (ALL, False)], ids=["cannot", "can"])
@pytest.mark.parametrize("crashes", ["0", "1"])
async def test_a_crash_that_makes_work_begin_anew_is_told(
    valkey: str, db: Any, service_features: ServiceFeatures, said: bool, crashes: str
) -> None:
    play = Play(service_features=service_features)
    play.finish.set()
    with structlog.testing.capture_logs() as logged:
        async with open_machine(valkey, {"t": play}):
            job_id = submit(db, "t", crashes=crashes)
            await until_status(db, job_id, "completed")
    assert ("job.begun_anew" in events(logged)) is (said and crashes == "1")


async def test_the_settings_may_decide_what_a_service_can_do(valkey: str, db: Any) -> None:
    """A service that these settings leave without a health check is taken for healthy."""

    async def health(_: Connector) -> Health:
        return Health(healthy=False, detail="never asked")

    play = Play(health=health, features=classmethod(lambda cls, settings: ServiceFeatures(health_check=False)))
    play.finish.set()
    async with open_machine(valkey, {"t": play}):
        with trio.fail_after(60):
            await until_status(db, submit(db, "t"), "completed")


def test_what_a_service_lacks_is_said_with_what_follows() -> None:
    assert ALL.lacks() == {}
    assert ServiceFeatures(health_check=False).lacks().keys() == {
        "health_check",
        "job_status",
        "cancellation",
        "queue_introspection",
    }
    assert "paid for, anew" in json.dumps(ServiceFeatures().lacks())
