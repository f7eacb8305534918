"""Error objects of the API as errors of ours: refusals, billing, faults (OpenAI reference 3, 4.4, 12). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from emp_trio.errors import Refused, ServiceError
from emp_trio.failures import FailureType
from emp_trio.protocols.http_errors import describe_status
from emp_trio.protocols.wire_json import decode_json

_LONGEST: Final = 500

_REFUSALS: Final = frozenset(
    "moderation_blocked content_policy_violation image_content_policy_violation bio_policy "
    "misalignment_policy_violation".split()
)
_BILLING: Final = frozenset(
    "insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded "
    "organization_usage_limit_exceeded billing_hard_limit_reached".split()
)
_RETRIED_FAILURES: Final = frozenset(("server_error", "rate_limit_exceeded", "server_is_overloaded", "slow_down"))

_CLASSES: Final[dict[str, tuple[FailureType, str]]] = {
    "server_error": ("service_error", "service_down"),
    "server_is_overloaded": ("service_error", "service_unavailable"),
    "rate_limit_exceeded": ("rate_limit", "requests_per_minute"),
    "slow_down": ("rate_limit", "requests_per_minute"),
    "vector_store_timeout": ("timeout", "processing_timeout"),
    "invalid_api_key": ("auth_error", "invalid_api_key"),
    "account_deactivated": ("auth_error", "account_suspended"),
    "model_not_found": ("validation_error", "model_not_found"),
    "missing_required_parameter": ("validation_error", "missing_required_field"),
    "unsupported_parameter": ("validation_error", "unsupported_operation"),
    "data_residency_mismatch": ("validation_error", "unsupported_operation"),
    "invalid_prompt": ("validation_error", "invalid_payload"),
    "context_length_exceeded": ("validation_error", "invalid_payload"),
    "image_too_large": ("validation_error", "invalid_payload"),
    "image_too_small": ("validation_error", "invalid_payload"),
    "image_file_too_large": ("validation_error", "invalid_payload"),
    "invalid_image_url": ("validation_error", "invalid_payload"),
    "failed_to_download_image": ("validation_error", "invalid_payload"),
    "image_file_not_found": ("validation_error", "invalid_payload"),
    "invalid_image": ("validation_error", "invalid_format"),
    "invalid_image_file": ("validation_error", "invalid_format"),
    "invalid_image_format": ("validation_error", "invalid_format"),
    "invalid_image_mode": ("validation_error", "invalid_format"),
    "invalid_base64_image": ("validation_error", "invalid_format"),
    "image_parse_error": ("validation_error", "invalid_format"),
    "unsupported_image_media_type": ("validation_error", "invalid_format"),
    "empty_image_file": ("validation_error", "invalid_format"),
}

# What moderation calls its categories, as reasons of the fleet.
_CATEGORIES: Final = (
    ("sexual", "nsfw_content"),
    ("violence", "violence_detected"),
    ("hate", "hate_speech"),
    ("harassment", "hate_speech"),
    ("copyright", "copyright_blocker"),
    ("privacy", "personal_info"),
    ("personal", "personal_info"),
)

_KEY: Final = re.compile(r"\bsk-\S+")


def describe_error(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error for an HTTP error answer (reference 3.1 to 3.3).

    Refusals and exhausted credit are final whatever else the answer says; then ``x-should-retry`` decides, then the
    status.

    Args:
        status: HTTP status.
        headers: in lower case.
        body: JSON in the documented shape, or anything a proxy says.
    """
    error = _error_object(body)
    if error is None:
        described = describe_status(status, headers, body)
        return _as_told(described, headers)
    code, kind = _code(error), str(error.get("type") or "")
    message = f"OpenAI answered {status}{f' {code}' if code else ''}: {_message(error)}"
    if code in _REFUSALS:
        return refusal(error, message, status=status)
    if code in _BILLING or kind in _BILLING:
        return _out_of_credit(message, code, status)
    param = error.get("param")
    described = ServiceError(message, status=status, code=code, param=param if isinstance(param, str) else None)
    if status < 500 and code in _CLASSES:
        described.type, described.reason = _CLASSES[code]
    elif status < 500 and error.get("param") == "model":
        described.type, described.reason = "validation_error", "model_not_found"
    if described.type == "rate_limit" and headers.get("x-ratelimit-remaining-tokens") == "0":
        described.reason = "tokens_per_minute"
    return _as_told(described, headers)


def failed_response(error: Any) -> ServiceError:
    """The error for the ``error`` object of a failed response: few codes are worth a new attempt (reference 4.4).

    An error in a stream may have a type in place of a code.
    """
    given = error if isinstance(error, dict) else {}
    code = _code(given)
    message = f"OpenAI failed the response{f' with {code}' if code else ''}: {_message(given)}"
    if code in _REFUSALS:
        return refusal(given, message)
    known = code or str(given.get("type") or "")
    if known in _BILLING or given.get("type") == "insufficient_quota":
        return _out_of_credit(message, code, None)
    kind, reason = _CLASSES.get(known, ("service_error", "service_down"))
    return ServiceError(message, code=code, type=kind, reason=reason, retry=known in _RETRIED_FAILURES)


def stream_error(event: Mapping[str, Any]) -> ServiceError:
    """The error for an ``error`` event of a stream, whose members stand in it or in its ``error`` (reference 5, 9).

    The work had begun: unless it was refused, it may be billed.
    """
    nested = event.get("error")
    error = failed_response(nested if isinstance(nested, dict) else event)
    error.maybe_started = not isinstance(error, Refused)
    return error


def refusal(error: Mapping[str, Any], message: str, *, status: int | None = None) -> Refused:
    """A refusal, with the reason that moderation gives for it where it does (reference 12)."""
    details = error.get("moderation_details")
    categories = details.get("categories") if isinstance(details, dict) else None
    names = " ".join(str(category).lower() for category in categories) if isinstance(categories, list) else ""
    reason = next((reason for word, reason in _CATEGORIES if word in names), None)
    if reason is None:
        reason = "safety_filter" if _code(error) == "moderation_blocked" else "policy_violation"
    return Refused(message, reason=reason, status=status, code=_code(error))


def _out_of_credit(message: str, code: str | None, status: int | None) -> ServiceError:
    return ServiceError(
        f"{message} (the account is out of credit or at its spending limit; no attempt can succeed before that is "
        "changed)",
        status=status,
        code=code,
        type="rate_limit",
        reason="daily_quota_exceeded",
        retry=False,
    )


def _as_told(error: ServiceError, headers: Mapping[str, str]) -> ServiceError:
    told = headers.get("x-should-retry", "").lower()
    if told in ("true", "false"):
        error.retry = told == "true"
    return error


def _error_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        data: Any = decode_json(body)
    except ServiceError:
        return None
    error = data.get("error") if isinstance(data, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else None


def _code(error: Mapping[str, Any]) -> str | None:
    code = error.get("code")
    return str(code) if isinstance(code, str | int) and not isinstance(code, bool) and code != "" else None


def _message(error: Mapping[str, Any]) -> str:
    """The service's words, without the parts of a key that it echoes."""
    text = " ".join(str(error.get("message") or "no reason given").split())
    return _KEY.sub("sk-***", text)[:_LONGEST]
