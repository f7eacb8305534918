"""Failure classes in the fleet's vocabulary, with the decision whether to retry. Pure.

The fleet defines 10 types and 46 reasons (queue protocol 5.6). A class is derived from structure (HTTP status, service
code, type of error), never from substrings of a message.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FailureType = Literal[
    "generation_refusal",
    "auth_error",
    "rate_limit",
    "network_error",
    "resource_limit",
    "service_error",
    "timeout",
    "validation_error",
    "response_error",
    "system_error",
]

REASONS: dict[FailureType, frozenset[str]] = {
    "generation_refusal": frozenset(
        "safety_filter violence_detected copyright_blocker nsfw_content hate_speech personal_info "
        "policy_violation".split()
    ),
    "auth_error": frozenset("invalid_api_key expired_token insufficient_permissions account_suspended".split()),
    "rate_limit": frozenset("daily_quota_exceeded concurrent_requests tokens_per_minute requests_per_minute".split()),
    "network_error": frozenset("dns_resolution ssl_certificate proxy_error network_timeout connection_failed".split()),
    "resource_limit": frozenset("gpu_memory_full out_of_memory disk_space_full concurrent_limit".split()),
    "service_error": frozenset("maintenance_mode service_unavailable degraded_performance service_down".split()),
    "timeout": frozenset("network_timeout processing_timeout queue_timeout job_timeout".split()),
    "validation_error": frozenset(
        "component_error model_not_found missing_required_field invalid_format unsupported_operation "
        "invalid_payload".split()
    ),
    "response_error": frozenset(
        "unexpected_content_type corrupted_data missing_expected_data invalid_response_format".split()
    ),
    "system_error": frozenset("gpu_error config_error dependency_error internal_error unknown_error".split()),
}


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A classified failure.

    ``retry`` is whether another attempt can succeed; the queue still limits attempts. ``retry_after`` is the minimum
    number of seconds before it, if the service stated one.
    """

    type: FailureType
    reason: str
    message: str
    retry: bool
    retry_after: float | None = None


def classify_status(status: int) -> tuple[FailureType, str, bool]:
    """Return (type, reason, retry) for an HTTP error status without further information in the body.

    A connector checks the error codes of its service first.
    """
    match status:
        case 401:
            return "auth_error", "invalid_api_key", False
        case 403:
            return "auth_error", "insufficient_permissions", False
        case 404 | 405 | 410 | 501:
            return "validation_error", "unsupported_operation", False
        case 408:
            return "timeout", "network_timeout", True
        case 409 | 423 | 425:
            return "service_error", "degraded_performance", True
        case 413:
            return "validation_error", "invalid_payload", False
        case 429:
            return "rate_limit", "requests_per_minute", True
        case 407:
            return "network_error", "proxy_error", False
        case 503:
            return "service_error", "service_unavailable", True
        case 507:
            return "resource_limit", "disk_space_full", True
        case _ if status >= 500:
            return "service_error", "service_down", True
        case _ if status >= 400:
            return "validation_error", "invalid_payload", False
        case _:
            return "response_error", "invalid_response_format", True
