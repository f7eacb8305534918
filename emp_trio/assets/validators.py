"""The forms that names, keys and addresses of storage must have, whoever gives them. Pure.

Each function returns what is wrong with a value, or None.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final
from urllib.parse import parse_qs, urlsplit

from emp_trio.secrets import Secret, excerpt

_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*|\$root|\$web")
_S3_BUCKET: Final = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_GCS_BUCKET: Final = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_KEY_ID: Final = re.compile(r"[\x21-\x2b\x2d\x2e\x30-\x7e]{1,128}")
_HEADER: Final = re.compile(r"[\x20-\x7e]{1,200}")


def account_problem(account: str) -> str | None:
    """An Azure account. It becomes part of a host name, so nothing else may pass."""
    if _ACCOUNT.fullmatch(account):
        return None
    return f"{excerpt(account, 80)!r} is not an Azure account: 3 to 24 lower-case letters and digits"


def container_problem(container: str) -> str | None:
    """An Azure container."""
    if _CONTAINER.fullmatch(container):
        return None
    return (
        f"{excerpt(container, 80)!r} is not an Azure container: 3 to 63 lower-case letters, digits and single hyphens"
    )


def key_problem(key: Secret) -> str | None:
    """An Azure account key (which is not shown)."""
    try:
        base64.b64decode(key.reveal(), validate=True)
    except (binascii.Error, ValueError):
        return "is not an Azure account key: those are base64"
    return None


def sas_problem(sas: Secret) -> str | None:
    """A shared access signature of Azure (which is not shown)."""
    if "sig" in parse_qs(sas.reveal().removeprefix("?")):
        return None
    return "is not a shared access signature: those look like sv=...&sig=..."


def s3_bucket_problem(bucket: str) -> str | None:
    """An S3 bucket. It becomes part of a host name or path, so nothing else may pass."""
    if _S3_BUCKET.fullmatch(bucket):
        return None
    return f"{excerpt(bucket, 80)!r} is not an S3 bucket: 3 to 63 lower-case letters, digits, hyphens and single dots"


def gcs_bucket_problem(bucket: str) -> str | None:
    """A bucket of Google Cloud Storage."""
    if _GCS_BUCKET.fullmatch(bucket):
        return None
    shown = excerpt(bucket, 80)
    return f"{shown!r} is not a Google bucket: 3 to 222 lower-case letters, digits, hyphens, underscores and dots"


def region_problem(region: str) -> str | None:
    """An AWS region. It becomes part of a host name."""
    return None if _REGION.fullmatch(region) else f"{excerpt(region, 80)!r} is not a region such as eu-central-1"


def key_id_problem(key_id: str) -> str | None:
    """An AWS access key id. It stands in a header, between slashes and commas."""
    return None if _KEY_ID.fullmatch(key_id) else "is not an access key id"


def header_problem(value: str) -> str | None:
    """The value of an HTTP header."""
    return None if _HEADER.fullmatch(value) else "can't stand in an HTTP header: at most 200 printable ASCII characters"


def base_url_problem(url: str) -> str | None:
    """A base URL to which keys are appended."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\x00-\x20\x7f\\]", url):
        return "is not an http or https URL"
    if parts.username is not None or parts.password is not None:
        return "holds credentials, which would end up in every result"
    if "?" in url or "#" in url:
        return "has a query or fragment, and keys are appended to it"
    return None


def with_scheme(base: str) -> str:
    """A CDN base with ``https://`` in front unless it has a scheme, and without a slash at its end."""
    return (base if "://" in base else f"https://{base}").rstrip("/")
