"""Servers that people run themselves: an address made of host and port, and the login that goes with it."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from emp_trio.protocols.auth import ApiKeyHeader, Auth, Basic, Bearer, NoAuth
from emp_trio.secrets import Secret


class Login(Protocol):
    """Settings that say how to log in."""

    @property
    def username(self) -> str:
        """User of Basic credentials."""

    @property
    def password(self) -> Secret:
        """Their password."""

    @property
    def api_key(self) -> Secret:
        """A bearer token, or the value of the header that is named."""

    @property
    def api_key_header(self) -> str:
        """Name of the header for the key."""


def auth_of(login: Login) -> Auth:
    """The credentials; the API key where there are several, as a bearer token or in the header that is named."""
    if login.api_key:
        return ApiKeyHeader(login.api_key_header, login.api_key) if login.api_key_header else Bearer(login.api_key)
    return Basic(login.username, login.password) if login.username or login.password else NoAuth()


def address_of(host: str, port: int, *, secure: bool) -> str:
    """The URL of a host, which may be an IPv6 address, or a whole URL: then that is the answer."""
    if "://" in host:
        return host
    shown = f"[{host}]" if ":" in host and "/" not in host else host
    return f"{'https' if secure else 'http'}://{shown}:{port}"


def without_user(url: str) -> tuple[str, str, str]:
    """A URL without credentials and fragment, and those credentials.

    Raises:
        ValueError: a URL that can't be read.
    """
    parts = urlsplit(url)
    cleaned = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    return cleaned, unquote(parts.username or ""), unquote(parts.password or "")
