"""Authentication of a connector: none, API key header, bearer token, or user and password."""

from __future__ import annotations

import base64
from typing import TypeAlias

import msgspec

from emp_trio.errors import ConfigError
from emp_trio.secrets import Secret


class NoAuth(msgspec.Struct, frozen=True):
    """No credentials."""


class ApiKeyHeader(msgspec.Struct, frozen=True):
    """The key as it is, in the header of that name (``x-goog-api-key``)."""

    header: str
    key: Secret


class Bearer(msgspec.Struct, frozen=True):
    """``Authorization: Bearer <token>``."""

    token: Secret


class Basic(msgspec.Struct, frozen=True):
    """``Authorization: Basic``, from a user name and a password (RFC 7617)."""

    user: str
    password: Secret


Auth: TypeAlias = NoAuth | ApiKeyHeader | Bearer | Basic


def auth_headers(auth: Auth) -> dict[str, str]:
    """The headers that carry ``auth``; none for an empty secret (a local service that needs no key).

    Raises:
        ConfigError: a credential that can't stand in a header. A line break at its end is the usual cause, and the text
            of a client library's own error would show the secret.
    """
    match auth:
        case ApiKeyHeader(header, key) if key:
            value = key.reveal()
        case Bearer(token) if token:
            header, value = "authorization", f"Bearer {token.reveal()}"
        case Basic(user, password) if user or password:
            header = "authorization"
            value = "Basic " + base64.b64encode(f"{user}:{password.reveal()}".encode()).decode()
        case _:
            return {}
    if not (value.isascii() and value.isprintable()) or value != value.strip():
        raise ConfigError(
            f"the credential for the header {header!r} has a character that can't be sent: "
            "look for a line break or a space at its end"
        )
    return {header.lower(): value}


def auth_secrets(auth: Auth) -> tuple[Secret, ...]:
    """The secrets in ``auth``, so that they can be taken out of texts; what is sent of Basic counts as one."""
    match auth:
        case ApiKeyHeader(_, secret) | Bearer(secret):
            return (secret,)
        case Basic(user, secret):
            return (secret, Secret(base64.b64encode(f"{user}:{secret.reveal()}".encode()).decode()))
        case _:
            return ()
