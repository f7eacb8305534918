"""Error objects of the API as errors of ours (Gemini reference A6, A7). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import Refused, ServiceError
from emp_trio.failures import FailureType
from emp_trio.protocols.http.errors import describe_status
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import excerpt, one_line
from emp_trio.services.gemini.refusals import refusal_reason

_LONGEST: Final = 500

_Class = tuple[FailureType, str, bool]

# Words of ``error.status``, and codes of the errors of a failed interaction, with type, reason and retry.
_WORDS: Final[dict[str, _Class]] = {
    "INVALID_ARGUMENT": ("validation_error", "invalid_payload", False),
    "OUT_OF_RANGE": ("validation_error", "invalid_payload", False),
    "FAILED_PRECONDITION": ("auth_error", "account_suspended", False),
    "UNAUTHENTICATED": ("auth_error", "invalid_api_key", False),
    "PERMISSION_DENIED": ("auth_error", "insufficient_permissions", False),
    "NOT_FOUND": ("validation_error", "model_not_found", False),
    "UNIMPLEMENTED": ("validation_error", "unsupported_operation", False),
    "ABORTED": ("service_error", "degraded_performance", True),
    "RESOURCE_EXHAUSTED": ("rate_limit", "requests_per_minute", True),
    "INTERNAL": ("service_error", "service_down", True),
    "UNKNOWN": ("service_error", "service_down", True),
    "UNAVAILABLE": ("service_error", "service_unavailable", True),
    "DEADLINE_EXCEEDED": ("timeout", "processing_timeout", True),
    "CANCELLED": ("service_error", "service_down", False),
}
_STATUS: Final[dict[int, _Class]] = {
    402: ("auth_error", "account_suspended", False),
    504: ("timeout", "processing_timeout", True),
}
_BAD_KEY: Final = frozenset(("API_KEY_INVALID", "API_KEY_EXPIRED"))
_NO_BILLING: Final = frozenset(("BILLING_DISABLED", "CONSUMER_SUSPENDED", "CONSUMER_INVALID"))
_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)s")
_PER_DAY: Final = re.compile(r"(?i)per[\s_-]{0,8}day|daily")
_PER_MINUTE: Final = re.compile(r"(?i)per[\s_-]{0,8}minute")


class _Detail(msgspec.Struct, frozen=True):
    """One of an error's details. ``violations`` name the quotas that are used up, in members of any name."""

    type: Lenient[str] = msgspec.field(name="@type", default="")
    reason: Lenient[str] = ""
    retry_delay: Lenient[str] = msgspec.field(name="retryDelay", default="")
    violations: Lenient[list[Lenient[dict[str, Lenient[str]]]]] = []


class _Error(msgspec.Struct, frozen=True):
    """An error. ``code`` is a number, and a word in those of interactions."""

    code: Any = None
    message: Lenient[str] = ""
    status: Lenient[str] = ""
    details: Lenient[list[Lenient[_Detail]]] = []

    @property
    def words(self) -> str:
        """What it says, on one line."""
        return one_line(self.message, _LONGEST) or "no reason given"


class _Body(msgspec.Struct, frozen=True):
    error: Lenient[dict[str, Any] | None] = None


def describe_error(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error for an HTTP error answer (Gemini reference A6).

    Args:
        status: HTTP status.
        headers: in lower case.
        body: JSON in the documented shape, alone or in a list, or anything a proxy says.
    """
    error = _error_object(body)
    if error is None:
        described = describe_status(status, headers, body)
        if status in _STATUS:
            described.type, described.reason, described.retry = _STATUS[status]
        return described
    return described_error(error, status)


def described_error(error: Mapping[str, Any], status: int | None = None) -> ServiceError:
    """The error for an error object of the API.

    Args:
        error: ``code``, ``message``, ``status`` and ``details``, as far as they are there.
        status: the HTTP status it came with; None where it came in an answer of its own accord.
    """
    said = parse_or_empty(_Error, error)
    code = excerpt(said.status, 100) or None
    number = status if status is not None else _number(said.code)
    answered = " ".join(str(part) for part in (number, code) if part)
    message = f"Gemini answered {answered or 'an error'}: {said.words}"
    reasons = {detail.reason for detail in said.details}
    described = ServiceError(message, status=number, code=code, retry_after=_retry_delay(said.details))
    kind = _STATUS.get(number or 0) or (_WORDS.get(code) if code is not None else None)
    if kind is not None:
        described.type, described.reason, described.retry = kind
    if reasons & _BAD_KEY:
        described.type, described.reason, described.retry = "auth_error", "invalid_api_key", False
        described.code = "API_KEY_INVALID"
    elif reasons & _NO_BILLING:
        described.type, described.reason, described.retry = "auth_error", "account_suspended", False
    elif described.type == "rate_limit":
        quota = " ".join(_quotas(said.details))
        if _PER_DAY.search(quota):
            described.reason, described.retry = "daily_quota_exceeded", False
        elif (about := quota.lower().find("token")) >= 0 and _PER_MINUTE.search(quota, about):
            described.reason = "tokens_per_minute"
    return described


def failed_interaction(errors: Any) -> ServiceError:
    """The error for the ``errors`` of an interaction that failed (Gemini reference A7): the first that says something.

    It has run, so nobody knows whether it is billed: ``maybe_started`` is set.
    """
    found = parse_or_empty(tuple[Lenient[_Error], ...], errors)
    error = found[0] if found else _Error()
    code = error.code if isinstance(error.code, int) else excerpt(str(error.code), 100) if error.code else None
    message = f"Gemini failed the interaction{f' with {code}' if code else ''}: {error.words}"
    if isinstance(code, str) and (reason := refusal_reason(code)) is not None:
        return Refused(message, reason=reason, code=code)
    described = ServiceError(message, code=None if code is None else str(code), maybe_started=True)
    number = _number(code)
    if isinstance(code, str) and code.upper() in _WORDS:
        described.type, described.reason, described.retry = _WORDS[code.upper()]
    elif number is not None and number >= 400:
        described = described_error({"code": number, "message": message}, number)
        described.message, described.maybe_started = message, True
        described.args = (message,)
    return described


def interactions_unavailable(error: ServiceError) -> bool:
    """Whether an error of the call that starts an interaction says that this server has no such path at all.

    A 404 in the documented shape is about a model or a file, and not about the path: it comes from the API itself.
    """
    if error.code == "UNIMPLEMENTED" or error.status in (405, 501):
        return True
    return error.status == 404 and error.code is None


def _error_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        data = decode_json(body)
    except ServiceError:
        return None
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    return parse_or_empty(_Body, data).error


def _retry_delay(details: list[_Detail]) -> float | None:
    for detail in details:
        if detail.type.endswith("google.rpc.RetryInfo"):
            found = _SECONDS.fullmatch(detail.retry_delay)
            if found is not None and float(found[1]) > 0:
                return float(found[1])
    return None


def _quotas(details: list[_Detail]) -> Iterator[str]:
    """The words by which a QuotaFailure names the quotas that are used up."""
    for detail in details:
        if detail.type.endswith("google.rpc.QuotaFailure"):
            for violation in detail.violations:
                yield from violation.values()


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < 4:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600 else None
