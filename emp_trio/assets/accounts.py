"""The worker's own accounts with the storage providers, as its environment describes them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from emp_trio.assets.validators import (
    account_problem,
    base_url_problem,
    key_id_problem,
    key_problem,
    region_problem,
    sas_problem,
)
from emp_trio.secrets import Secret

Wrong = Callable[..., None]
"""Takes a variable, what is wrong with it, and what to do."""


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


class GcsAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account of Google Cloud Storage.

    Args:
        credentials: file with them; None means those that Google's library finds (``gcloud``, the machine's own).
        endpoint: base URL of an emulator, which gets credentials only if there is a file with some.
    """

    credentials: Path | None = None
    endpoint: str | None = None


def azure_account(given: Mapping[str, str], wrong: Wrong) -> AzureAccount | None:
    """Azure's account: single variables first, then the connection string of the same account.

    Args:
        given: the environment without its blanks.
        wrong: told of every problem.

    Returns:
        None where the environment names no account.
    """
    variable = "AZURE_STORAGE_CONNECTION_STRING"
    parts = dict(part.split("=", 1) for part in given.get(variable, "").split(";") if "=" in part)
    name, key = given.get("AZURE_STORAGE_ACCOUNT"), given.get("AZURE_STORAGE_KEY")
    sas, login = given.get("AZURE_STORAGE_SAS_TOKEN"), given.get("AZURE_STORAGE_AUTH_MODE", "").lower() == "login"
    endpoint = given.get("AZURE_STORAGE_ENDPOINT")
    if variable in given:
        if "AccountName" not in parts or not parts.keys() & {"AccountKey", "SharedAccessSignature"}:
            wrong(
                variable,
                "has no AccountName with an AccountKey or a SharedAccessSignature",
                "development storage is not supported",
            )
        elif name is not None and name != parts["AccountName"]:
            wrong(variable, "is of another account than AZURE_STORAGE_ACCOUNT", "unset one of them")
        name, key = name or parts.get("AccountName"), key or parts.get("AccountKey")
        sas = sas or parts.get("SharedAccessSignature")
        if endpoint is None and "BlobEndpoint" in parts:
            endpoint = parts["BlobEndpoint"]
        elif endpoint is None and name and "EndpointSuffix" in parts:
            endpoint = f"{parts.get('DefaultEndpointsProtocol', 'https')}://{name}.blob.{parts['EndpointSuffix']}"
    elif name is None and (key or sas):
        wrong("AZURE_STORAGE_ACCOUNT", f"is not set although AZURE_STORAGE_{'KEY' if key else 'SAS_TOKEN'} is")
    elif name is not None and not (key or sas or login):
        wrong(
            "AZURE_STORAGE_KEY",
            "is not set although AZURE_STORAGE_ACCOUNT is",
            "set it, or AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_AUTH_MODE=login to sign in as this machine",
        )
    if name is not None and (text := account_problem(name)):
        wrong("AZURE_STORAGE_ACCOUNT" if "AZURE_STORAGE_ACCOUNT" in given else variable, text)
    secret = Secret(key) if key is not None else None
    if secret is not None and (text := key_problem(secret)):
        wrong("AZURE_STORAGE_KEY" if "AZURE_STORAGE_KEY" in given else variable, text)
    signature = Secret(sas) if sas is not None else None
    if signature is not None and (text := sas_problem(signature)):
        wrong("AZURE_STORAGE_SAS_TOKEN" if "AZURE_STORAGE_SAS_TOKEN" in given else variable, text)
    if endpoint is not None and (text := base_url_problem(endpoint)):
        wrong("AZURE_STORAGE_ENDPOINT" if "AZURE_STORAGE_ENDPOINT" in given else variable, text)
    elif endpoint is not None and login and not (key or sas) and not endpoint.startswith("https:"):
        wrong(
            "AZURE_STORAGE_ENDPOINT", "is not https, and AZURE_STORAGE_AUTH_MODE=login sends tokens over nothing else"
        )
    if name is None:
        return None
    return AzureAccount(name=name, key=secret, sas=signature, login=login, endpoint=_base(endpoint))


def s3_account(given: Mapping[str, str], wrong: Wrong, *, chosen: bool) -> S3Account | None:
    """S3's account.

    Args:
        given, wrong: as in :func:`azure_account`.
        chosen: whether the worker stores in S3. If not, AWS variables that are there for another purpose may be
            incomplete, and only a key that is given counts as an account.

    Returns:
        None where jobs must bring their own.
    """
    key_id, secret = given.get("AWS_ACCESS_KEY_ID"), given.get("AWS_SECRET_ACCESS_KEY")
    if not chosen and not (key_id and secret):
        return None
    if (key_id is None) != (secret is None):
        missing, other = (
            ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY") if key_id is None else ("SECRET_ACCESS_KEY", "ACCESS_KEY_ID")
        )
        wrong(f"AWS_{missing}", f"is not set although AWS_{other} is")
    if key_id is not None and (text := key_id_problem(key_id)):
        wrong("AWS_ACCESS_KEY_ID", text)
    region_variable = "AWS_REGION" if "AWS_REGION" in given else "AWS_DEFAULT_REGION"
    region = given.get(region_variable, "us-east-1")
    if text := region_problem(region):
        wrong(region_variable, text)
    endpoint = None
    for variable in ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if variable in given:
            endpoint = given[variable]
            if text := base_url_problem(endpoint):
                wrong(variable, text)
            break
    token = given.get("AWS_SESSION_TOKEN")
    return S3Account(
        key_id=key_id,
        secret=Secret(secret) if secret else None,
        token=Secret(token) if token and secret else None,
        region=region,
        endpoint=_base(endpoint),
    )


def gcs_account(given: Mapping[str, str], wrong: Wrong, *, chosen: bool) -> GcsAccount | None:
    """Google's account; arguments as in :func:`s3_account`.

    Returns:
        None where there is none: jobs can't bring their own.
    """
    file, endpoint = given.get("GOOGLE_APPLICATION_CREDENTIALS"), given.get("STORAGE_EMULATOR_HOST")
    if not chosen and file is None:
        return None
    if endpoint is not None:
        endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
        if text := base_url_problem(endpoint):
            wrong("STORAGE_EMULATOR_HOST", text)
    return GcsAccount(credentials=Path(file).absolute() if file else None, endpoint=_base(endpoint))


def _base(url: str | None) -> str | None:
    return url.rstrip("/") if url is not None else None
