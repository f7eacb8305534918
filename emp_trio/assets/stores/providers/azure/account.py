"""Accounts and containers of Azure Blob Storage."""

from __future__ import annotations

import msgspec

from emp_trio.secrets import Secret


class AzureAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account of Azure Blob Storage. The first available credential is used: key, signature, login.

    Args:
        name: account name.
        key: shared key.
        sas: shared access signature with permission to read, create and write blobs.
        login: whether to sign in as this machine (managed identity, workload identity, ``AZURE_CLIENT_ID`` etc.).
        endpoint: base URL of the blob service, for private clouds and emulators; None for the public cloud.
    """

    name: str
    key: Secret | None = None
    sas: Secret | None = None
    login: bool = False
    endpoint: str | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return the key and the signature."""
        return tuple(secret for secret in (self.key, self.sas) if secret is not None)


class AzureContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container of an Azure account. Without key and shared access signature, this machine signs in as itself."""

    account: str
    key: Secret | None = None
    sas: Secret | None = None
    endpoint: str
    container: str
