"""What an error of the Azure SDK means: pure, from its kind, status and code, never from its text.

Codes: Azure storage reference, "Common REST API error codes" and "Blob Storage error codes".
"""

from __future__ import annotations

import time
from typing import Any, Final

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)
from requests.exceptions import ProxyError, SSLError
from urllib3.exceptions import NameResolutionError

from emp_trio.assets.stores import storage_failure
from emp_trio.errors import AssetError
from emp_trio.failures import FailureType, classify_status
from emp_trio.retry import parse_retry_after

_CODES: Final[dict[str, tuple[FailureType, str, bool, str]]] = {  # code -> type, reason, retry, hint
    "AuthenticationFailed": ("auth_error", "invalid_api_key", False, "Is AZURE_STORAGE_KEY, or the job's key, right?"),
    "InvalidAuthenticationInfo": ("auth_error", "invalid_api_key", False, "Is AZURE_STORAGE_KEY right?"),
    "AccountIsDisabled": ("auth_error", "account_suspended", False, "The account must be enabled by its owner"),
    "ContainerNotFound": ("system_error", "config_error", False, "Make the container, or name another one"),
    "ContainerDisabled": ("system_error", "config_error", False, "Its owner has switched it off"),
    "ContainerBeingDeleted": ("service_error", "degraded_performance", True, ""),
    "BlobAlreadyExists": ("service_error", "degraded_performance", True, "Somebody else is writing it"),
    "ConditionNotMet": ("service_error", "degraded_performance", True, "Somebody else is writing it"),
    "InvalidBlockList": ("service_error", "degraded_performance", True, "Somebody else is writing it"),
    "InvalidBlobOrBlock": ("service_error", "degraded_performance", True, "Somebody else is writing it"),
    "InvalidBlobType": ("validation_error", "invalid_payload", False, "A blob of another kind has that name"),
    "BlobImmutableDueToPolicy": ("validation_error", "invalid_payload", False, "That blob may not be replaced"),
    "LeaseIdMissing": ("service_error", "degraded_performance", True, "Somebody holds a lease on that blob"),
    "InvalidResourceName": ("validation_error", "invalid_payload", False, "Azure does not take that name"),
    "RequestBodyTooLarge": ("validation_error", "invalid_payload", False, ""),
    "MemoryExtentStoreAtSizeLimit": ("resource_limit", "disk_space_full", True, "The store (Azurite) is full"),
}


def azure_failure(error: AzureError, *, what: str, read_timeout: float) -> AssetError:
    """An error of the SDK as ours.

    Args:
        what: what could not be done, and where; the first words of the text.
        read_timeout: seconds that the store was given to answer, for the text.
    """
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return _answered(error, what)
    if isinstance(error, ServiceRequestTimeoutError | ServiceResponseTimeoutError):
        limit = "" if isinstance(error, ServiceRequestTimeoutError) else f" within {read_timeout:g} s"
        return storage_failure(
            f"{what}: the store did not answer{limit}", type="timeout", reason="network_timeout", retry=True
        )
    causes = _causes(error)
    if any(isinstance(c, NameResolutionError) for c in causes):
        return storage_failure(
            f"{what}: the store's host name is unknown",
            hint="Is AZURE_STORAGE_ACCOUNT, or the job's account, right?",
            type="network_error",
            reason="dns_resolution",
            retry=True,
        )
    if any(isinstance(c, SSLError) for c in causes):
        return storage_failure(
            f"{what}: the store's certificate was not accepted",
            type="network_error",
            reason="ssl_certificate",
            retry=False,
        )
    if any(isinstance(c, ProxyError) for c in causes):
        return storage_failure(f"{what}: the proxy failed", type="network_error", reason="proxy_error", retry=True)
    if isinstance(error, ServiceRequestError):
        text = "the store can't be reached"
    else:
        text = "the connection to the store was lost"
    return storage_failure(f"{what}: {text}", type="network_error", reason="connection_failed", retry=True)


def _answered(error: HttpResponseError, what: str) -> AssetError:
    status = error.status_code or 0
    headers: Any = getattr(error.response, "headers", None) or {}
    code = error_code(error)
    request_id = headers.get("x-ms-request-id")
    type_, reason, retry, hint = _CODES.get(code) or _by_status(status)
    said = ", ".join(x for x in (f"HTTP {status}", code, f"request {request_id}" if request_id else "") if x)
    return storage_failure(
        f"{what}: the store answered {said}",
        hint=hint,
        type=type_,
        reason=reason,
        retry=retry,
        retry_after=parse_retry_after({k.lower(): v for k, v in headers.items()}, now=time.time()),
    )


def error_code(error: HttpResponseError) -> str:
    """The store's own code for an error, or an empty text; the SDK has it as text or as an enumeration."""
    code: Any = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))


def _by_status(status: int) -> tuple[FailureType, str, bool, str]:
    if status < 400:
        return "response_error", "invalid_response_format", True, "Is AZURE_STORAGE_ENDPOINT a blob service?"
    type_, reason, retry = classify_status(status)
    hints = {
        401: "Is the account's key right?",
        403: "Is the key right, and may this machine use the account (its network rules)?",
        404: "Is AZURE_STORAGE_ENDPOINT right?",
    }
    return type_, reason, retry, hints.get(status, "")


def _causes(error: BaseException) -> list[BaseException]:
    """What lies under an error, also where the libraries hand it on as an argument instead of a cause."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(found) < 20:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [one.__cause__, getattr(one, "inner_exception", None), getattr(one, "reason", None), *one.args]
    return found
