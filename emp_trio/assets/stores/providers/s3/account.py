"""Accounts and buckets of S3."""

from __future__ import annotations

import msgspec

from emp_trio.secrets import Secret


class S3Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account of S3, or of a compatible service.

    Args:
        key_id, secret, token: credentials; without them, boto3's defaults (profile, container, instance).
        region: region of the bucket.
        endpoint: base URL of a service other than AWS; bucket names go into the path.
    """

    key_id: str | None = None
    secret: Secret | None = None
    token: Secret | None = None
    region: str = "us-east-1"
    endpoint: str | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return the secret key and the token."""
        return tuple(secret for secret in (self.secret, self.token) if secret is not None)


class S3Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket and its account."""

    account: S3Account
    bucket: str
