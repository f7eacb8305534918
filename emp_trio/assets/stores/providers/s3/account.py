"""Accounts and buckets of S3."""

from __future__ import annotations

import msgspec

from emp_trio.secrets import Secret


class S3Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account of S3, or of a service that speaks its protocol.

    Args:
        key_id, secret, token: credentials; without them, those that boto3 finds (profile, container, instance).
        region: of the bucket.
        endpoint: base URL of another service than AWS; buckets are addressed in its path.
    """

    key_id: str | None = None
    secret: Secret | None = None
    token: Secret | None = None
    region: str = "us-east-1"
    endpoint: str | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secret key and the token."""
        return tuple(secret for secret in (self.secret, self.token) if secret is not None)


class S3Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket, and the account to use it with."""

    account: S3Account
    bucket: str
