"""Translate errors of boto3 by type, status and code, never by text. Pure.

Codes: Amazon S3 API reference, "Error responses"; those with X are of MinIO.
"""

from __future__ import annotations

from typing import Any, Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from emp_trio.assets.stores import storage_failure
from emp_trio.assets.stores.answers import BUSY, Meaning, answered, skewed, unanswered
from emp_trio.errors import AssetError

_KEY: Final = "Are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the job's key, right?"
_RIGHTS: Final = "It needs s3:GetObject, s3:PutObject, s3:AbortMultipartUpload and s3:ListBucket on the bucket"
_EXPIRED: Final = "The session has expired: renew AWS_SESSION_TOKEN with its key"
_REGION: Final = "Is AWS_REGION the region of the bucket?"

_CODES: Final[dict[str, Meaning]] = {
    "InvalidAccessKeyId": ("auth_error", "invalid_api_key", False, _KEY),
    "SignatureDoesNotMatch": ("auth_error", "invalid_api_key", False, _KEY),
    "InvalidToken": ("auth_error", "invalid_api_key", False, "Is AWS_SESSION_TOKEN right?"),
    "ExpiredToken": ("auth_error", "expired_token", True, _EXPIRED),
    "TokenRefreshRequired": ("auth_error", "expired_token", True, _EXPIRED),
    "AccessDenied": ("auth_error", "insufficient_permissions", False, _RIGHTS),
    "AllAccessDisabled": ("auth_error", "account_suspended", False, "The account must be enabled by its owner"),
    "AccountProblem": ("auth_error", "account_suspended", False, "The account must be put right by its owner"),
    "NotSignedUp": ("auth_error", "account_suspended", False, "The account must be put right by its owner"),
    "NoSuchBucket": ("system_error", "config_error", False, "Make the bucket, or name another one"),
    "InvalidBucketName": ("validation_error", "invalid_payload", False, "S3 does not take that name"),
    "PermanentRedirect": ("system_error", "config_error", False, _REGION),
    "AuthorizationHeaderMalformed": ("system_error", "config_error", False, _REGION),
    "IllegalLocationConstraintException": ("system_error", "config_error", False, _REGION),
    "KeyTooLongError": ("validation_error", "invalid_payload", False, "S3 does not take that name"),
    "EntityTooLarge": ("validation_error", "invalid_payload", False, ""),
    "PreconditionFailed": BUSY,
    "ConditionalRequestConflict": BUSY,
    "OperationAborted": BUSY,
    "NoSuchUpload": BUSY,
    "InvalidPart": BUSY,
    "BadDigest": ("response_error", "corrupted_data", True, "The bytes were altered on their way"),
    "XAmzContentSHA256Mismatch": ("response_error", "corrupted_data", True, "The bytes were altered on their way"),
    "IncompleteBody": ("network_error", "connection_failed", True, ""),
    "RequestTimeout": ("timeout", "network_timeout", True, ""),
    "SlowDown": ("rate_limit", "requests_per_minute", True, ""),
    "ServiceUnavailable": ("service_error", "service_unavailable", True, ""),
    "InternalError": ("service_error", "service_down", True, ""),
    "QuotaExceeded": ("resource_limit", "disk_space_full", True, "The bucket's quota is used up"),
    "XMinioStorageFull": ("resource_limit", "disk_space_full", True, "The store is full"),
    "NotImplemented": ("system_error", "config_error", False, "The store must know conditional writes (If-None-Match)"),
}
_SKEWED: Final = ("RequestTimeTooSkewed", "RequestExpired")
_HINTS: Final = {
    300: "Is S3_ENDPOINT_URL an S3 service?",
    401: _KEY,
    403: _KEY + " " + _RIGHTS,
    404: "Is S3_ENDPOINT_URL right?",
}


def s3_failure(error: Exception, *, what: str, read_timeout: float, ahead: float) -> AssetError:
    """Translate an error of boto3, or of its connection.

    Args:
        what: failed operation and its location; start of the message.
        read_timeout: timeout of the response in seconds, for the message.
        ahead: seconds by which this machine's clock is ahead of the store's.
    """
    if isinstance(error, ClientError):
        answer: Any = error.response.get("ResponseMetadata", {})
        code = error_code(error)
        status = int(answer.get("HTTPStatusCode", 0))
        if code in _SKEWED:
            return skewed(f"{what}: the store answered HTTP {status}, {code}", ahead)
        return answered(
            what,
            status=status,
            code=code,
            request_id=answer.get("RequestId"),
            headers=answer.get("HTTPHeaders", {}),
            meaning=_CODES.get(code),
            hints=_HINTS,
            ahead=ahead,
        )
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | TokenRetrievalError):
        return storage_failure(
            f"{what}: this machine has no AWS credentials ({type(error).__name__})",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
            type="auth_error",
            reason="invalid_api_key",
            retry=True,
        )
    if isinstance(error, ParamValidationError):
        return storage_failure(
            f"{what}: boto3 does not take the request", type="validation_error", reason="invalid_payload", retry=False
        )
    if isinstance(error, ResponseParserError):
        return storage_failure(
            f"{what}: the store's answer is not S3's",
            hint=_HINTS[300],
            type="response_error",
            reason="invalid_response_format",
            retry=True,
        )
    if isinstance(error, BotoCoreError) and not isinstance(error.__cause__ or error.__context__, OSError):
        return storage_failure(
            f"{what}: boto3 can't do it ({type(error).__name__})",
            hint="Are its configuration files right?",
            type="system_error",
            reason="config_error",
            retry=False,
        )
    return unanswered(error, what=what, read_timeout=read_timeout, host_hint="Is AWS_REGION or S3_ENDPOINT_URL right?")


def error_code(error: ClientError) -> str:
    """Return the store's error code, or "" for a response without a body."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return "" if code.isdigit() else code
