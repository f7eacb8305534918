"""What a service can't do is said, and changes what the worker says and does."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
import trio

from emp_trio.services.connector import Abilities, Connector, Health
from tests.worker.support import Play, cancel_as_api, eventually, open_machine, submit, until_status

ALL = Abilities(job_status=True, cancellation=True, queue_introspection=True)


def events(logged: list[Any]) -> list[str]:
    return [entry["event"] for entry in logged]


@pytest.mark.parametrize(
    ("abilities", "said"), [(Abilities(), True), (Abilities(cancellation=True), False)], ids=["cannot", "can"]
)
async def test_a_cancel_that_does_not_reach_the_service_is_told(
    valkey: str, db: Any, abilities: Abilities, said: bool
) -> None:
    play = Play(abilities=abilities)
    with structlog.testing.capture_logs() as logged:
        async with open_machine(valkey, {"t": play}):
            job_id = submit(db, "t")
            await play.until_begun()
            await until_status(db, job_id, "in_progress")
            cancel_as_api(db, job_id)
            await eventually(lambda: "job.stopped" in events(logged))
    assert ("job.not_stopped_upstream" in events(logged)) is said


@pytest.mark.parametrize(("abilities", "said"), [(Abilities(), True), (ALL, False)], ids=["cannot", "can"])
@pytest.mark.parametrize("crashes", ["0", "1"])
async def test_a_crash_that_makes_work_begin_anew_is_told(
    valkey: str, db: Any, abilities: Abilities, said: bool, crashes: str
) -> None:
    play = Play(abilities=abilities)
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

    play = Play(health=health, offers=classmethod(lambda cls, settings: Abilities(health_check=False)))
    play.finish.set()
    async with open_machine(valkey, {"t": play}):
        with trio.fail_after(60):
            await until_status(db, submit(db, "t"), "completed")


def test_what_a_service_lacks_is_said_with_what_follows() -> None:
    assert ALL.lacks() == {}
    assert Abilities(health_check=False).lacks().keys() == {
        "health_check",
        "job_status",
        "cancellation",
        "queue_introspection",
    }
    assert "paid for, anew" in json.dumps(Abilities().lacks())
