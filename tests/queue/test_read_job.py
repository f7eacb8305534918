"""A job's hash as a value: what the fleet writes is read, what can't be read is named (queue protocol 1.3, 4.5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.queue.job_hash import MAX_PAYLOAD_BYTES, read_job
from emp_trio.secrets import Secret
from tests.queue.support import OLD_FIELDS

MINIMAL = {"service_required": b"comfyui"}


def test_job_with_every_field() -> None:
    ctx = {
        "storage": {"provider": "azure", "bucket": "b", "accountKey": "secret-key"},
        "prefix": "p/",
        "workflow_context": {"retry_attempt": "6"},
    }
    job = read_job(
        "j",
        2,
        {
            "id": b"j",
            "service_required": b"openai_image",
            "priority": b"70",
            "payload": '{"prompt":"é"}'.encode(),
            "requirements": b'{"hardware":{"ram_gb":1}}',
            "customer_id": b"c",
            "created_at": b"2025-10-04T19:38:45.123Z",
            "status": b"pending",
            "retry_count": b"1",
            "max_retries": b"5",
            "workflow_id": b"wf",
            "workflow_priority": b"60",
            "workflow_datetime": b"1759606725123",
            "current_step": b"1",
            "total_steps": b"3",
            "ctx": json.dumps(ctx).encode(),
            "checkpoint": b'{"response":"resp_1"}',
            "deadline": b"1759606999500",
        },
    )
    assert (job.id, job.type, job.attempt, job.priority) == ("j", "openai_image", 2, 70)
    assert job.payload == {"prompt": "é"}
    assert job.requirements == {"hardware": {"ram_gb": 1}}
    assert (job.retry_count, job.max_attempts, job.last_attempt) == (1, 5, False)
    assert (job.customer_id, job.created_at) == ("c", "2025-10-04T19:38:45.123Z")
    assert (job.workflow_id, job.workflow_priority, job.workflow_datetime) == ("wf", 60, 1759606725123)
    assert (job.current_step, job.total_steps) == (1, 3)
    assert (job.ctx.provider, job.ctx.bucket, job.ctx.prefix, job.ctx.workflow_attempt) == ("azure", "b", "p/", 6)
    assert job.ctx.account_key == Secret("secret-key")
    assert job.checkpoint == {"response": "resp_1"}
    assert job.deadline == 1759606999.5


def test_the_empty_text_is_unset_as_the_api_writes_it() -> None:
    empty = dict.fromkeys([*OLD_FIELDS, "payload", "priority", "retry_count", "max_retries", "created_at"], b"")
    assert read_job("j", 1, MINIMAL | empty) == read_job("j", 1, MINIMAL)
    job = read_job("j", 1, MINIMAL)
    assert (job.payload, job.requirements, job.ctx, job.workflow_id, job.deadline) == (
        {},
        None,
        JobContext(),
        None,
        None,
    )
    assert (job.priority, job.retry_count, job.max_attempts) == (50, 0, 3)


@pytest.mark.parametrize(
    ("fields", "reason", "says"),
    [
        ({"service_required": b""}, "missing_required_field", "service_required is missing"),
        ({"service_required": b"\xff"}, "invalid_format", "service_required is not UTF-8"),
        ({"payload": b"{bad"}, "invalid_format", "payload is not valid JSON"),
        ({"payload": b'{"a":1'}, "invalid_format", "payload is not valid JSON"),
        ({"payload": b"\xff\xfe"}, "invalid_format", "payload is not valid JSON"),
        ({"payload": b'{"a":"\xff"}'}, "invalid_format", "payload is not valid JSON"),
        ({"payload": b"{'a': 1}"}, "invalid_format", "payload is not valid JSON"),
        ({"payload": b'{"a":NaN}'}, "invalid_format", "payload is not valid JSON"),
        ({"payload": b'{"a":' * 100_000}, "invalid_format", "payload is not valid JSON"),
        ({"payload": b"x" * (MAX_PAYLOAD_BYTES + 1)}, "invalid_payload", "larger than 64 MiB"),
        ({"ctx": b"{bad"}, "invalid_format", "ctx is not valid JSON"),
        ({"requirements": b"{bad"}, "invalid_format", "requirements is not valid JSON"),
        ({"requirements": b"[1]"}, "invalid_format", "requirements must be a JSON object, not "),
        ({"checkpoint": b"{bad"}, "invalid_format", "checkpoint is not valid JSON"),
        ({"checkpoint": b"[1]"}, "invalid_format", "checkpoint must be a JSON object, not a list"),
        ({"workflow_id": b"\xff"}, "invalid_format", "workflow_id is not UTF-8"),
    ],
)
def test_field_that_cannot_be_read_is_named(fields: dict[str, bytes], reason: str, says: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        read_job("the-id", 1, MINIMAL | fields)
    error = caught.value
    assert (error.reason, error.retry) == (reason, False)
    assert error.message.startswith("job the-id: ")
    assert says in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize("value", [[1, 2], [], "text", "", 5, 0, False])
def test_a_payload_and_a_ctx_that_are_no_objects_are_kept_for_those_who_can_live_with_them(value: Any) -> None:
    """The fleet's workers take them: whose connector reads no field of them is not hurt."""
    encoded = json.dumps(value).encode()
    job = read_job("j", 1, MINIMAL | {"payload": encoded, "ctx": encoded})
    assert (job.payload, job.bare_payload, job.sent_payload) == ({}, value, value)
    assert job.ctx.unusable is not None
    assert job.ctx.unusable.startswith("ctx must be a JSON object, not ")
    assert job.ctx.workflow_attempt == 0


def test_null_is_unset() -> None:
    job = read_job("j", 1, MINIMAL | {"payload": b"null", "ctx": b"null", "requirements": b"{}"})
    assert (job.payload, job.bare_payload, job.ctx) == ({}, None, JobContext())


def test_no_service_at_all() -> None:
    with pytest.raises(InvalidJob, match="service_required is missing"):
        read_job("j", 1, {})


def test_older_name_of_the_job_type() -> None:
    assert read_job("j", 1, {"job_type": b"mock"}).type == "mock"


def test_empty_list_of_requirements_is_none() -> None:
    assert read_job("j", 1, MINIMAL | {"requirements": b"[]"}).requirements is None


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("max_retries", b"0", "max_attempts", 3),
        ("max_retries", b"-4", "max_attempts", 1),
        ("max_retries", b"abc", "max_attempts", 3),
        ("max_retries", b"nan", "max_attempts", 3),
        ("max_retries", b"inf", "max_attempts", 3),
        ("max_retries", b"2.0", "max_attempts", 2),
        ("retry_count", b"x", "retry_count", 0),
        ("retry_count", b"2.9", "retry_count", 2),
        ("priority", b"high", "priority", 50),
        ("workflow_datetime", b"1e400", "workflow_datetime", None),
        ("current_step", b"one", "current_step", None),
        ("deadline", b"soon", "deadline", None),
    ],
)
def test_number_that_is_none_counts_as_unset(field: str, value: bytes, attribute: str, expected: Any) -> None:
    assert getattr(read_job("j", 1, MINIMAL | {field: value}), attribute) == expected


def test_fields_of_others_are_ignored() -> None:
    job = read_job("j", 1, MINIMAL | {"error": b"\xff", "x": b"{bad", "lease_token": b"t/1"})
    assert job == read_job("j", 1, MINIMAL)


NAMES = [*OLD_FIELDS, "service_required", "payload", "priority", "retry_count", "max_retries", "checkpoint", "deadline"]


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode))))
def test_any_hash_is_read_or_refused_with_the_one_error(fields: dict[str, bytes]) -> None:
    try:
        job = read_job("j", 1, fields)
    except InvalidJob:
        return
    assert isinstance(job.payload, dict)
    assert job.max_attempts >= 1
