"""The account and the buckets of Google Cloud Storage."""

from __future__ import annotations

from pathlib import Path

import msgspec

from emp_trio.secrets import Secret


class GcsAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account of Google Cloud Storage.

    Args:
        credentials: file with them; None means those that Google's library finds (``gcloud``, the machine's own).
        endpoint: base URL of an emulator, which gets credentials only if there is a file with some.
    """

    credentials: Path | None = None
    endpoint: str | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """None: the file with them is read when the store is opened."""
        return ()


class GcsBucket(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket of Google Cloud Storage; ``credentials`` and ``endpoint`` as in ``GcsAccount``."""

    credentials: Path | None
    endpoint: str | None
    bucket: str
