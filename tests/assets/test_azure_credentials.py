"""Azure without the account's key: with a signature, and as this machine itself."""

from __future__ import annotations

import base64
import datetime
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from emp_trio.assets.config import StorageSettings, storage_settings
from emp_trio.assets.destination import destination
from emp_trio.assets.storage import open_asset_storage
from emp_trio.assets.stores.providers.azure.account import AzureAccount, AzureContainer
from emp_trio.errors import AssetError, ConfigError
from emp_trio.jobs import JobContext
from emp_trio.retry import RetryPolicy
from emp_trio.secrets import Secret
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.azurite import Azurite, running_azurite
from emp_trio.testing.png import make_png
from emp_trio.testing.serve import open_server
from tests.assets.support import a_job

PNG = make_png()
TLS = Path(__file__).parents[1] / "data" / "tls"


def signed(azurite: Azurite, *, hours: float = 1.0, permission: str = "rcw") -> str:
    """A shared access signature."""
    return generate_account_sas(
        azurite.account,
        azurite.key.reveal(),
        resource_types=ResourceTypes(object=True, container=True),
        permission=AccountSasPermissions.from_string(permission),
        expiry=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours),
    )


def settings(environment: dict[str, str], **changes: str) -> StorageSettings:
    env = {name: value for name, value in environment.items() if name != "AZURE_STORAGE_KEY"} | changes
    return msgspec.structs.replace(storage_settings(env), retry=RetryPolicy(retries=0))


@pytest.mark.parametrize("form", ["{}", "?{}"])
async def test_a_signature_instead_of_the_key(azurite: Azurite, container: str, form: str) -> None:
    sas = form.format(signed(azurite))
    async with open_asset_storage(settings(azurite.environment(container), AZURE_STORAGE_SAS_TOKEN=sas)) as saver:
        for data in (PNG, bytes(9 * 2**20)):
            saved = await saver.save(data, a_job(), FakeAttempt())
            assert "sig=" not in saved.file_url
            with azurite.client() as client:
                assert client.get_blob_client(container, saved.file_path).download_blob().readall() == data


@pytest.mark.parametrize("wrong", [{"hours": -1.0}, {"permission": "r"}], ids=["expired", "may not write"])
async def test_a_signature_that_does_not_do(azurite: Azurite, container: str, wrong: dict[str, Any]) -> None:
    sas = signed(azurite, **wrong)
    async with open_asset_storage(settings(azurite.environment(container), AZURE_STORAGE_SAS_TOKEN=sas)) as saver:
        with pytest.raises(AssetError, match=r"is paid for") as caught:
            await saver.save(PNG, a_job(), FakeAttempt())
    assert (caught.value.type, caught.value.retry) == ("auth_error", False)
    assert sas.partition("sig=")[2] not in str(caught.value) + repr(caught.value.__cause__)


def _token() -> str:
    """A token as Azure gives it to a machine for storage; nobody here looks at the signature."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
        "iat": now,
        "nbf": now - 5,
        "exp": now + 3600,
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims, {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)


async def test_this_machines_own_identity(monkeypatch: pytest.MonkeyPatch, azurite_cache: Path) -> None:
    asked: list[Request] = []

    async def identity(request: Request) -> JSONResponse:
        asked.append(request)
        if len(asked) > 1:
            return JSONResponse({"error": "gone"}, 400)
        return JSONResponse(
            {"access_token": _token(), "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
        )

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS / "ca.pem"))
    async with open_server(Starlette(routes=[Route("/token", identity)])) as url:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{url}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "a secret")
        with running_azurite(azurite_cache, certificate=TLS / "server.pem") as azurite:
            azurite.create_container("images")
            login = settings(azurite.environment("images"), AZURE_STORAGE_AUTH_MODE="login")
            async with open_asset_storage(login) as saver:
                saved = await saver.save(PNG, a_job(), FakeAttempt())
                await saver.save(PNG, a_job("another"), FakeAttempt())
                assert len(asked) == 1  # the token is used again
                with azurite.client() as client:
                    assert client.get_blob_client("images", saved.file_path).download_blob().readall() == PNG
            async with open_asset_storage(login) as saver:
                with pytest.raises(AssetError, match=r"sign in.*AZURE_STORAGE_AUTH_MODE.* is paid for") as caught:
                    await saver.save(PNG, a_job("x"), FakeAttempt())
    assert caught.value.type == "auth_error"


def test_the_key_comes_first() -> None:
    env = {"AZURE_STORAGE_ACCOUNT": "ours", "CLOUD_STORAGE_PROVIDER": "azure", "CLOUD_STORAGE_CONTAINER": "images"}
    both = env | {"AZURE_STORAGE_KEY": "a2V5", "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=abc"}
    location = destination(JobContext(), storage_settings(both)).location
    assert isinstance(location, AzureContainer)
    assert (location.key, location.sas) == (Secret("a2V5"), None)
    location = destination(JobContext(), settings(both)).location
    assert isinstance(location, AzureContainer)
    assert (location.key, location.sas) == (None, Secret("sv=1&sig=abc"))
    location = destination(JobContext(account_key=Secret("am9i")), settings(both)).location
    assert isinstance(location, AzureContainer)
    assert (location.key, location.sas) == (Secret("am9i"), None)  # the job's own key, and not ours with it


def test_a_connection_string_may_hold_a_signature() -> None:
    text = "BlobEndpoint=https://ours.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=abc;AccountName=ours"
    found = storage_settings({"AZURE_STORAGE_CONNECTION_STRING": text})
    assert found.accounts["azure"] == AzureAccount(
        name="ours", sas=Secret("sv=1&sig=abc"), endpoint="https://ours.blob.core.windows.net"
    )
    assert "abc" not in repr(found)
    with pytest.raises(ConfigError, match="AZURE_STORAGE_SAS_TOKEN"):
        storage_settings({"AZURE_STORAGE_ACCOUNT": "ours", "AZURE_STORAGE_SAS_TOKEN": "nonsense"})
