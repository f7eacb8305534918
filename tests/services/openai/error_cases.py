"""Errors of the API as they come over the wire, and what each of them is (OpenAI reference 3, 4.4, 12).

Each row: status, headers, body, then failure type, reason, whether a retry makes sense, and the stated wait.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

FINAL, AGAIN = False, True
JSON: Final = {"content-type": "application/json"}
PAGE: Final = {"content-type": "text/html"}
BAD: Final = "invalid_request_error"
IMAGE: Final = "image_generation_user_error"


class Case(NamedTuple):
    """One row; ``body`` is an error object, or a body as it is."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any] | bytes
    type: str
    reason: str
    retry: bool
    retry_after: float | None = None

    def raw(self) -> tuple[dict[str, str], bytes]:
        """Headers and body as they are sent."""
        if isinstance(self.body, bytes):
            return self.headers, self.body
        error = {"type": BAD, "param": None, "code": None} | self.body
        return JSON | self.headers, json.dumps({"error": error}).encode()


def of(message: str, code: str | None = None, **more: Any) -> dict[str, Any]:
    """An error object."""
    return {"message": message, "code": code} | more


VALIDATION: Final = [
    Case(
        400, {}, of("Invalid value: 'x'.", "invalid_value", param="size"), "validation_error", "invalid_payload", FINAL
    ),
    Case(
        400,
        {},
        of("Invalid type for 'input': expected a string.", "invalid_type", param="input"),
        "validation_error",
        "invalid_payload",
        FINAL,
    ),
    Case(
        400,
        {},
        of("Unsupported parameter: 'temperature' is not supported with this model.", "unsupported_parameter"),
        "validation_error",
        "unsupported_operation",
        FINAL,
    ),
    Case(
        400,
        {},
        of("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "unsupported_parameter"),
        "validation_error",
        "unsupported_operation",
        FINAL,
    ),
    Case(
        400,
        {},
        of("Missing required parameter: 'model'.", "missing_required_parameter", param="model"),
        "validation_error",
        "missing_required_field",
        FINAL,
    ),
    Case(
        400,
        {},
        of("This model's maximum context length is 400000 tokens.", "context_length_exceeded", param="messages"),
        "validation_error",
        "invalid_payload",
        FINAL,
    ),
    Case(
        400,
        {},
        of("Tool 'image_generation' is not supported with gpt-4.1-nano.", param="tools"),
        "validation_error",
        "invalid_payload",
        FINAL,
    ),
    Case(
        400,
        {},
        of("The model 'dall-e-3' does not exist.", "invalid_value", type=IMAGE, param="model"),
        "validation_error",
        "model_not_found",
        FINAL,
    ),
    Case(
        400,
        {},
        of("Invalid size.", "invalid_value", type=IMAGE, param="size"),
        "validation_error",
        "invalid_payload",
        FINAL,
    ),
    Case(400, {}, of("Invalid image file.", "invalid_image_file"), "validation_error", "invalid_format", FINAL),
    Case(
        400,
        {},
        of("Cannot cancel a synchronous response.", type=BAD),
        "validation_error",
        "invalid_payload",
        FINAL,
    ),
    Case(400, {}, of("A code of tomorrow.", "brand_new_code"), "validation_error", "invalid_payload", FINAL),
    Case(400, {}, {"message": "m", "code": 1234}, "validation_error", "invalid_payload", FINAL),
    Case(400, {}, {"message": "m"}, "validation_error", "invalid_payload", FINAL),
    Case(
        404,
        {},
        of("The model 'gpt-9' does not exist.", "model_not_found"),
        "validation_error",
        "model_not_found",
        FINAL,
    ),
    Case(
        404,
        {},
        of("Response with id 'resp_1' not found."),
        "validation_error",
        "unsupported_operation",
        FINAL,
    ),
    Case(404, {}, b"", "validation_error", "unsupported_operation", FINAL),  # POST /images/variations since May 2026
    Case(
        405, {}, of("Not allowed to GET on /v1/chat/completions."), "validation_error", "unsupported_operation", FINAL
    ),
    Case(413, PAGE, b"<html>413 Request Entity Too Large</html>", "validation_error", "invalid_payload", FINAL),
    Case(413, {}, of("The request is too large."), "validation_error", "invalid_payload", FINAL),
    Case(422, {}, of("Unprocessable."), "validation_error", "invalid_payload", FINAL),
]

ACCOUNT: Final = [
    Case(
        401,
        {},
        of("Incorrect API key provided: sk-proj-****abcd.", "invalid_api_key"),
        "auth_error",
        "invalid_api_key",
        FINAL,
    ),
    Case(401, {}, of("You must be a member of an organization."), "auth_error", "invalid_api_key", FINAL),
    Case(401, {}, of("Your IP is not allowed.", "ip_not_authorized"), "auth_error", "invalid_api_key", FINAL),
    Case(401, {}, of("This account is deactivated.", "account_deactivated"), "auth_error", "account_suspended", FINAL),
    Case(
        403,
        {},
        of("Country not supported.", "unsupported_country_region_territory", type="request_forbidden"),
        "auth_error",
        "insufficient_permissions",
        FINAL,
    ),
    Case(
        403,
        {},
        of("Your organization must be verified to use the model 'gpt-image-2'."),
        "auth_error",
        "insufficient_permissions",
        FINAL,
    ),
    Case(403, {}, of("You have insufficient permissions."), "auth_error", "insufficient_permissions", FINAL),
    Case(401, {"x-should-retry": "true"}, of("A moment.", "x"), "auth_error", "invalid_api_key", AGAIN),
]

CREDIT: Final = [
    *(
        Case(429, {}, of("You are out of credit.", code), "rate_limit", "daily_quota_exceeded", FINAL)
        for code in (
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
        )
    ),
    Case(
        429,
        {},
        of("You exceeded your current quota.", type="insufficient_quota"),
        "rate_limit",
        "daily_quota_exceeded",
        FINAL,
    ),
    Case(
        400,
        {},
        of("Billing hard limit has been reached.", "billing_hard_limit_reached"),
        "rate_limit",
        "daily_quota_exceeded",
        FINAL,
    ),
    Case(
        429,
        {"x-should-retry": "true", "retry-after": "5"},
        of("You exceeded your current quota.", "insufficient_quota"),
        "rate_limit",
        "daily_quota_exceeded",
        FINAL,
        5.0,
    ),
]

_REQUESTS: Final = of("Rate limit reached on requests per min.", "rate_limit_exceeded", type="requests")
_TOKENS: Final = of("Rate limit reached on tokens per min.", "rate_limit_exceeded", type="tokens")

PACE: Final = [
    Case(429, {}, _REQUESTS, "rate_limit", "requests_per_minute", AGAIN),
    Case(429, {"retry-after": "20"}, _REQUESTS, "rate_limit", "requests_per_minute", AGAIN, 20.0),
    Case(429, {"retry-after": "0.5"}, _REQUESTS, "rate_limit", "requests_per_minute", AGAIN, 0.5),
    Case(
        429,
        {"retry-after-ms": "250", "retry-after": "1"},
        _REQUESTS,
        "rate_limit",
        "requests_per_minute",
        AGAIN,
        0.25,
    ),
    Case(429, {"retry-after": "3600"}, _REQUESTS, "rate_limit", "requests_per_minute", AGAIN, 3600.0),
    Case(429, {"retry-after": "0"}, _REQUESTS, "rate_limit", "requests_per_minute", AGAIN),
    Case(429, {"retry-after": "-1"}, _REQUESTS, "rate_limit", "requests_per_minute", AGAIN),
    Case(429, {"retry-after": "soon"}, _REQUESTS, "rate_limit", "requests_per_minute", AGAIN),
    Case(429, {"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, _REQUESTS, "rate_limit", "requests_per_minute", AGAIN),
    Case(
        429,
        {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"},
        _TOKENS,
        "rate_limit",
        "tokens_per_minute",
        AGAIN,
    ),
    Case(
        429,
        {"x-should-retry": "false"},
        _REQUESTS,
        "rate_limit",
        "requests_per_minute",
        FINAL,
    ),
    Case(
        429,
        {},
        of("Your traffic rose too fast.", "slow_down", type="rate_limit_error"),
        "rate_limit",
        "requests_per_minute",
        AGAIN,
    ),
    Case(429, PAGE, b"<html>Too many requests</html>", "rate_limit", "requests_per_minute", AGAIN),
]

FAULTS: Final = [
    Case(408, {}, of("Request timeout."), "timeout", "network_timeout", AGAIN),
    Case(
        409,
        {},
        of("Another response is running.", "conversation_locked"),
        "service_error",
        "degraded_performance",
        AGAIN,
    ),
    Case(
        500,
        {},
        of("The server had an error.", "server_error", type="server_error"),
        "service_error",
        "service_down",
        AGAIN,
    ),
    Case(500, {}, of("The server had an error.", type="server_error"), "service_error", "service_down", AGAIN),
    Case(500, {}, b"", "service_error", "service_down", AGAIN),
    Case(500, {"x-should-retry": "false"}, of("No.", "server_error"), "service_error", "service_down", FINAL),
    Case(502, PAGE, b"<html><h1>502 Bad Gateway</h1></html>", "service_error", "service_down", AGAIN),
    Case(504, PAGE, b"<html>Gateway time-out</html>", "service_error", "service_down", AGAIN),
    Case(520, PAGE, b"error code: 520", "service_error", "service_down", AGAIN),
    Case(529, {}, of("Overloaded."), "service_error", "service_down", AGAIN),
    Case(
        503,
        {},
        of("The server is overloaded.", "server_is_overloaded", type="service_unavailable_error"),
        "service_error",
        "service_unavailable",
        AGAIN,
    ),
    Case(503, {}, of("Slow down.", "slow_down"), "service_error", "service_unavailable", AGAIN),
    Case(503, {"retry-after": "30"}, b"", "service_error", "service_unavailable", AGAIN, 30.0),
]

_MODERATED: Final = {"code": "moderation_blocked", "type": IMAGE, "message": "Rejected by the safety system."}


def _moderated(*categories: str, stage: str = "input") -> dict[str, Any]:
    return _MODERATED | {"moderation_details": {"moderation_stage": stage, "categories": list(categories)}}


REFUSALS: Final = [
    Case(400, {}, _MODERATED, "generation_refusal", "safety_filter", FINAL),
    Case(400, {}, _moderated("sexual"), "generation_refusal", "nsfw_content", FINAL),
    Case(400, {}, _moderated("violence/graphic", stage="output"), "generation_refusal", "violence_detected", FINAL),
    Case(400, {}, _moderated("hate/threatening"), "generation_refusal", "hate_speech", FINAL),
    Case(400, {}, _moderated("self-harm", stage="unknown"), "generation_refusal", "safety_filter", FINAL),
    Case(400, {}, of("Not this.", "content_policy_violation"), "generation_refusal", "policy_violation", FINAL),
    Case(400, {}, of("Not this.", "image_content_policy_violation"), "generation_refusal", "policy_violation", FINAL),
    Case(400, {}, of("Not this.", "bio_policy"), "generation_refusal", "policy_violation", FINAL),
    Case(400, {}, of("Not this.", "misalignment_policy_violation"), "generation_refusal", "policy_violation", FINAL),
    Case(400, {"x-should-retry": "true"}, _MODERATED, "generation_refusal", "safety_filter", FINAL),
]

CASES: Final = [*VALIDATION, *ACCOUNT, *CREDIT, *PACE, *FAULTS, *REFUSALS]
