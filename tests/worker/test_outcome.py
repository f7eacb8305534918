"""Results and errors as settlements: pure, by table and by property."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import AssetError, DeadlineExceeded, EmpTrioError, InvalidJob, NotStarted, Refused, ServiceError
from emp_trio.failures import REASONS
from emp_trio.jobs import Job, JobResult
from emp_trio.queue.settlement import Identity
from emp_trio.secrets import Redactor, Secret
from emp_trio.worker.outcome import AttemptEnd, classify, described, failed, succeeded, unreadable

WHO = Identity(worker_id="w", machine_id="m")
NOW = 1_759_600_000.0


def job(**fields: Any) -> Job:
    return Job(id="j", type="t", **fields)


def test_a_result_is_completed_with_the_time_it_took() -> None:
    settlement = succeeded(
        job(), JobResult(success=True, data={"a": 1}), WHO, redactor=Redactor(), took=1.2345, now=NOW
    )
    assert settlement.kind == "completed"
    assert b'"processing_time_ms":1234' in settlement.stored


@pytest.mark.parametrize(
    ("result", "text", "retry"),
    [
        (None, "returned NoneType instead of a JobResult", False),
        (JobResult, "instead of a JobResult", False),
        (JobResult(success=False, error="no GPU"), "no GPU", True),
        (JobResult(success=False), "without saying why", True),
        (JobResult(success=True, data={"x": object()}), "can't be written as JSON", False),
    ],
)
def test_what_is_no_result_is_an_error_of_the_connector(result: object, text: str, retry: bool) -> None:
    with pytest.raises(ServiceError, match=text) as caught:
        succeeded(job(), result, WHO, redactor=Redactor(), took=0, now=NOW)
    assert caught.value.retry is retry


@pytest.mark.parametrize(
    ("wait", "deadline", "kind"),
    [(31, None, "release"), (30, None, "retry"), (300, NOW + 301, "release"), (300, NOW + 299, "retry")],
)
def test_a_long_wait_that_a_service_asks_for_costs_no_attempt(wait: float, deadline: float | None, kind: str) -> None:
    error = ServiceError("slower", status=429, retry_after=wait)
    settlement = failed(job(deadline=deadline), error, WHO, redactor=Redactor(), now=NOW, random=0.0)
    assert settlement.kind == kind
    assert settlement.delay >= wait or kind == "retry"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ServiceError("x"), "retry"),
        (ServiceError("x", status=503), "retry"),
        (ServiceError("x", status=401), "failed"),
        (AssetError("x"), "retry"),
        (DeadlineExceeded("cdn", 3), "retry"),
        (Refused("x"), "failed"),
        (InvalidJob("x"), "failed"),
        (ValueError("x"), "retry"),
        (SystemExit(), "retry"),
        (ExceptionGroup("g", [ServiceError("x"), Refused("y")]), "failed"),
    ],
    ids=repr,
)
def test_the_class_of_an_error_decides_the_retry(error: BaseException, kind: str) -> None:
    assert failed(job(), error, WHO, redactor=Redactor(), now=NOW, random=0.5).kind == kind
    last = job(retry_count=2)
    assert failed(last, error, WHO, redactor=Redactor(), now=NOW, random=0.5).kind == "failed"


def test_after_its_deadline_a_job_is_not_tried_again() -> None:
    for deadline, kind in ((NOW + 1, "retry"), (NOW, "failed"), (NOW - 1, "failed")):
        assert (
            failed(job(deadline=deadline), ServiceError("x"), WHO, redactor=Redactor(), now=NOW, random=0).kind == kind
        )


@pytest.mark.parametrize(
    ("wait", "kept"),
    [
        (None, None),
        (0.5, 0.5),
        (90.0, 90.0),
        (1e9, 86_400.0),
        (0.0, None),
        (-1.0, None),
        (math.inf, None),
        (math.nan, None),
        ("soon", None),
    ],
)
def test_a_stated_wait_is_one_that_can_be_waited(wait: Any, kept: float | None) -> None:
    assert described(ServiceError("x", retry_after=wait), Redactor()).retry_after == kept


class Nasty(EmpTrioError):
    """Breaks wherever it is touched."""

    @property
    def failure(self) -> Any:
        raise ZeroDivisionError

    def __str__(self) -> str:
        raise ZeroDivisionError


ODD = st.one_of(st.none(), st.text(), st.binary(), st.integers(), st.floats(), st.lists(st.integers(), max_size=2))


@given(message=ODD, reason=ODD, kind=ODD, retry=ODD, wait=ODD)
def test_anything_that_is_raised_can_be_stored(message: Any, reason: Any, kind: Any, retry: Any, wait: Any) -> None:
    error = ServiceError(message, type=kind, reason=reason, retry=retry, retry_after=wait)
    for raised in (error, ValueError(message), ExceptionGroup("g", [ValueError(message), error])):
        settlement = failed(job(), raised, WHO, redactor=Redactor(), now=NOW, random=0.5)
        failure = settlement.failure
        assert failure is not None
        assert failure.type in REASONS
        assert isinstance(failure.reason, str)
        failure.message.encode()
        assert len(failure.message) < 20_000
        assert settlement.kind in ("retry", "failed")
        assert 0 <= settlement.delay <= 86_400
        assert all(isinstance(part, str | bytes) for record in settlement.records for part in record)


def test_an_error_that_cannot_even_be_shown_is_named() -> None:
    failure = described(Nasty("x"), Redactor())
    assert (failure.type, failure.reason, failure.retry) == ("system_error", "internal_error", True)
    assert "Nasty" in failure.message


def test_secrets_are_taken_out_however_long_the_text_is() -> None:
    redactor = Redactor([Secret("hidden-word")])
    text = "padding " * 3000 + "hidden-word" + " tail" * 1_000_000
    began = time.thread_time()
    message = described(ServiceError(text), redactor).message
    assert time.thread_time() - began < 1.0
    assert "hidden-word" not in message


@given(
    st.dictionaries(st.sampled_from(["retry_count", "max_retries", "workflow_id", "payload"]), st.binary(max_size=20))
)
def test_a_job_that_cannot_be_read_still_fails_for_good(fields: dict[str, bytes]) -> None:
    settlement = unreadable("j", 1, fields, InvalidJob("payload is not JSON"), WHO, redactor=Redactor(), now=NOW)
    assert settlement.kind == "failed"
    assert settlement.failure is not None
    assert settlement.failure.message == "payload is not JSON"


FINE, DEFECT = JobResult(success=True, data={"a": 1}), ValueError("a defect")


@pytest.mark.parametrize(
    ("end", "kind", "verdict", "error"),
    [
        (AttemptEnd(completed=True, returned=FINE), "completed", "good", None),
        (AttemptEnd(completed=True, returned=FINE, ending="drain"), "completed", "good", None),  # it was quicker
        (AttemptEnd(completed=True, returned=FINE, ending="cancelled"), "completed", "good", None),
        (AttemptEnd(completed=False, ending="drain"), "release", "neutral", None),
        (AttemptEnd(completed=False, ending="cancelled"), None, "neutral", None),
        (AttemptEnd(completed=False, ending="lease_lost"), None, "neutral", None),
        (AttemptEnd(completed=False, ending="lease_lost", raised=DEFECT), None, "neutral", "ValueError"),
        (AttemptEnd(completed=True, returned="text", ending="drain"), "release", "neutral", None),
        (AttemptEnd(completed=True, returned="text"), "failed", "neutral", "ServiceError"),
        (AttemptEnd(completed=False), "retry", "neutral", "RuntimeError"),  # it cancelled itself
        (AttemptEnd(completed=False, raised=DEFECT), "retry", "neutral", "ValueError"),
        (AttemptEnd(completed=True, returned=FINE, raised=DEFECT), "retry", "neutral", "ValueError"),
        (AttemptEnd(completed=False, raised=ServiceError("down", status=503)), "retry", "bad", "ServiceError"),
        (AttemptEnd(completed=False, raised=ServiceError("key", status=401)), "failed", "fatal", "ServiceError"),
        (AttemptEnd(completed=False, raised=Refused("no")), "failed", "good", "Refused"),
        (AttemptEnd(completed=False, raised=NotStarted("later", retry_after=5)), "release", "unready", "NotStarted"),
        (AttemptEnd(completed=False, raised=ExceptionGroup("", [DEFECT, Refused("no")])), "failed", "good", None),
    ],
    ids=repr,
)
def test_what_becomes_of_an_attempt(end: AttemptEnd, kind: str | None, verdict: str, error: str | None) -> None:
    found = classify(job(), end, WHO, redactor=Redactor(), now=NOW, random=0.0)
    assert (found.settlement and found.settlement.kind) == kind
    assert found.verdict == verdict
    if error is not None:
        assert type(found.error).__name__ == error
    if kind in ("failed", "retry"):
        assert found.settlement is not None
        assert found.settlement.failure is not None
        assert found.error is not None


def test_a_completed_job_says_what_it_has_reported_last() -> None:
    end = AttemptEnd(completed=True, returned=FINE, seconds=1.5, last_progress=("saved", "upload", 3))
    found = classify(job(), end, WHO, redactor=Redactor(), now=NOW, random=0.0)
    assert found.settlement is not None
    assert found.settlement.last_progress == ("saved", "upload", 3)
    assert b'"processing_time_ms":1500' in found.settlement.stored
