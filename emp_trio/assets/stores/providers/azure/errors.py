"""Translate errors of the Azure SDK by type, status and code, never by text. Pure.

Codes: Azure storage reference, "Common REST API error codes" and "Blob Storage error codes".
"""

from __future__ import annotations

from typing import Any, Final

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

from emp_trio.assets.stores import storage_failure
from emp_trio.assets.stores.answers import BUSY, Meaning, answered, unanswered
from emp_trio.errors import AssetError

_KEY: Final = "Is AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or the job's key, right and still valid?"
_ROLE: Final = "It needs to read, create and write blobs (as a role: Storage Blob Data Contributor)"
_CODES: Final[dict[str, Meaning]] = {
    "AuthenticationFailed": ("auth_error", "invalid_api_key", False, _KEY),
    "InvalidAuthenticationInfo": ("auth_error", "invalid_api_key", False, _KEY),
    "AuthorizationPermissionMismatch": ("auth_error", "insufficient_permissions", False, _ROLE),
    "AuthorizationResourceTypeMismatch": ("auth_error", "insufficient_permissions", False, _ROLE),
    "AccountIsDisabled": ("auth_error", "account_suspended", False, "The account must be enabled by its owner"),
    "ContainerNotFound": ("system_error", "config_error", False, "Make the container, or name another one"),
    "ContainerDisabled": ("system_error", "config_error", False, "Its owner has switched it off"),
    "ContainerBeingDeleted": ("service_error", "degraded_performance", True, ""),
    "BlobAlreadyExists": BUSY,
    "ConditionNotMet": BUSY,
    "InvalidBlockList": BUSY,
    "InvalidBlobOrBlock": BUSY,
    "InvalidBlobType": ("validation_error", "invalid_payload", False, "A blob of another kind has that name"),
    "BlobImmutableDueToPolicy": ("validation_error", "invalid_payload", False, "That blob may not be replaced"),
    "LeaseIdMissing": ("service_error", "degraded_performance", True, "Somebody holds a lease on that blob"),
    "InvalidResourceName": ("validation_error", "invalid_payload", False, "Azure does not take that name"),
    "RequestBodyTooLarge": ("validation_error", "invalid_payload", False, ""),
    "MemoryExtentStoreAtSizeLimit": ("resource_limit", "disk_space_full", True, "The store (Azurite) is full"),
}


_HINTS: Final = {
    300: "Is AZURE_STORAGE_ENDPOINT a blob service?",
    401: _KEY,
    403: "Is the key right (AZURE_STORAGE_KEY), and may this machine use the account (its network rules)?",
    404: "Is AZURE_STORAGE_ENDPOINT right?",
}


def azure_failure(error: AzureError, *, what: str, read_timeout: float, ahead: float = 0.0) -> AssetError:
    """Translate an error of the SDK.

    Args:
        what: failed operation and its location; start of the message.
        read_timeout: timeout of the response in seconds, for the message.
        ahead: seconds by which this machine's clock is ahead of the store's.
    """
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        headers: Any = getattr(error.response, "headers", None) or {}
        code = error_code(error)
        return answered(
            what,
            status=error.status_code,
            code=code,
            request_id=headers.get("x-ms-request-id"),
            headers=headers,
            meaning=_CODES.get(code),
            hints=_HINTS,
            ahead=ahead,
        )
    if isinstance(error, ClientAuthenticationError):
        return storage_failure(
            f"{what}: this machine could not sign in to Azure",
            hint="AZURE_STORAGE_AUTH_MODE=login needs a managed or workload identity, or AZURE_CLIENT_ID and its "
            "companions; or set AZURE_STORAGE_KEY",
            type="auth_error",
            reason="invalid_api_key",
            retry=True,
        )
    hint = "Is AZURE_STORAGE_ACCOUNT, or the job's account, right?"
    return unanswered(error, what=what, read_timeout=read_timeout, host_hint=hint)


def error_code(error: HttpResponseError) -> str:
    """Return the store's error code, or ""; the SDK has it as text or as an enumeration."""
    code: Any = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))
