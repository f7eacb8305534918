"""Storage settings and destinations: the job first, the environment second, the operator's key for nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emp_trio.assets.config import storage_settings
from emp_trio.assets.destination import Destination, destination
from emp_trio.assets.stores.providers import azure, local
from emp_trio.assets.stores.providers.azure.account import AzureAccount, AzureContainer
from emp_trio.assets.stores.providers.local.provider import LocalFolder, LocalRoot
from emp_trio.errors import ConfigError, EmpTrioError, InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.secrets import Secret

KEY = "b3VyIG93biBrZXk="
JOB_KEY = "am9iJ3Mga2V5"
AZURE = {
    "CLOUD_STORAGE_PROVIDER": "azure",
    "CLOUD_STORAGE_CONTAINER": "images",
    "CLOUD_CDN_URL": "cdn.example.com/",
    "AZURE_STORAGE_ACCOUNT": "ours",
    "AZURE_STORAGE_KEY": KEY,
}
LOCAL = {"CLOUD_STORAGE_PROVIDER": "local", "LOCAL_STORAGE_PATH": "/assets"}


def where(env: dict[str, str], **ctx: Any) -> Destination:
    return destination(JobContext(**ctx), storage_settings(env))


def test_environment_alone() -> None:
    assert where(AZURE) == Destination(
        provider=azure.PROVIDER,
        location=AzureContainer(
            account="ours", key=Secret(KEY), endpoint="https://ours.blob.core.windows.net", container="images"
        ),
        cdn_url="https://cdn.example.com",
    )
    assert where(LOCAL) == Destination(provider=local.PROVIDER, location=LocalFolder(root=Path("/assets")))
    assert where(LOCAL | {"CLOUD_STORAGE_CONTAINER": "p"}).location == LocalFolder(root=Path("/assets"), container="p")


def test_the_job_comes_first_field_by_field() -> None:
    found = where(AZURE, bucket="films", cdn_url="http://other.example.com/x/")
    assert found.cdn_url == "http://other.example.com/x"
    assert isinstance(found.location, AzureContainer)
    assert (found.location.account, found.location.container, found.location.key) == ("ours", "films", Secret(KEY))
    assert where(AZURE, account_key=Secret(JOB_KEY)).location.key == Secret(JOB_KEY)


def test_a_job_with_its_own_account_gets_nothing_of_ours() -> None:
    env = AZURE | {"AZURE_STORAGE_ENDPOINT": "https://blobs.internal/ours"}
    assert where(env).location.endpoint == "https://blobs.internal/ours"
    found = where(env, account_name="theirs", account_key=Secret(JOB_KEY))
    assert found == Destination(
        provider=azure.PROVIDER,
        location=AzureContainer(
            account="theirs", key=Secret(JOB_KEY), endpoint="https://theirs.blob.core.windows.net", container="images"
        ),
    )
    with pytest.raises(InvalidJob, match="brings no key"):
        where(env, account_name="theirs")


def test_a_jobs_storage_works_on_a_worker_without_any() -> None:
    found = where({}, provider="Azure", account_name="theirs", account_key=Secret(JOB_KEY), bucket="films")
    assert isinstance(found.location, AzureContainer)
    found = where(LOCAL, provider="azure", account_name="theirs", account_key=Secret(JOB_KEY), bucket="films")
    assert isinstance(found.location, AzureContainer)


def test_the_cdn_of_another_provider_is_not_used() -> None:
    env = AZURE | {"LOCAL_STORAGE_PATH": "/assets"}
    assert where(env, provider="local") == Destination(
        provider=local.PROVIDER, location=LocalFolder(root=Path("/assets"), container="images")
    )


@pytest.mark.parametrize(
    ("env", "ctx", "error", "words"),
    [
        ({}, {}, ConfigError, "CLOUD_STORAGE_PROVIDER to azure, .* LOCAL_STORAGE_PATH"),
        ({}, {"provider": "local"}, ConfigError, "LOCAL_STORAGE_PATH"),
        ({}, {"provider": "azure"}, ConfigError, "AZURE_STORAGE_ACCOUNT"),
        (AZURE | {"CLOUD_STORAGE_CONTAINER": ""}, {}, ConfigError, "CLOUD_STORAGE_CONTAINER"),
        (AZURE, {"provider": "aws"}, ConfigError, "AWS_ACCESS_KEY_ID"),
        (AZURE, {"provider": "google"}, ConfigError, "GOOGLE_APPLICATION_CREDENTIALS"),
        (AZURE, {"provider": "floppy"}, InvalidJob, "not known"),
        (AZURE, {"bucket": "UPPER"}, InvalidJob, "container"),
        (AZURE, {"bucket": "a/b"}, InvalidJob, "container"),
        (AZURE, {"bucket": "a--b"}, InvalidJob, "container"),
        (LOCAL, {"bucket": "../x"}, InvalidJob, "container"),
        (LOCAL, {"bucket": ".."}, InvalidJob, "container"),
        (AZURE, {"account_name": "evil.com/x#", "account_key": Secret(JOB_KEY)}, InvalidJob, "accountName"),
        (AZURE, {"account_key": Secret("not base64!")}, InvalidJob, "accountKey"),
        (AZURE, {"cdn_url": "ftp://x"}, InvalidJob, "cdnUrl"),
        (AZURE, {"cdn_url": "https://user:pw@x"}, InvalidJob, "credentials"),
        (AZURE, {"cdn_url": "https://x?y=1"}, InvalidJob, "query"),
        (AZURE, {"cdn_url": "https://"}, InvalidJob, "cdnUrl"),
        (AZURE, {"cdn_url": "javascript:alert(1)"}, InvalidJob, "cdnUrl"),
    ],
)
def test_unusable_destinations(env: dict[str, str], ctx: dict[str, Any], error: type[EmpTrioError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        where(env, **ctx)
    assert not caught.value.retry
    assert "not base64!" not in str(caught.value)


def test_blank_is_unset() -> None:
    assert storage_settings({"CLOUD_STORAGE_PROVIDER": " ", "AZURE_STORAGE_KEY": ""}) == storage_settings({})


def test_every_problem_comes_out_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        storage_settings(
            {
                "CLOUD_STORAGE_PROVIDER": "floppy",
                "CLOUD_CDN_URL": "https://x#y",
                "AZURE_STORAGE_ACCOUNT": "Not An Account",
                "AZURE_STORAGE_KEY": "%%secret%%",
                "AZURE_STORAGE_ENDPOINT": "blobs",
            }
        )
    assert {problem.variable for problem in caught.value.problems} == {
        "CLOUD_STORAGE_PROVIDER",
        "CLOUD_CDN_URL",
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_ENDPOINT",
    }
    assert "use azure, gcs, local or s3" in str(caught.value)
    assert "%%secret%%" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"CLOUD_STORAGE_PROVIDER": "azzure"}, "CLOUD_STORAGE_PROVIDER"),
        ({"CLOUD_STORAGE_PROVIDER": "local"}, "LOCAL_STORAGE_PATH"),
        (LOCAL | {"CLOUD_STORAGE_CONTAINER": "../x"}, "CLOUD_STORAGE_CONTAINER"),
        (AZURE | {"CLOUD_STORAGE_CONTAINER": "X"}, "CLOUD_STORAGE_CONTAINER"),
        ({"AZURE_STORAGE_ACCOUNT": "ours"}, "AZURE_STORAGE_KEY"),
        ({"AZURE_STORAGE_KEY": KEY}, "AZURE_STORAGE_ACCOUNT"),
        (
            {
                "AZURE_STORAGE_ACCOUNT": "ours",
                "AZURE_STORAGE_AUTH_MODE": "login",
                "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1",
            },
            "AZURE_STORAGE_ENDPOINT",
        ),
        ({"CLOUD_STORAGE_CACHE_CONTROL": "a\nb: c"}, "CLOUD_STORAGE_CACHE_CONTROL"),
        (AZURE | {"CLOUD_STORAGE_PROVIDER": "s3", "AWS_REGION": "evil.com/"}, "AWS_REGION"),
        ({"AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true"}, "AZURE_STORAGE_CONNECTION_STRING"),
        (
            AZURE | {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=other;AccountKey={KEY}"},
            "AZURE_STORAGE_CONNECTION_STRING",
        ),
    ],
)
def test_problems_name_their_variable(env: dict[str, str], variable: str) -> None:
    with pytest.raises(ConfigError) as caught:
        storage_settings(env)
    assert [problem.variable for problem in caught.value.problems] == [variable]


def test_a_connection_string_says_it_all() -> None:
    text = f"DefaultEndpointsProtocol=https;AccountName=ours;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"
    settings = storage_settings({"AZURE_STORAGE_CONNECTION_STRING": text})
    endpoint = "https://ours.blob.core.chinacloudapi.cn"
    assert settings.accounts["azure"] == AzureAccount(name="ours", key=Secret(KEY), endpoint=endpoint)
    explicit = storage_settings({"AZURE_STORAGE_CONNECTION_STRING": text + ";BlobEndpoint=http://127.0.0.1:1/ours/"})
    assert explicit.accounts["azure"].endpoint == "http://127.0.0.1:1/ours"


def test_a_relative_folder_is_made_absolute() -> None:
    settings = storage_settings({"CLOUD_STORAGE_PROVIDER": "local", "LOCAL_STORAGE_PATH": "out"})
    assert settings.accounts["local"] == LocalRoot(path=Path.cwd() / "out")


def test_no_secret_shows() -> None:
    assert KEY not in repr(storage_settings(AZURE)) + repr(where(AZURE))
