"""Accounts and containers of Azure Blob Storage."""

from __future__ import annotations

import msgspec

from emp_trio.secrets import Secret


class AzureAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account of Azure Blob Storage. Of the ways to sign in, the first that is given counts: key, signature, login.

    Args:
        name: the account.
        key: its shared key.
        sas: a shared access signature that may read, create and write blobs.
        login: sign in as this machine (managed identity, workload identity, ``AZURE_CLIENT_ID`` and so on).
        endpoint: base URL of the blob service, for private clouds and emulators; None is the public cloud.
    """

    name: str
    key: Secret | None = None
    sas: Secret | None = None
    login: bool = False
    endpoint: str | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The key and the signature."""
        return tuple(secret for secret in (self.key, self.sas) if secret is not None)


class AzureContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container of an Azure account; ``endpoint`` is the base URL of its blob service. With neither key nor shared
    access signature, this machine signs in as itself."""

    account: str
    key: Secret | None = None
    sas: Secret | None = None
    endpoint: str
    container: str
