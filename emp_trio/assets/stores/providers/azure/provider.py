"""Azure Blob Storage as a provider: account, container names, opening of stores."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from emp_trio.assets.stores import AssetStore
from emp_trio.assets.stores.provider import (
    Provider,
    ReportProblem,
    StoreTimeouts,
    missing_key,
    require_module,
    required_container,
)
from emp_trio.assets.stores.providers.azure.account import AzureAccount, AzureContainer
from emp_trio.assets.validators import base_url_problem, without_slash
from emp_trio.errors import ConfigError, InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.secrets import Secret, excerpt

_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*|\$root|\$web")


class AzureProvider:
    """``CLOUD_STORAGE_PROVIDER=azure``."""

    name = "azure"
    aliases: tuple[str, ...] = ()

    def from_env(self, env: Mapping[str, str], report: ReportProblem, *, chosen: bool) -> AzureAccount | None:
        """Read ``AZURE_STORAGE_ACCOUNT``, ``_KEY``, ``_SAS_TOKEN``, ``_AUTH_MODE`` and ``_ENDPOINT``, then
        ``AZURE_STORAGE_CONNECTION_STRING`` of the same account."""
        variable = "AZURE_STORAGE_CONNECTION_STRING"
        parts = dict(part.split("=", 1) for part in env.get(variable, "").split(";") if "=" in part)
        name, key = env.get("AZURE_STORAGE_ACCOUNT"), env.get("AZURE_STORAGE_KEY")
        sas, login = env.get("AZURE_STORAGE_SAS_TOKEN"), env.get("AZURE_STORAGE_AUTH_MODE", "").lower() == "login"
        endpoint = env.get("AZURE_STORAGE_ENDPOINT")
        if variable in env:
            if "AccountName" not in parts or not parts.keys() & {"AccountKey", "SharedAccessSignature"}:
                report(
                    variable,
                    "has no AccountName with an AccountKey or a SharedAccessSignature",
                    "development storage is not supported",
                )
            elif name is not None and name != parts["AccountName"]:
                report(variable, "is of another account than AZURE_STORAGE_ACCOUNT", "unset one of them")
            name, key = name or parts.get("AccountName"), key or parts.get("AccountKey")
            sas = sas or parts.get("SharedAccessSignature")
            if endpoint is None and "BlobEndpoint" in parts:
                endpoint = parts["BlobEndpoint"]
            elif endpoint is None and name and "EndpointSuffix" in parts:
                endpoint = f"{parts.get('DefaultEndpointsProtocol', 'https')}://{name}.blob.{parts['EndpointSuffix']}"
        elif name is None and (key or sas):
            report("AZURE_STORAGE_ACCOUNT", f"is not set although AZURE_STORAGE_{'KEY' if key else 'SAS_TOKEN'} is")
        elif name is not None and not (key or sas or login):
            report(
                "AZURE_STORAGE_KEY",
                "is not set although AZURE_STORAGE_ACCOUNT is",
                "set it, or AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_AUTH_MODE=login to sign in as this machine",
            )
        if name is not None and (text := _account_problem(name)):
            report("AZURE_STORAGE_ACCOUNT" if "AZURE_STORAGE_ACCOUNT" in env else variable, text)
        secret = Secret(key) if key is not None else None
        if secret is not None and (text := _key_problem(secret)):
            report("AZURE_STORAGE_KEY" if "AZURE_STORAGE_KEY" in env else variable, text)
        signature = Secret(sas) if sas is not None else None
        if signature is not None and (text := _sas_problem(signature)):
            report("AZURE_STORAGE_SAS_TOKEN" if "AZURE_STORAGE_SAS_TOKEN" in env else variable, text)
        if endpoint is not None and (text := base_url_problem(endpoint)):
            report("AZURE_STORAGE_ENDPOINT" if "AZURE_STORAGE_ENDPOINT" in env else variable, text)
        elif endpoint is not None and login and not (key or sas) and not endpoint.startswith("https:"):
            report(
                "AZURE_STORAGE_ENDPOINT",
                "is not https, and AZURE_STORAGE_AUTH_MODE=login sends tokens over nothing else",
            )
        if name is None:
            return None
        return AzureAccount(name=name, key=secret, sas=signature, login=login, endpoint=without_slash(endpoint))

    def check_name(self, container: str) -> str | None:
        """Check the name of an Azure container."""
        if _CONTAINER.fullmatch(container):
            return None
        shown = excerpt(container, 80)
        return f"{shown!r} is not an Azure container: 3 to 63 lower-case letters, digits and single hyphens"

    def location_for(
        self, ctx: JobContext, account: AzureAccount | None, container: str | None
    ) -> tuple[AzureContainer, bool]:
        """Return the location. A job's own account needs its key: the worker's key is only for the worker's account."""
        name = ctx.account_name or (account.name if account else None)
        if name is None:
            raise ConfigError(
                "Azure storage needs an account: neither the job's ctx (storage.accountName) nor AZURE_STORAGE_ACCOUNT "
                "in this worker's environment names one"
            )
        if text := _account_problem(name):
            raise InvalidJob(f"ctx.storage.accountName: {text}")
        ours = account is not None and name == account.name
        key, sas, endpoint = ctx.account_key, None, None
        if account is not None and ours:
            key = key or account.key
            sas = account.sas if key is None else None
            endpoint = account.endpoint
            if key is None and sas is None and not account.login:
                raise ConfigError(f"Azure storage needs the key of the account {name}: set AZURE_STORAGE_KEY")
        elif key is None:
            raise missing_key(f"Azure account {name}")
        if key is not None and (text := _key_problem(key)):
            raise InvalidJob(f"ctx.storage.accountKey {text}")
        location = AzureContainer(
            account=name,
            key=key,
            sas=sas,
            endpoint=endpoint or f"https://{name}.blob.core.windows.net",
            container=required_container(container),
        )
        return location, ours or account is None

    def requires(self, location: AzureContainer, ctx: JobContext) -> None:
        """Require ``azure.identity`` if this machine signs in as itself."""
        if location.key is None and location.sas is None:
            require_module("azure.identity", extra=self.name)

    def load(self) -> None:
        """Import Azure's library."""
        import emp_trio.assets.stores.providers.azure.store  # noqa: F401

    def open(self, location: AzureContainer, timeouts: StoreTimeouts) -> AssetStore:
        """Open a container."""
        from emp_trio.assets.stores.providers.azure.store import AzureStore

        return AzureStore(location, timeouts)


def _account_problem(account: str) -> str | None:
    """Check an Azure account name strictly, because it becomes part of a host name."""
    if _ACCOUNT.fullmatch(account):
        return None
    return f"{excerpt(account, 80)!r} is not an Azure account: 3 to 24 lower-case letters and digits"


def _key_problem(key: Secret) -> str | None:
    """Check an Azure account key, without showing it."""
    try:
        base64.b64decode(key.reveal(), validate=True)
    except (binascii.Error, ValueError):
        return "is not an Azure account key: those are base64"
    return None


def _sas_problem(sas: Secret) -> str | None:
    """Check a shared access signature of Azure, without showing it."""
    if "sig" in parse_qs(sas.reveal().removeprefix("?")):
        return None
    return "is not a shared access signature: those look like sv=...&sig=..."


PROVIDER: Final[Provider[AzureAccount, AzureContainer]] = AzureProvider()
