"""The conformance suite finds what it is there to find: the example's connector, spoilt in one way at a time."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.errors import DeadlineExceeded, ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import HttpClient
from emp_trio.services.connector import Health
from emp_trio.testing.conformance import suite
from emp_trio.testing.png import make_png
from tests.services.conformance.test_example import TestAtelier as Conformance

import atelier  # isort: skip  # found by test_example
from atelier import AtelierConnector  # isort: skip

Run = Callable[[Any, Job, Any], Awaitable[JobResult]]

run: Run = AtelierConnector.run
run_remote_work = atelier.run_remote_work
request = HttpClient.request
image = AtelierConnector._image


async def tells_its_key(self: Any, job: Job, progress: Any) -> JobResult:
    progress.report(1, f"painting with {self.settings.api_key.reveal()}")
    return await run(self, job, progress)


async def goes_back(self: Any, job: Job, progress: Any) -> JobResult:
    progress.report(95)
    return await run(self, job, progress)


async def is_done_before_the_end(self: Any, job: Job, progress: Any) -> JobResult:
    result = await run(self, job, progress)
    progress.report(100)
    progress.report(100)
    return result


async def returns_the_file(self: Any, job: Job, progress: Any) -> JobResult:
    result = await run(self, job, progress)
    file = base64.b64encode(make_png()).decode()
    return msgspec.structs.replace(result, data=result.data | {"image": file})


async def swallows_cancelled(self: Any, job: Job, progress: Any) -> JobResult:
    try:
        return await run(self, job, progress)
    except BaseException:  # Cancelled, or a group of it
        raise ServiceError("something went wrong") from None


async def paints_before_it_looks_at_the_storage(self: Any, job: Job, progress: Any) -> JobResult:
    made = await self._paint(job.payload["prompt"], job, progress)
    asset = await self.assets.save(made.files[0].data, job, progress)
    return atelier._result(made.data, [asset])


async def hides_the_stage(self: Any, job: Job, progress: Any) -> JobResult:
    try:
        return await run(self, job, progress)
    except DeadlineExceeded:
        raise ServiceError("something took too long") from None


async def sends_the_whole_payload(self: Any, method: str, path: str, **options: Any) -> Any:
    if method == "POST":
        options["headers"] = {"x-payload": "conformance-account-key"}
    return await request(self, method, path, **options)


async def repeats_what_costs_money(self: Any, method: str, path: str, **options: Any) -> Any:
    return await request(self, method, path, **{"idempotent": True, **options})


async def waits_for_ever(self: Any, image_id: str) -> Any:
    try:
        return await image(self, image_id)
    except ServiceError:
        await trio.sleep_forever()


async def stops_nothing(job: Job, progress: Any, **how: Any) -> Any:
    async def cancel(found: str) -> None:
        await trio.lowlevel.checkpoint()

    return await run_remote_work(job, progress, **(how | {"cancel": cancel}))


async def adopts_nothing(job: Job, progress: Any, **how: Any) -> Any:
    return await run_remote_work(msgspec.structs.replace(job, checkpoint=None), progress, **how)


async def is_always_healthy(self: Any) -> Health:
    await trio.lowlevel.checkpoint()
    return Health(healthy=True)


def reads_anything(answer: Any) -> Any:
    return atelier.Image(answer["id"], answer["state"], answer.get("percent", 0))


SUCCESS = "test_a_job_succeeds"
CUT = "test_an_exchange_cut_anywhere_is_a_typed_error_or_the_right_result"


@pytest.mark.parametrize(
    ("place", "fault", "test", "says"),
    [
        ("run", tells_its_key, SUCCESS, "a secret is in the progress"),
        ("run", goes_back, SUCCESS, "progress goes back"),
        ("run", is_done_before_the_end, SUCCESS, "100 before the end"),
        ("run", returns_the_file, SUCCESS, "holds a file"),
        ("run", swallows_cancelled, "test_a_cancel_at_any_checkpoint_leaves_nothing_behind", "cancelled at step"),
        ("run", hides_the_stage, "test_the_stages_of_an_asset_end_in_time", "upload stage ended with ServiceError"),
        (
            "run",
            paints_before_it_looks_at_the_storage,
            "test_nothing_is_generated_that_could_not_be_stored",
            "before the storage was checked",
        ),
        ("request", sends_the_whole_payload, "test_the_service_does_not_see_the_credentials_of_the_storage", "sent"),
        ("request", repeats_what_costs_money, CUT, "began 2 works"),
        ("_image", waits_for_ever, CUT, "did not end within"),
        (
            "run_remote_work",
            stops_nothing,
            "test_a_cancel_stops_the_work_or_leaves_it_to_the_next_attempt",
            "work runs on",
        ),
        ("run_remote_work", stops_nothing, "test_the_service_stage_ends_in_time", "whose time is up runs on"),
        ("run_remote_work", adopts_nothing, "test_the_next_attempt_adopts_what_an_earlier_one_began", "began the work"),
        ("health", is_always_healthy, "test_health", "healthy"),
        ("read_image", reads_anything, "test_values_of_wrong_types_are_typed_errors", "not an error of"),
        ("sniff", lambda head: "image/png", "test_bad_answers_are_typed_errors", "text/html"),
    ],
)
async def test_a_spoilt_connector_is_found_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, fault: Any, test: str, says: str
) -> None:
    owner = next((owner for owner in (AtelierConnector, HttpClient) if hasattr(owner, place)), atelier)
    monkeypatch.setattr(owner, place, fault)
    monkeypatch.setattr(Conformance, "limit", 2.0)
    monkeypatch.setattr(Conformance, "wrongs", 300)
    monkeypatch.setattr(suite, "_PARTS", 1)
    call = getattr(Conformance(), test)
    which = {"stage": "upload", "part": 0}
    given = {name: which[name] for name in inspect.signature(call).parameters if name in which}
    with pytest.RaisesGroup(pytest.RaisesExc(AssertionError, match=says), allow_unwrapped=True, flatten_subgroups=True):
        await call(tmp_path, **given)
