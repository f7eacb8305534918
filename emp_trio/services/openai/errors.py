"""Error objects of the API as errors of ours: refusals, billing, faults (OpenAI reference 3, 4.4, 12). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import Refused, ServiceError
from emp_trio.failures import FailureType, classify_status
from emp_trio.protocols.http.errors import describe_status
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import excerpt
from emp_trio.services.error_shapes import code_of, error_in, quoted, stated_error, status_of, words_of

_LONGEST: Final = 500
_NOT_BEGUN: Final = frozenset(("generation_refusal", "auth_error", "rate_limit", "validation_error"))

_REFUSALS: Final = frozenset(
    "moderation_blocked content_policy_violation image_content_policy_violation bio_policy "
    "misalignment_policy_violation "
    "content_filter responsibleaipolicyviolation data_inspection_failed content_moderation moderation_error "
    "moderation content_blocked prohibited_content sensitive_content".split()  # of other vendors
)
_BILLING: Final = frozenset(
    "insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded "
    "organization_usage_limit_exceeded billing_hard_limit_reached "
    "insufficient_credits insufficient_balance insufficient_funds payment_required billing_error "
    "credits_exhausted".split()  # of other vendors
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

# Types of an error, and codes of other vendors, in small letters without anything between them. The last member says
# whether another attempt makes sense.
_VENDORS: Final[dict[str, tuple[FailureType, str, bool]]] = {
    "ratelimiterror": ("rate_limit", "requests_per_minute", True),
    "ratelimitexceedederror": ("rate_limit", "requests_per_minute", True),
    "ratelimit": ("rate_limit", "requests_per_minute", True),
    "ratelimited": ("rate_limit", "requests_per_minute", True),
    "toomanyrequests": ("rate_limit", "requests_per_minute", True),
    "requests": ("rate_limit", "requests_per_minute", True),
    "tokens": ("rate_limit", "tokens_per_minute", True),
    "overloadederror": ("service_error", "service_unavailable", True),
    "engineoverloadederror": ("service_error", "service_unavailable", True),
    "serviceunavailable": ("service_error", "service_unavailable", True),
    "serviceunavailableerror": ("service_error", "service_unavailable", True),
    "apierror": ("service_error", "service_down", True),
    "internalerror": ("service_error", "service_down", True),
    "internalservererror": ("service_error", "service_down", True),
    "servererror": ("service_error", "service_down", True),
    "timeouterror": ("timeout", "processing_timeout", True),
    "authenticationerror": ("auth_error", "invalid_api_key", False),
    "invalidauthenticationerror": ("auth_error", "invalid_api_key", False),
    "unauthorized": ("auth_error", "invalid_api_key", False),
    "permissionerror": ("auth_error", "insufficient_permissions", False),
    "permissiondeniederror": ("auth_error", "insufficient_permissions", False),
    "forbidden": ("auth_error", "insufficient_permissions", False),
    "notfounderror": ("validation_error", "model_not_found", False),
    "invalidrequesterror": ("validation_error", "invalid_payload", False),
    "invalidrequest": ("validation_error", "invalid_payload", False),
    "badrequesterror": ("validation_error", "invalid_payload", False),
    "validationerror": ("validation_error", "invalid_payload", False),
}

_STEP: Final = re.compile(r"[^\w-]+")  # between the steps of a path to a field
_KEY: Final = re.compile(r"\bsk-\S+")


class _Moderation(msgspec.Struct, frozen=True):
    categories: Lenient[list[Any]] = []


class _Metadata(msgspec.Struct, frozen=True):
    flagged_input: Any = None


class _Error(msgspec.Struct, frozen=True):
    """What an error object has besides its code and its words. ``metadata`` is that of a gateway."""

    type: Lenient[str] = ""
    param: Lenient[str | None] = None
    moderation_details: Lenient[_Moderation | None] = None
    metadata: Lenient[_Metadata | None] = None


def describe_error(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error for an HTTP error answer (OpenAI reference 3.1 to 3.3).

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
    code = code_of(error)
    message = f"OpenAI answered {status}{f' {code}' if code else ''}: {_message(error)}"
    final = _final(error, message, status=status)
    if final is not None:
        return final
    param = parse_or_empty(_Error, error).param
    described = ServiceError(message, status=status, code=code, param=param)
    if status < 500 and code in _CLASSES:
        described.type, described.reason = _CLASSES[code]
    elif status < 500 and param == "model":
        described.type, described.reason = "validation_error", "model_not_found"
    if described.type == "rate_limit" and headers.get("x-ratelimit-remaining-tokens") == "0":
        described.reason = "tokens_per_minute"
    return _as_told(described, headers)


def failed_response(error: Any, *, what: str = "failed the response") -> ServiceError:
    """The error for the ``error`` object of a failed response: few codes are worth a new attempt
    (OpenAI reference 4.4).

    What has no code is known by its type, and a number that is an HTTP status stands for that.

    Args:
        what: what OpenAI did.
    """
    given: Mapping[str, Any] = error if isinstance(error, dict) else {"message": error} if error else {}
    code, kind = code_of(given), parse_or_empty(_Error, given).type
    message = f"OpenAI {what}{f' with {code}' if code else ''}: {_message(given)}"
    final = _final(given, message)
    if final is not None:
        return final
    status = status_of(given)
    known = code if code is not None and status is None else kind
    if known in _CLASSES:
        type_, reason, retry = (*_CLASSES[known], known in _RETRIED_FAILURES)
    elif _plain(known) in _VENDORS:
        type_, reason, retry = _VENDORS[_plain(known)]
    elif status is not None:
        type_, reason, retry = classify_status(status)
    else:
        by_kind = _VENDORS.get(_plain(kind), ("service_error", "service_down", False))
        type_, reason, retry = by_kind if not by_kind[2] else ("service_error", "service_down", False)
    return ServiceError(message, code=code, type=type_, reason=reason, retry=retry)


def answered_error(value: Any) -> ServiceError | None:
    """The error that an answer with a good status is, in any of the shapes of
    :func:`~emp_trio.services.error_shapes.error_in`; None where it is something else.

    The work may have begun, unless the error says that it was not taken up.
    """
    given = error_in(value)
    if given is None:
        return None
    error = failed_response(given, what="answered with an error")
    error.maybe_started = error.type not in _NOT_BEGUN
    return error


def stream_error(event: Mapping[str, Any]) -> ServiceError:
    """The error for an ``error`` event of a stream, whose members stand in it or in its ``error``
    (OpenAI reference 5, 9).

    The work had begun: unless it was refused, it may be billed.
    """
    error = failed_response(error_in(event) or stated_error(event) or event)
    error.maybe_started = not isinstance(error, Refused)
    return error


def refuses(error: ServiceError, field: str) -> bool:
    """Whether an error says that a request was not taken up because of one of its fields.

    Services name the field in ``param``, as a path to it, or in their words alone (real servers, section 2); some write
    ``tool choice`` or ``toolChoice`` for ``tool_choice``.
    """
    if error.status not in (400, 422) or error.maybe_started or isinstance(error, Refused):
        return False
    if error.param:
        return field in _STEP.split(error.param)
    return re.search(rf"(?i)\b{field.replace('_', '[_ -]?')}\b", error.message) is not None


def refusal(error: Mapping[str, Any], message: str, *, status: int | None = None) -> Refused:
    """A refusal, with the reason that moderation gives for it where it does (OpenAI reference 12)."""
    details = parse_or_empty(_Error, error).moderation_details
    names = " ".join(map(str, details.categories)).lower() if details is not None else ""
    reason = next((reason for word, reason in _CATEGORIES if word in names), None)
    if reason is None:
        safety = code_of(error) in ("moderation_blocked", "content_filter")
        reason = "safety_filter" if safety else "policy_violation"
    return Refused(message, reason=reason, status=status, code=code_of(error))


def _final(error: Mapping[str, Any], message: str, *, status: int | None = None) -> ServiceError | None:
    """A refusal, or exhausted credit, whatever else the error says; else None."""
    code, said = code_of(error), parse_or_empty(_Error, error)
    words = {(code or "").lower(), said.type.lower()}
    if words & _REFUSALS or (said.metadata is not None and said.metadata.flagged_input):
        return refusal(error, message, status=status)
    if words & _BILLING or 402 in (status, status_of(error)):
        return _out_of_credit(message, code, status)
    return None


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
        return error_in(decode_json(body))
    except ServiceError:
        return None


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "").replace(" ", "").replace(".", "")


def _message(error: Mapping[str, Any]) -> str:
    """The service's words, without the parts of a key that it echoes."""
    text = words_of(error) or (quoted(error) if error else "no reason given")
    return excerpt(_KEY.sub("sk-***", text), _LONGEST)
