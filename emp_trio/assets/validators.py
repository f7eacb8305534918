"""Validate addresses and headers of storage, from jobs and from the environment. Pure.

Each ``_problem`` function returns the problem of a value, or None.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_HEADER: Final = re.compile(r"[\x20-\x7e]{1,200}")


def header_problem(value: str) -> str | None:
    """Validate the value of an HTTP header."""
    return None if _HEADER.fullmatch(value) else "can't stand in an HTTP header: at most 200 printable ASCII characters"


def base_url_problem(url: str) -> str | None:
    """Validate a base URL to which keys are appended."""
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
    """Add ``https://`` to a CDN base without a scheme, and remove its trailing slash."""
    return (base if "://" in base else f"https://{base}").rstrip("/")


def without_slash(url: str | None) -> str | None:
    """Remove the trailing slash of a base URL; None stays None."""
    return url.rstrip("/") if url is not None else None
