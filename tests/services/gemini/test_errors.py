"""Every documented error of the API ends in its own outcome (Gemini reference A6, A7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import Refused, ServiceError
from emp_trio.failures import REASONS
from emp_trio.services.gemini.errors import describe_error, failed_interaction, interactions_unavailable

FINAL, AGAIN = False, True

INFO = "type.googleapis.com/google.rpc.ErrorInfo"
RETRY = "type.googleapis.com/google.rpc.RetryInfo"
QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"
PER_DAY = {"@type": QUOTA, "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
PER_MINUTE = {"@type": QUOTA, "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}
TOKENS = {"@type": QUOTA, "violations": [{"quotaId": "GenerateContentInputTokensPerModelPerMinute"}]}
IN_37_S = {"@type": RETRY, "retryDelay": "37s"}

CASES: list[tuple[int, str, list[dict[str, Any]], tuple[str, str, bool]]] = [
    (400, "INVALID_ARGUMENT", [], ("validation_error", "invalid_payload", FINAL)),
    (400, "OUT_OF_RANGE", [], ("validation_error", "invalid_payload", FINAL)),
    (400, "FAILED_PRECONDITION", [], ("auth_error", "account_suspended", FINAL)),
    (400, "INVALID_ARGUMENT", [{"@type": INFO, "reason": "API_KEY_INVALID"}], ("auth_error", "invalid_api_key", FINAL)),
    (400, "INVALID_ARGUMENT", [{"@type": INFO, "reason": "API_KEY_EXPIRED"}], ("auth_error", "invalid_api_key", FINAL)),
    (401, "UNAUTHENTICATED", [], ("auth_error", "invalid_api_key", FINAL)),
    (402, "FAILED_PRECONDITION", [], ("auth_error", "account_suspended", FINAL)),
    (402, "", [], ("auth_error", "account_suspended", FINAL)),
    (403, "PERMISSION_DENIED", [], ("auth_error", "insufficient_permissions", FINAL)),
    (
        403,
        "PERMISSION_DENIED",
        [{"@type": INFO, "reason": "CONSUMER_SUSPENDED"}],
        ("auth_error", "account_suspended", FINAL),
    ),
    (
        403,
        "PERMISSION_DENIED",
        [{"@type": INFO, "reason": "BILLING_DISABLED"}],
        ("auth_error", "account_suspended", FINAL),
    ),
    (404, "NOT_FOUND", [], ("validation_error", "model_not_found", FINAL)),
    (405, "", [], ("validation_error", "unsupported_operation", FINAL)),
    (408, "", [], ("timeout", "network_timeout", AGAIN)),
    (409, "ABORTED", [], ("service_error", "degraded_performance", AGAIN)),
    (413, "", [], ("validation_error", "invalid_payload", FINAL)),
    (429, "RESOURCE_EXHAUSTED", [], ("rate_limit", "requests_per_minute", AGAIN)),
    (429, "RESOURCE_EXHAUSTED", [PER_MINUTE, IN_37_S], ("rate_limit", "requests_per_minute", AGAIN)),
    (429, "RESOURCE_EXHAUSTED", [TOKENS, IN_37_S], ("rate_limit", "tokens_per_minute", AGAIN)),
    (429, "RESOURCE_EXHAUSTED", [PER_DAY, IN_37_S], ("rate_limit", "daily_quota_exceeded", FINAL)),
    (429, "RESOURCE_EXHAUSTED", [PER_MINUTE, PER_DAY], ("rate_limit", "daily_quota_exceeded", FINAL)),
    (499, "CANCELLED", [], ("service_error", "service_down", FINAL)),
    (500, "INTERNAL", [], ("service_error", "service_down", AGAIN)),
    (500, "UNKNOWN", [], ("service_error", "service_down", AGAIN)),
    (501, "UNIMPLEMENTED", [], ("validation_error", "unsupported_operation", FINAL)),
    (502, "", [], ("service_error", "service_down", AGAIN)),
    (503, "UNAVAILABLE", [], ("service_error", "service_unavailable", AGAIN)),
    (504, "DEADLINE_EXCEEDED", [], ("timeout", "processing_timeout", AGAIN)),
]


def body(status: int, word: str, details: list[dict[str, Any]], message: str = "Some words.") -> Any:
    error: dict[str, Any] = {"code": status, "message": message}
    return {"error": error | ({"status": word} if word else {}) | ({"details": details} if details else {})}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("status", "word", "details", "outcome"), CASES)
def test_table(
    status: int, word: str, details: list[dict[str, Any]], outcome: tuple[str, str, bool], listed: bool
) -> None:
    content = body(status, word, details)
    error = describe_error(status, {}, json.dumps([content] if listed else content).encode())
    assert (error.type, error.reason, error.retry) == outcome
    assert error.status == status
    assert "Some words." in error.message
    assert word in error.message
    assert error.retry_after == (37.0 if IN_37_S in details else None)


@pytest.mark.parametrize(
    ("status", "raw", "outcome"),
    [
        (502, b"<html>Bad gateway</html>", ("service_error", "service_down", AGAIN)),
        (503, b"", ("service_error", "service_unavailable", AGAIN)),
        (504, b"upstream request timeout", ("timeout", "processing_timeout", AGAIN)),
        (402, b"pay", ("auth_error", "account_suspended", FINAL)),
        (404, b"<html>That's an error.</html>", ("validation_error", "unsupported_operation", FINAL)),
        (429, b'{"error": "slow down"}', ("rate_limit", "requests_per_minute", AGAIN)),
        (400, b"[]", ("validation_error", "invalid_payload", FINAL)),
        (400, b'[{"error": {}}, {}]', ("validation_error", "invalid_payload", FINAL)),
    ],
)
def test_what_a_proxy_says_is_classified_by_its_status(status: int, raw: bytes, outcome: tuple[str, str, bool]) -> None:
    error = describe_error(status, {}, raw)
    assert (error.type, error.reason, error.retry) == outcome


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("37s", 37.0),
        ("0.5s", 0.5),
        ("0s", None),
        ("-1s", None),
        ("soon", None),
        (7, None),
        (None, None),
        ("1e9s", None),
    ],
)
def test_the_wait_that_is_stated(delay: Any, seconds: float | None) -> None:
    details = [{"@type": RETRY, "retryDelay": delay}]
    assert describe_error(429, {}, json.dumps(body(429, "RESOURCE_EXHAUSTED", details)).encode()).retry_after == seconds


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        ([{"code": "INTERNAL", "message": "m"}], ("service_error", "service_down", AGAIN)),
        ([{"code": "internal", "message": "m"}], ("service_error", "service_down", AGAIN)),
        ([{"code": 500, "message": "m"}], ("service_error", "service_down", AGAIN)),
        ([{"code": "503", "message": "m"}], ("service_error", "service_unavailable", AGAIN)),
        ([{"code": 429, "message": "m"}], ("rate_limit", "requests_per_minute", AGAIN)),
        ([{"code": "RESOURCE_EXHAUSTED", "message": "m"}], ("rate_limit", "requests_per_minute", AGAIN)),
        ([{"code": "INVALID_ARGUMENT", "message": "m"}], ("validation_error", "invalid_payload", FINAL)),
        ([{"code": 404, "message": "m"}], ("validation_error", "unsupported_operation", FINAL)),
        ([{"code": "PROHIBITED_CONTENT", "message": "m"}], ("generation_refusal", "policy_violation", FINAL)),
        ([{"code": "image_safety", "message": "m"}], ("generation_refusal", "safety_filter", FINAL)),
        ([{"code": "SOMETHING_NEW", "message": "m"}], ("service_error", "service_down", AGAIN)),
    ],
)
def test_errors_of_a_failed_interaction(errors: Any, outcome: tuple[str, str, bool]) -> None:
    error = failed_interaction(errors)
    assert (error.type, error.reason, error.retry) == outcome
    assert f"with {errors[0]['code']}: m" in error.message
    assert str(error) == error.message
    assert error.maybe_started is not isinstance(error, Refused)


@pytest.mark.parametrize("errors", [None, [], {}, [None], [{}], ["x"]])
def test_a_failed_interaction_that_says_nothing_failed_all_the_same(errors: Any) -> None:
    error = failed_interaction(errors)
    assert (error.type, error.retry, error.maybe_started) == ("service_error", True, True)
    assert "no reason given" in error.message


@pytest.mark.parametrize(
    ("status", "raw", "unavailable"),
    [
        (404, b"<html>That's an error.</html>", True),
        (404, b"", True),
        (404, json.dumps(body(404, "", [])).encode(), True),
        (404, json.dumps(body(404, "NOT_FOUND", [])).encode(), False),  # about a model: the path is there
        (405, b"", True),
        (501, json.dumps(body(501, "UNIMPLEMENTED", [])).encode(), True),
        (400, json.dumps(body(400, "UNIMPLEMENTED", [])).encode(), True),
        (400, json.dumps(body(400, "INVALID_ARGUMENT", [])).encode(), False),
        (403, json.dumps(body(403, "PERMISSION_DENIED", [])).encode(), False),
        (429, json.dumps(body(429, "RESOURCE_EXHAUSTED", [])).encode(), False),
        (500, b"", False),
        (503, b"", False),
        (504, b"", False),
    ],
)
def test_which_errors_say_that_there_are_no_interactions(status: int, raw: bytes, unavailable: bool) -> None:
    assert interactions_unavailable(describe_error(status, {}, raw)) is unavailable


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "code", "message", "status", "details", "@type", "reason"]), inner)
    ),
    max_leaves=12,
)


@given(st.integers(400, 599), JSON)
def test_no_body_breaks_it(status: int, data: Any) -> None:
    for error in (describe_error(status, {}, json.dumps(data).encode()), failed_interaction(data)):
        assert isinstance(error, ServiceError)
        assert error.reason in REASONS[error.type]
        assert len(error.message) < 1200
