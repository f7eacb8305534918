"""Account and buckets of Google Cloud Storage."""

from __future__ import annotations

from pathlib import Path

import msgspec

from emp_trio.secrets import Secret


class GcsAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account of Google Cloud Storage.

    Args:
        credentials: credentials file; None for Google's defaults (``gcloud``, this machine's account).
        endpoint: base URL of an emulator, which gets credentials only from a file.
    """

    credentials: Path | None = None
    endpoint: str | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return nothing: the credentials file is read when a store is opened."""
        return ()


class GcsBucket(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket of Google Cloud Storage; ``credentials`` and ``endpoint`` as in ``GcsAccount``."""

    credentials: Path | None
    endpoint: str | None
    bucket: str
