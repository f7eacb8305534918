"""Outcomes as values: records, stored values and messages of the fleet (queue protocol 1.4, 1.8, 2.4, 2.5)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio import __version__
from emp_trio.errors import ServiceError
from emp_trio.failures import Failure
from emp_trio.jobs import Job, JobContext, JobResult
from emp_trio.queue.messages import cancelled_job, iso
from emp_trio.queue.settlement import MAX_RESULT_BYTES, Identity, completed, failed, released
from emp_trio.secrets import Redactor, Secret

NOW = 1759606725.1239
WHO = Identity(worker_id="w1", machine_id="m1")
PLAIN = Job(id="j", type="mock")
FLOW = Job(
    id="step-9",
    type="mock",
    workflow_id="wf",
    workflow_priority=60,
    workflow_datetime=1759606725123,
    current_step=1,
    total_steps=3,
)
FAILURE = Failure(type="service_error", reason="service_down", message="it broke", retry=True)
RESULT = JobResult(success=True, data={"image_url": "https://cdn/x.png"}, raw_request_payload={"prompt": "p"})


def record_of(records: tuple[tuple[str, bytes], ...], key: str) -> Any:
    return json.loads(dict(records)[key])


def test_completed() -> None:
    settlement = completed(PLAIN, RESULT, WHO, now=NOW)
    result = json.loads(msgspec.json.encode(RESULT))
    at = "2025-10-04T19:38:45.123Z"
    assert (settlement.kind, settlement.retry_count, settlement.failure) == ("completed", 0, None)
    assert json.loads(settlement.stored) == {"success": True, "data": result, "completed_at": at}
    assert json.loads(settlement.message) == {
        "job_id": "j",
        "worker_id": "w1",
        "progress": 100,
        "status": "completed",
        "message": "Job completed successfully",
        "result": result,
        "timestamp": 1759606725123,
    }
    record = record_of(settlement.records, "worker:completion:step-id:j:attempt:1")
    assert json.loads(record.pop("result")) == result  # JSON text in JSON
    assert json.loads(record.pop("raw_service_output")) == result
    assert json.loads(record.pop("raw_service_request")) == {"prompt": "p"}
    assert record == {
        "job_id": "j",
        "worker_id": "w1",
        "status": "completed",
        "completed_at": at,
        "retry_count": 0,
        "workflow_id": None,
        "current_step": None,
        "total_steps": None,
        "machine_id": "m1",
        "worker_version": __version__,
        "attestation_created_at": 1759606725123,
    }


def test_completed_in_a_workflow() -> None:
    settlement = completed(FLOW, JobResult(success=True), WHO, now=NOW)
    message = json.loads(settlement.message)
    assert {k: v for k, v in message.items() if "workflow" in k or "step" in k} == {
        "workflow_id": "wf",
        "workflow_priority": 60,
        "workflow_datetime": 1759606725123,
        "current_step": 1,
        "total_steps": 3,
    }
    record = record_of(settlement.records, "worker:completion:job-id:wf:step-id:9:attempt:1")
    assert (record["job_id"], record["workflow_id"]) == ("step-9", "wf")
    assert (record["current_step"], record["total_steps"], record["raw_service_request"]) == ("1", "3", None)


@pytest.mark.parametrize(
    ("job", "rerun"),
    [
        (Job(id="a", type="t", retry_count=2), 2),
        (Job(id="a", type="t", retry_count=2, ctx=JobContext(workflow_attempt=6)), 6),
        (Job(id="a", type="t"), 0),
    ],
)
def test_completion_record_is_numbered_by_the_workflows_retry_then_the_queues(job: Job, rerun: int) -> None:
    settlement = completed(job, RESULT, WHO, now=NOW)
    assert record_of(settlement.records, f"worker:completion:step-id:a:attempt:{rerun + 1}")["retry_count"] == rerun


@pytest.mark.parametrize(
    ("job_id", "step"), [("step-1", "1"), ("step-step-1", "step-1"), ("my-step-1", "my-step-1"), ("step", "step")]
)
def test_one_step_prefix_is_left_out_of_keys(job_id: str, step: str) -> None:
    job = Job(id=job_id, type="t")
    assert completed(job, RESULT, WHO, now=NOW).records[0][0] == f"worker:completion:step-id:{step}:attempt:1"
    retried = failed(job, FAILURE, WHO, now=NOW, random=0)
    assert retried.records[0][0] == f"worker:failure:step-id:{step}:attempt:1"


@pytest.mark.parametrize(
    ("retry", "done", "attempts", "again"),
    [
        (True, 0, 3, True),
        (True, 1, 3, True),
        (True, 2, 3, False),  # three attempts in total, queue protocol 4.7
        (True, 7, 3, False),
        (True, 0, 1, False),
        (False, 0, 3, False),
    ],
)
def test_retry_or_end(retry: bool, done: int, attempts: int, again: bool) -> None:
    job = Job(id="j", type="t", retry_count=done, max_attempts=attempts)
    settlement = failed(job, msgspec.structs.replace(FAILURE, retry=retry), WHO, now=NOW, random=0.5)
    assert settlement.kind == ("retry" if again else "failed")
    assert settlement.retry_count == done + 1
    assert (settlement.delay > 0) is again
    assert (settlement.message == b"") is again
    assert len(settlement.records) == (1 if again else 2)


def test_retry_waits_as_the_service_asked() -> None:
    failure = msgspec.structs.replace(FAILURE, retry_after=17.5)
    assert failed(PLAIN, failure, WHO, now=NOW, random=0.5).delay == 17.5


def failure_record(**changes: Any) -> dict[str, Any]:
    return {
        "attestation_type": "failure_permanent",
        "job_id": "j",
        "worker_id": "w1",
        "status": "failed_permanent",
        "failed_at": iso(NOW),
        "error_message": "it broke",
        "failure_type": "service_error",
        "failure_reason": "service_down",
        "failure_description": "it broke",
        "raw_service_output": None,
        "raw_service_request": None,
        "retry_count": 3,
        "will_retry": False,
        "max_retries": 3,
        "workflow_id": None,
        "current_step": None,
        "total_steps": None,
        "workflow_impact": None,
        "machine_id": "m1",
        "worker_version": __version__,
        "attestation_created_at": 1759606725123,
        **changes,
    }


def test_permanent_failure() -> None:
    job = msgspec.structs.replace(PLAIN, retry_count=2)
    settlement = failed(job, FAILURE, WHO, now=NOW, random=0)
    assert dict(settlement.records).keys() == {"worker:failure:step-id:j:permanent", "worker:completion:step-id:j"}
    for key, _ in settlement.records:
        assert record_of(settlement.records, key) == failure_record()
    assert json.loads(settlement.stored) == {"error": "it broke", "failed_at": iso(NOW), "retry_count": 3}
    assert json.loads(settlement.message) == {
        "job_id": "j",
        "worker_id": "w1",
        "status": "failed",
        "error": "it broke",
        "failed_at": iso(NOW),
        "retry_count": 3,
        "can_retry": False,
        "timestamp": 1759606725123,
    }


@pytest.mark.parametrize("again", [True, False])
def test_failure_in_a_workflow(again: bool) -> None:
    job = msgspec.structs.replace(FLOW, retry_count=0 if again else 2)
    settlement = failed(job, FAILURE, WHO, now=NOW, random=0)
    end = "attempt:1" if again else "permanent"
    keys = {f"worker:failure:job-id:wf:step-id:9:{end}", f"workflow:failure:wf:{end}"}
    assert dict(settlement.records).keys() == keys | (set() if again else {"worker:completion:job-id:wf:step-id:9"})
    expected = failure_record(
        job_id="step-9",
        workflow_id="wf",
        current_step="1",
        total_steps="3",
        workflow_impact="workflow_interrupted" if again else "workflow_terminated",
    )
    if again:
        expected |= {"attestation_type": "failure_retry", "status": "failed_retrying", "retry_count": 1}
        expected["will_retry"] = True
    assert record_of(settlement.records, f"worker:failure:job-id:wf:step-id:9:{end}") == expected
    assert record_of(settlement.records, f"workflow:failure:wf:{end}") == expected | {
        "workflow_attestation_type": "job_failure",
        "failed_job_id": "step-9",
        "workflow_status": expected["status"],
    }


def test_release_says_nothing() -> None:
    settlement = released(delay=2)
    assert (settlement.kind, settlement.delay, settlement.records, settlement.message) == ("release", 2, (), b"")


def everything(settlement: Any) -> str:
    return repr(msgspec.structs.asdict(settlement))


@pytest.mark.parametrize("place", ["data", "metadata", "service_metadata", "raw_request_payload"])
def test_no_file_bytes_and_no_secrets_wherever_a_connector_puts_them(place: str) -> None:
    key, own = "storage+key/of==the-job", "sk-of-the-machine"
    job = Job(id="j", type="t", ctx=JobContext(account_key=Secret(key)))
    result = JobResult(success=True, **{place: {"file": ["QUJD" * 2000], "key": f"{key} {own}"}})
    said = everything(completed(job, result, WHO, now=NOW, redactor=Redactor([Secret(own)])))
    assert "QUJD" * 30 not in said
    assert key not in said
    assert own not in said


@pytest.mark.parametrize(
    "result",
    [
        JobResult(success=True, data={"x": object()}),
        JobResult(success=True, data={"x": "\ud800"}),
        JobResult(success=True, data={(1, 2): 3}),
        JobResult(success=True, raw_request_payload=object()),
        JobResult(success=True, data={"x": "many words " * (MAX_RESULT_BYTES // 10)}),
    ],
)
def test_result_that_cannot_be_stored_is_the_connectors_failure(result: JobResult) -> None:
    with pytest.raises(ServiceError, match="the connector's result") as caught:
        completed(PLAIN, result, WHO, now=NOW)
    assert (caught.value.retry, caught.value.type) == (False, "response_error")


def test_a_large_result_is_stored_without_the_raw_answer() -> None:
    """It is paid for; what is only there for debugging is not worth a failed job."""
    text = "many words " * (MAX_RESULT_BYTES // 20)
    data = {"text": text, "raw_output": {"words": [text]}}
    result = JobResult(success=True, data=data, metadata={"raw_service_output": text}, raw_request_payload={"p": 1})
    settlement = completed(PLAIN, result, WHO, now=NOW)
    stored = json.loads(settlement.stored)["data"]
    assert stored["data"]["text"] == text
    assert "left out" in stored["data"]["raw_output"]
    assert "left out" in stored["metadata"]["raw_service_output"]
    [(_, record)] = settlement.records
    assert len(record) < 2 * MAX_RESULT_BYTES


@given(st.text() | st.text().map(lambda t: t * 5000) | st.text().map(lambda t: t + "QUJD" * 5000))
def test_any_error_text_can_be_stored(message: str) -> None:
    failure = msgspec.structs.replace(FAILURE, message="\udc80" + message, retry=False)
    settlement = failed(FLOW, failure, WHO, now=NOW, random=0)
    assert settlement.failure is not None
    stored = settlement.failure.message
    assert len(stored.encode()) < 20_000
    assert "QUJD" * 30 not in stored
    assert json.loads(settlement.message)["error"] == stored
    assert {json.loads(r)["error_message"] for _, r in settlement.records} == {stored}


@pytest.mark.parametrize(
    ("message", "job_id"),
    [
        (b'{"job_id":"j","worker_id":"w","reason":"r","timestamp":1}', "j"),
        (b'{"job_id":5}', None),
        (b"[]", None),
        (b"{bad", None),
        (b"\xff", None),
        (b'{"job_id":"\xff"}', None),
        (b"[" * 100_000, None),
    ],
)
def test_cancel_messages(message: bytes, job_id: str | None) -> None:
    assert cancelled_job(message) == job_id


@pytest.mark.parametrize("secret", ["1024", "success", "true", "0240"])
def test_a_secret_that_looks_like_json_leaves_the_result_valid(secret: str) -> None:
    result = JobResult(success=True, data={"size": 10240, "success": secret, "note": f"key {secret}!"})
    settled = completed(Job(id="j", type="t"), result, WHO, now=1.0, redactor=Redactor([Secret(secret)]))
    data = json.loads(settled.message)["result"]["data"]
    assert data == {"size": 10240, "success": "***", "note": "key ***!"}


def test_a_small_file_that_the_job_asked_for_stays_in_the_result_and_nowhere_else() -> None:
    url = "data:image/png;base64," + "A" * 8000
    result = JobResult(success=True, data={"image_url": url, "echo": url}, metadata={"raw": url})
    settlement = completed(PLAIN, result, WHO, now=NOW)
    assert settlement.stored.count(b"A" * 8000) == 1
    assert json.loads(settlement.stored)["data"]["data"]["image_url"] == url
    assert all(b"A" * 8000 not in value for _, value in settlement.records)
