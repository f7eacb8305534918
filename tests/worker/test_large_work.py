"""Large foreign data is worked on beside the loop, small data where it is: nobody waits for another's megabytes."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.assets.content import decode_text
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.offload import characters, off_loop, weight
from emp_trio.queue import job_hash
from emp_trio.queue.sanitiser import sanitised_text
from emp_trio.queue.settlement import Identity, completed
from emp_trio.secrets import Secret, held
from emp_trio.services.redaction import kept_copy, redacted
from emp_trio.sizes import LARGE, slices

WHO = Identity(worker_id="w", machine_id="m")
KEY = "kJ7-x_Qw9ZpLm3Rt5Vb8Nc2Df4Gh6JsAqW1eRtYu0oP"


@pytest.mark.parametrize(("size", "in_thread"), [(0, False), (LARGE, False), (LARGE + 1, True)])
async def test_only_large_work_goes_into_a_thread(size: int, in_thread: bool) -> None:
    assert (await off_loop(size, threading.get_ident) != threading.get_ident()) is in_thread


async def test_small_work_is_no_checkpoint() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await off_loop(10, len, "abc") == 3  # a checkpoint would end it here
    assert not scope.cancelled_caught


async def test_the_loop_goes_on_beside_large_work() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        go_on.wait()
        return "done"

    found: list[str] = []

    async def run() -> None:
        found.append(await off_loop(LARGE + 1, work))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.to_thread.run_sync(begun.wait)
        for _ in range(20):  # twenty small jobs
            await off_loop(100, len, "small")
            await trio.lowlevel.checkpoint()
        assert not found
        go_on.set()
    assert found == ["done"]


@pytest.mark.parametrize(
    ("value", "large"),
    [
        ("x" * LARGE + "x", True),
        ({"a": {"b": ["x" * 200_000, "y" * 200_000]}}, True),
        ({"x" * (LARGE + 1): 1}, True),
        (list(range(20_000)), True),
        (JobResult(success=True, data={"text": "x" * (LARGE + 1)}), True),
        ({"prompt": "a lighthouse", "n": [1] * 100}, False),
        (JobResult(success=True, data={"text": "x"}), False),
        (None, False),
    ],
    ids=str,
)
def test_what_is_large(value: Any, large: bool) -> None:
    assert (weight(value) > LARGE) is large


async def test_a_large_payload_is_read_and_copied_outside_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    real: Callable[..., Any] = msgspec.json.decode
    monkeypatch.setattr(
        job_hash.msgspec.json, "decode", lambda *a, **k: (threads.append(threading.get_ident()), real(*a, **k))[1]
    )
    fields = {"service_required": b"t", "payload": msgspec.json.encode({"prompt": "word " * LARGE})}
    job = await off_loop(sum(map(len, fields.values())), job_hash.read_job, "j", 1, fields)
    assert threads
    assert threading.get_ident() not in threads
    assert await kept_copy(job.payload) == redacted(job.payload) == job.payload


def test_what_is_cut_into_pieces_is_what_it_would_be_in_one() -> None:
    data = bytes(range(256)) * 5000
    text = base64.b64encode(data).decode()
    folded = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for form in (text, folded, f"data:image/png;base64,{text}", folded + "\n"):
        assert decode_text(form)[1] == data
    for broken in (text[:-2], text + "A", "=" + text, text[:400_000] + "=" + text[400_000:], text + "!"):
        with pytest.raises(ServiceError, match="base64"):
            decode_text(broken)
    for before in (0, 1, LARGE - 50, LARGE - 1, LARGE, LARGE + 99, 2 * LARGE):
        for run in (99, 100, 5000, LARGE, 2 * LARGE + 7):
            long = "- " * (before // 2) + "A" * run + "==" + " tail " * 50_000
            shown = (
                "- " * (before // 2) + ("[BASE64_DATA_REMOVED]" if run >= 100 else "A" * run + "==") + " tail " * 50_000
            )
            assert sanitised_text(long) == shown
    assert [stop - start for start, stop in slices(2 * LARGE + 1)] == [LARGE, LARGE, 1]


def test_a_large_result_loses_its_files_and_secrets_and_is_refused_where_it_stays_too_large() -> None:
    job = Job(id="j", type="t")
    files = {"raw_output": {"b64": "QUJD" * 2_000_000}, "text": f"a lighthouse {KEY} " * 5000, "n": (1, "x")}
    with held(Secret(KEY)):
        settlement = completed(job, JobResult(success=True, data=files, raw_request_payload={"p": KEY}), WHO, now=1.0)
    said = settlement.message + settlement.stored + b"".join(record for _, record in settlement.records)
    assert KEY.encode() not in said
    assert len(said) < 2_000_000
    assert b"a lighthouse ***" in said
    with pytest.raises(ServiceError, match="characters; at most"):
        completed(job, JobResult(success=True, data={"text": "word " * 1_000_000}), WHO, now=1.0)
    kept = completed(
        job,
        JobResult(success=True, data={"text": "kept"}, raw_request_payload={"p": "word " * 1_000_000}),
        WHO,
        now=1.0,
    )
    assert b"left out" in kept.message
    assert characters(JobResult(success=True, data={"ab": ["cd", {"e": "f"}]})) >= 6


async def test_a_cancel_waits_for_the_thread_and_goes_on() -> None:
    done = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await off_loop(LARGE + 1, partial(done.append, 1))
    assert scope.cancelled_caught
