"""Each error knows its failure class, in the words of the fleet, and whether another attempt makes sense."""

from __future__ import annotations

import typing

import pytest

from emp_trio.errors import (
    AssetError,
    ConfigError,
    DeadlineExceeded,
    EmpTrioError,
    InputUnavailable,
    InvalidJob,
    LeaseLost,
    NotSent,
    OutcomeUnknown,
    Problem,
    QueueError,
    Refused,
    ServerRefused,
    ServiceError,
    failure_of,
)
from emp_trio.failures import REASONS, FailureType, classify_status
from emp_trio.nursery import leading_error

EVERY = [
    (EmpTrioError("x"), "system_error", "internal_error", True),
    (ConfigError("x"), "system_error", "config_error", False),
    (QueueError("x"), "service_error", "service_unavailable", True),
    (NotSent("x"), "service_error", "service_unavailable", True),
    (OutcomeUnknown("x"), "service_error", "service_unavailable", True),
    (ServerRefused("x", code="OOM"), "service_error", "service_unavailable", True),
    (LeaseLost("x"), "service_error", "service_unavailable", True),
    (InvalidJob("x"), "validation_error", "invalid_payload", False),
    (InputUnavailable("x"), "network_error", "connection_failed", True),
    (ServiceError("x"), "service_error", "service_down", True),
    (ServiceError("x", status=429, retry_after=3.0), "rate_limit", "requests_per_minute", True),
    (ServiceError("x", status=401), "auth_error", "invalid_api_key", False),
    (ServiceError("x", status=401, retry=True), "auth_error", "invalid_api_key", True),
    (ServiceError("x", status=500, type="timeout", reason="job_timeout"), "timeout", "job_timeout", True),
    (Refused("x"), "generation_refusal", "policy_violation", False),
    (Refused("x", reason="nsfw_content", status=500), "generation_refusal", "nsfw_content", False),
    (AssetError("x"), "service_error", "service_unavailable", True),
    (DeadlineExceeded("cdn", 60.0), "timeout", "processing_timeout", True),
    (MemoryError(), "resource_limit", "out_of_memory", True),
    (ValueError("x"), "system_error", "internal_error", True),
]


@pytest.mark.parametrize(("error", "type_", "reason", "retry"), EVERY, ids=lambda value: repr(value)[:40])
def test_the_class_of_every_error(error: BaseException, type_: FailureType, reason: str, retry: bool) -> None:
    failure = failure_of(error)
    assert (failure.type, failure.reason, failure.retry) == (type_, reason, retry)
    assert reason in REASONS[type_]
    assert failure.message


def test_the_vocabulary_is_that_of_the_fleet() -> None:
    assert set(REASONS) == set(typing.get_args(FailureType))
    assert (len(REASONS), len(frozenset().union(*REASONS.values()))) == (10, 46)  # two types share network_timeout


@pytest.mark.parametrize("status", range(300, 600))
def test_any_status_has_a_class_of_the_vocabulary(status: int) -> None:
    type_, reason, retry = classify_status(status)
    assert reason in REASONS[type_]
    assert retry == (status < 400 or status >= 500 or status in (408, 409, 423, 425, 429)) or status == 501


def test_a_late_stage_is_named() -> None:
    assert str(DeadlineExceeded("upload", 120.0)) == "the upload stage did not finish within its 120 s"
    assert str(DeadlineExceeded("cdn", 60.0, "the CDN answered 404")).endswith("60 s: the CDN answered 404")


def test_a_configuration_shows_all_its_problems() -> None:
    problem = Problem(path="$.workers.x", column=3, message="is missing", hint="did you mean y?")
    assert str(problem) == "$.workers.x column 3: is missing (did you mean y?)"
    assert str(ConfigError("wrong:", problems=[problem, problem])) == f"wrong:\n  {problem}\n  {problem}"


@pytest.mark.parametrize(
    ("errors", "leads"),
    [
        ([ValueError("a"), InvalidJob("b"), NotSent("c")], "b"),  # ours that forbids a retry
        ([ValueError("a"), NotSent("c")], "c"),  # then any of ours
        ([KeyboardInterrupt("k"), ValueError("a")], "a"),  # then whatever is an error at all
        ([ValueError("a"), KeyError("b")], "a"),  # then the first
        ([ExceptionGroup("inner", [ValueError("a"), Refused("r")]), NotSent("c")], "r"),
    ],
)
def test_one_error_stands_for_a_group(errors: list[BaseException], leads: str) -> None:
    assert leading_error(BaseExceptionGroup("outer", errors)).args == (leads,)
