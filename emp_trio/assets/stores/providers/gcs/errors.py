"""Translate errors of Google's storage library by type, status and reason, never by text. Pure.

Reasons: Cloud Storage JSON API reference, "HTTP status and error codes".
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import (
    GoogleAuthError,
    RefreshError,
    TransportError,
)

from emp_trio.assets.stores import storage_failure
from emp_trio.assets.stores.answers import BUSY, TOLERATED, Meaning, answered, skewed, unanswered
from emp_trio.errors import AssetError

_KEY: Final = "Is the file of GOOGLE_APPLICATION_CREDENTIALS right and still valid?"
_ROLE: Final = "The account needs the role Storage Object User on the bucket"

_REASONS: Final[dict[str, Meaning]] = {
    "authError": ("auth_error", "invalid_api_key", False, _KEY),
    "required": ("auth_error", "invalid_api_key", False, _KEY),
    "forbidden": ("auth_error", "insufficient_permissions", False, _ROLE),
    "insufficientPermissions": ("auth_error", "insufficient_permissions", False, _ROLE),
    "accountDisabled": ("auth_error", "account_suspended", False, "The account must be enabled by its owner"),
    "userProjectAccountProblem": ("auth_error", "account_suspended", False, "The project's owner must put it right"),
    "conditionNotMet": BUSY,
    "conflict": BUSY,
    "rateLimitExceeded": ("rate_limit", "requests_per_minute", True, ""),
    "userRateLimitExceeded": ("rate_limit", "requests_per_minute", True, ""),
    "quotaExceeded": ("resource_limit", "disk_space_full", True, "A quota of the project is used up"),
    "retentionPolicyNotMet": ("validation_error", "invalid_payload", False, "That object may not be replaced"),
    "objectUnderActiveHold": ("validation_error", "invalid_payload", False, "That object may not be replaced"),
    "uploadBrokenConnection": ("network_error", "connection_failed", True, ""),
}
_HINTS: Final = {300: "Is STORAGE_EMULATOR_HOST a storage service?", 401: _KEY, 403: _ROLE}
_NO_BUCKET: Final[Meaning] = ("system_error", "config_error", False, "Make the bucket, or name another one")


def gcs_failure(error: Exception, *, what: str, uploading: bool, read_timeout: float, ahead: float) -> AssetError:
    """Translate an error of Google's library, or of its connection.

    Args:
        what: failed operation and its location; start of the message.
        uploading: whether it was an upload: then "not found" means the bucket.
        read_timeout: timeout of the response in seconds, for the message.
        ahead: seconds by which this machine's clock is ahead of the server's.
    """
    if isinstance(error, GoogleAPICallError):
        status = int(error.code or 0)
        reason = error_reason(error)
        response: Any = error.response
        headers = getattr(response, "headers", None) or {}
        return answered(
            what,
            status=status,
            code=reason,
            request_id=headers.get("x-guploader-uploadid"),
            headers=headers,
            meaning=_NO_BUCKET if status == 404 and uploading else BUSY if status == 412 else _REASONS.get(reason),
            hints=_HINTS,
            ahead=ahead,
        )
    if isinstance(error, RefreshError) and abs(ahead) > TOLERATED:
        return skewed(f"{what}: Google gives no token for the credentials", ahead)
    if isinstance(error, RefreshError) and not error.retryable:
        return storage_failure(
            f"{what}: Google does not take the credentials ({type(error).__name__})",
            hint=_KEY,
            type="auth_error",
            reason="invalid_api_key",
            retry=False,
        )
    if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        return storage_failure(
            f"{what}: Google gives no token for the credentials",
            type="service_error",
            reason="service_unavailable",
            retry=True,
        )
    return unanswered(error, what=what, read_timeout=read_timeout, host_hint="Can this machine resolve Google's names?")


def error_reason(error: GoogleAPICallError) -> str:
    """Return the store's reason for an error, or "". The library does not parse it for uploads."""
    details: Any = error.errors
    if not details:
        # no body, or that of a proxy
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            details = error.response.json()["error"]["errors"]
    first = details[0] if isinstance(details, list) and details else details
    reason = first.get("reason") if isinstance(first, dict) else None
    return reason.encode("utf-8", "replace").decode() if isinstance(reason, str) else ""  # lone surrogates, too
