"""Translate errors of stores that are the same for all providers into AssetError. Pure.

Decided by type of error, status and the store's code, never by text.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import requests.exceptions as rq
import urllib3.exceptions as ul

from emp_trio.assets.stores import storage_failure
from emp_trio.errors import AssetError
from emp_trio.failures import FailureType, classify_status
from emp_trio.retry import parse_retry_after

Meaning = tuple[FailureType, str, bool, str]
"""Type, reason, whether to retry, hint."""

TOLERATED: Final = 240.0
"""Maximum clock difference in seconds: providers reject signatures that are 5 (Google) to 15 minutes off."""

BUSY: Final[Meaning] = ("service_error", "degraded_performance", True, "Somebody else is writing it")


def answered(
    what: str,
    *,
    status: int,
    code: str,
    request_id: str | None,
    headers: Mapping[str, str],
    meaning: Meaning | None,
    hints: Mapping[int, str],
    ahead: float,
) -> AssetError:
    """Build the error for an error response.

    Args:
        what: failed operation and its location; start of the message.
        code, request_id: the store's own; may be empty.
        meaning: meaning of the code, or None to use the status.
        hints: hints by status, for codes without a meaning.
        ahead: seconds by which this machine's clock is ahead of the store's.
    """
    description = ", ".join(x for x in (f"HTTP {status}", code, f"request {request_id}" if request_id else "") if x)
    if status in (401, 403) and abs(ahead) > TOLERATED:
        return skewed(f"{what}: the store answered {description}", ahead)
    type_, reason, retry, hint = meaning or by_status(status, hints)
    return storage_failure(
        f"{what}: the store answered {description}",
        hint=hint,
        type=type_,
        reason=reason,
        retry=retry,
        retry_after=parse_retry_after({k.lower(): v for k, v in headers.items()}, now=time.time()),
    )


def wanted(answer: Mapping[str, Any], name: str, what: str) -> Any:
    """Return a field of a store's response; compatible services may omit some.

    Raises:
        AssetError: the field is missing or empty. The operation itself may have succeeded.
    """
    if found := answer.get(name):
        return found
    raise lacking(what, name)


def lacking(what: str, name: str) -> AssetError:
    """Return the error for a response without a required field."""
    return storage_failure(
        f"{what}: the store's answer has no {name}",
        hint="Does the store, and what stands between it and this machine, speak the whole protocol?",
        type="response_error",
        reason="missing_expected_data",
        retry=True,
    )


def whole_size(status: int, headers: Mapping[str, Any]) -> int | None:
    """Return the size of an object from the response to a request for its first byte, or None if unknown.

    Args:
        status: 206 for a part; 200 if the range was ignored, and the length is that of the object.
        headers: headers with lower-case names.
    """
    said = headers.get("content-length") if status == 200 else str(headers.get("content-range", "")).rpartition("/")[2]
    text = str(said).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def skewed(what: str, ahead: float) -> AssetError:
    """Return the error for a signature rejected because the clocks differ."""
    by = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'}" if ahead else "too far from"
    return storage_failure(
        what,
        hint=f"The clock of this machine is {by} the store's, which therefore refuses its signature: set the clock",
        type="system_error",
        reason="config_error",
        retry=True,
    )


def by_status(status: int, hints: Mapping[int, str]) -> Meaning:
    """Return the meaning of a status without a known code."""
    if status < 400:
        return "response_error", "invalid_response_format", True, hints.get(300, "")
    return *classify_status(status), hints.get(status, "")


def unanswered(error: BaseException, *, what: str, read_timeout: float, host_hint: str) -> AssetError:
    """Build the error for a request without a response.

    Args:
        read_timeout: timeout of the response in seconds, for the message.
        host_hint: hint if the host name can't be resolved.
    """
    causes = _causes(error)

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if among(ul.NameResolutionError):
        return storage_failure(
            f"{what}: the store's host name is unknown",
            hint=host_hint,
            type="network_error",
            reason="dns_resolution",
            retry=True,
        )
    if among(rq.SSLError, ul.SSLError):
        return storage_failure(
            f"{what}: the store's certificate was not accepted",
            type="network_error",
            reason="ssl_certificate",
            retry=False,
        )
    if among(rq.ProxyError, ul.ProxyError):
        return storage_failure(f"{what}: the proxy failed", type="network_error", reason="proxy_error", retry=True)
    if among(rq.ReadTimeout, ul.ReadTimeoutError):
        text = f"{what}: the store did not answer within {read_timeout:g} s"
        return storage_failure(text, type="timeout", reason="network_timeout", retry=True)
    if among(ul.NewConnectionError):
        text = "the store can't be reached"
    elif among(rq.ConnectTimeout, ul.ConnectTimeoutError):
        text = f"{what}: the store did not answer"
        return storage_failure(text, type="timeout", reason="network_timeout", retry=True)
    else:
        text = "the connection to the store was lost"
    return storage_failure(f"{what}: {text}", type="network_error", reason="connection_failed", retry=True)


def _causes(error: BaseException) -> list[BaseException]:
    """Return the causes of an error, including those that libraries pass as an argument."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(found) < 20:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [
                one.__cause__,
                one.__context__,
                getattr(one, "inner_exception", None),
                getattr(one, "reason", None),
                *one.args,
            ]
    return found
