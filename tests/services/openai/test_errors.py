"""Every documented error of the API ends in its own outcome (OpenAI reference 3, 4.4, 12)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import Refused, ServiceError
from emp_trio.failures import REASONS
from emp_trio.services.openai.errors import describe_error, failed_response

FINAL, AGAIN = False, True


def described(status: int, headers: dict[str, str] | None = None, **error: Any) -> ServiceError:
    return describe_error(
        status, headers or {}, json.dumps({"error": {"message": "m", "param": None} | error}).encode()
    )


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [
        (
            400,
            {"type": "invalid_request_error", "code": "invalid_value"},
            ("validation_error", "invalid_payload", FINAL),
        ),
        (400, {"code": "invalid_value", "param": "size"}, ("validation_error", "invalid_payload", FINAL)),
        (400, {"code": "unsupported_parameter"}, ("validation_error", "unsupported_operation", FINAL)),
        (400, {"code": "context_length_exceeded"}, ("validation_error", "invalid_payload", FINAL)),
        (400, {"code": "invalid_image_file"}, ("validation_error", "invalid_format", FINAL)),
        (400, {"code": "missing_required_parameter"}, ("validation_error", "missing_required_field", FINAL)),
        (400, {"code": "moderation_blocked"}, ("generation_refusal", "safety_filter", FINAL)),
        (400, {"code": "content_policy_violation"}, ("generation_refusal", "policy_violation", FINAL)),
        (
            400,
            {"type": "image_generation_user_error", "code": "invalid_value", "param": "model"},
            ("validation_error", "model_not_found", FINAL),
        ),
        (
            400,
            {"type": "image_generation_user_error", "code": "invalid_value", "param": "size"},
            ("validation_error", "invalid_payload", FINAL),
        ),
        (401, {"code": "invalid_api_key"}, ("auth_error", "invalid_api_key", FINAL)),
        (401, {"code": None}, ("auth_error", "invalid_api_key", FINAL)),
        (403, {"code": "unsupported_country_region_territory"}, ("auth_error", "insufficient_permissions", FINAL)),
        (404, {"code": "model_not_found"}, ("validation_error", "model_not_found", FINAL)),
        (
            404,
            {"message": "Response with id 'resp_1' not found."},
            ("validation_error", "unsupported_operation", FINAL),
        ),
        (408, {}, ("timeout", "network_timeout", AGAIN)),
        (409, {"code": "conversation_locked"}, ("service_error", "degraded_performance", AGAIN)),
        (413, {}, ("validation_error", "invalid_payload", FINAL)),
        (422, {}, ("validation_error", "invalid_payload", FINAL)),
        (429, {"code": "rate_limit_exceeded"}, ("rate_limit", "requests_per_minute", AGAIN)),
        (429, {"code": "slow_down", "type": "rate_limit_error"}, ("rate_limit", "requests_per_minute", AGAIN)),
        (429, {"type": "insufficient_quota", "code": None}, ("rate_limit", "daily_quota_exceeded", FINAL)),
        (429, {"code": "insufficient_quota"}, ("rate_limit", "daily_quota_exceeded", FINAL)),
        (429, {"code": "credit_balance_exhausted"}, ("rate_limit", "daily_quota_exceeded", FINAL)),
        (429, {"code": "organization_spend_limit_exceeded"}, ("rate_limit", "daily_quota_exceeded", FINAL)),
        (429, {"code": "project_spend_limit_exceeded"}, ("rate_limit", "daily_quota_exceeded", FINAL)),
        (429, {"code": "organization_usage_limit_exceeded"}, ("rate_limit", "daily_quota_exceeded", FINAL)),
        (429, {"code": "billing_hard_limit_reached"}, ("rate_limit", "daily_quota_exceeded", FINAL)),
        (500, {"code": "server_error"}, ("service_error", "service_down", AGAIN)),
        (502, {}, ("service_error", "service_down", AGAIN)),
        (503, {"code": "server_is_overloaded"}, ("service_error", "service_unavailable", AGAIN)),
        (503, {"code": "slow_down"}, ("service_error", "service_unavailable", AGAIN)),
        (529, {}, ("service_error", "service_down", AGAIN)),
        (400, {"code": 1234}, ("validation_error", "invalid_payload", FINAL)),
        (400, {"code": "brand_new_code"}, ("validation_error", "invalid_payload", FINAL)),
    ],
)
def test_http_errors(status: int, error: dict[str, Any], outcome: tuple[str, str, bool]) -> None:
    found = described(status, **error)
    assert (found.type, found.reason, found.retry) == outcome
    assert isinstance(found, Refused) == (outcome[0] == "generation_refusal")
    assert found.status == status


@pytest.mark.parametrize(
    ("categories", "reason"),
    [
        (["sexual"], "nsfw_content"),
        (["sexual/minors", "violence"], "nsfw_content"),
        (["violence/graphic"], "violence_detected"),
        (["hate"], "hate_speech"),
        (["self-harm"], "safety_filter"),
        ([], "safety_filter"),
        ("violence", "safety_filter"),
        ([None, 7], "safety_filter"),
    ],
)
def test_moderation_gives_the_reason(categories: Any, reason: str) -> None:
    details = {"moderation_stage": "input", "categories": categories}
    assert described(400, code="moderation_blocked", moderation_details=details).reason == reason


@pytest.mark.parametrize(
    ("status", "code", "told", "retry"),
    [
        (400, "invalid_value", "true", AGAIN),
        (500, "server_error", "false", FINAL),
        (429, "rate_limit_exceeded", "false", FINAL),
        (500, "server_error", "perhaps", AGAIN),
        (429, "insufficient_quota", "true", FINAL),
        (400, "moderation_blocked", "true", FINAL),
    ],
)
def test_x_should_retry_decides_but_never_against_billing_or_a_refusal(
    status: int, code: str, told: str, retry: bool
) -> None:
    assert described(status, {"x-should-retry": told}, code=code).retry is retry


def test_an_exhausted_token_window_is_told_from_a_request_window() -> None:
    headers = {"x-ratelimit-remaining-tokens": "0"}
    assert described(429, headers, code="rate_limit_exceeded").reason == "tokens_per_minute"


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (502, b"<html><body>Bad gateway</body></html>", "502"),
        (500, b"", "500"),
        (503, b"\xff\xfe", "503"),
        (400, b'{"error": "just text"}', "just text"),
        (400, b'{"error": null}', "400"),
        (400, b"[1]", "400"),
        (400, b'{"detail": "a compatible server"}', "a compatible server"),
    ],
)
def test_bodies_in_other_shapes(status: int, body: bytes, text: str) -> None:
    error = describe_error(status, {"content-type": "text/html" if body.startswith(b"<") else ""}, body)
    assert text in error.message
    assert error.status == status
    assert "<html" not in error.message


def test_a_key_that_the_service_echoes_is_not_repeated() -> None:
    error = described(401, message="Incorrect API key provided: sk-proj-********abcd. You can find it in your account.")
    assert "abcd" not in error.message
    assert "sk-proj" not in error.message
    assert "You can find it" in error.message


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("server_error", ("service_error", "service_down", AGAIN)),
        ("rate_limit_exceeded", ("rate_limit", "requests_per_minute", AGAIN)),
        ("invalid_prompt", ("validation_error", "invalid_payload", FINAL)),
        ("data_residency_mismatch", ("validation_error", "unsupported_operation", FINAL)),
        ("vector_store_timeout", ("timeout", "processing_timeout", FINAL)),
        ("invalid_image", ("validation_error", "invalid_format", FINAL)),
        ("image_too_large", ("validation_error", "invalid_payload", FINAL)),
        ("failed_to_download_image", ("validation_error", "invalid_payload", FINAL)),
        ("bio_policy", ("generation_refusal", "policy_violation", FINAL)),
        ("misalignment_policy_violation", ("generation_refusal", "policy_violation", FINAL)),
        ("image_content_policy_violation", ("generation_refusal", "policy_violation", FINAL)),
        ("moderation_blocked", ("generation_refusal", "safety_filter", FINAL)),
        ("brand_new_code", ("service_error", "service_down", FINAL)),
        (None, ("service_error", "service_down", FINAL)),
    ],
)
def test_failed_responses(code: str | None, outcome: tuple[str, str, bool]) -> None:
    found = failed_response({"code": code, "message": "m"})
    assert (found.type, found.reason, found.retry) == outcome


@pytest.mark.parametrize("error", [None, "text", [], {}, {"code": {}, "message": []}])
def test_a_failed_response_without_a_proper_error_is_final(error: Any) -> None:
    assert failed_response(error).retry is False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.integers(300, 599), JSON, JSON)
def test_no_error_body_is_fatal(status: int, error: Any, details: Any) -> None:
    body = json.dumps({"error": error}).encode()
    for found in (
        describe_error(status, {}, body),
        failed_response(error),
        described(status, code="moderation_blocked", moderation_details=details),
    ):
        assert found.reason in REASONS[found.type]
