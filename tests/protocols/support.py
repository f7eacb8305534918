"""Connectors made of single mixins, a connector_context without storage, and certificates of the tests' own."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from emp_trio.attempt import AttemptContext
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, SavedAsset
from emp_trio.protocols.auth import Auth, NoAuth
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.streaming import Streaming
from emp_trio.protocols.websocket import WebSocket, WebSocketSession, WebSocketSettings
from emp_trio.services.connector import Connector, open_connector


class MemoryAssets:
    """An asset saver that keeps what it is given."""

    def __init__(self) -> None:
        self.saved: list[dict[str, Any]] = []

    def check(self, job: Job) -> None:
        """Any job will do."""

    async def save(
        self, data: Any, job: Job, context: AttemptContext, *, media_type: str | None = None, index: int = 0
    ) -> SavedAsset:
        self.saved.append({"data": data, "job": job.id, "media_type": media_type, "index": index})
        return SavedAsset(
            file_path=f"a/{job.id}-{index}",
            file_name=f"{job.id}-{index}",
            file_url="http://store/a",
            cdn_url="http://cdn/a",
            media_type=media_type or "application/octet-stream",
            size=len(data),
            sha256="0" * 64,
        )


def connector_context(assets: MemoryAssets | None = None) -> ConnectorContext:
    return ConnectorContext(assets=assets or MemoryAssets(), user_agent="emp-trio-test/1")


class HttpProbe(Http, Streaming, Limits, Connector):
    """A connector that is only its mixins."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        http: HttpSettings
        limits: LimitsSettings = LimitsSettings()

    credentials: Auth = NoAuth()

    def auth(self) -> Auth:
        return self.credentials


@asynccontextmanager
async def open_http(
    base_url: str, *, auth: Auth | None = None, limits: LimitsSettings | None = None, **settings: Any
) -> AsyncIterator[HttpProbe]:
    """A connector on ``base_url`` that retries quickly."""
    http = HttpSettings(base_url=base_url, **{"retry_delay": 0.001, **settings})
    opening = open_connector(
        HttpProbe, HttpProbe.Settings(http=http, limits=limits or LimitsSettings()), connector_context()
    )
    async with opening as probe:
        probe.credentials = auth or NoAuth()
        yield probe


async def failure(probe: HttpProbe, method: str = "GET", **options: object) -> ServiceError:
    """The error of a call, which names it without its query."""
    with pytest.raises(ServiceError) as caught:
        await probe.http.request(method, "/path?token=hidden", **options)  # type: ignore[arg-type]
    assert f"{method} http" in str(caught.value)
    assert "/path" in str(caught.value)
    assert "hidden" not in str(caught.value)
    return caught.value


def kind(error: ServiceError) -> tuple[str, str, bool]:
    """Type, reason and whether another attempt makes sense."""
    return error.type, error.reason, error.retry


class SocketProbe(WebSocket, Connector):
    """A connector that only has sockets."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        websocket: WebSocketSettings

    credentials: Auth = NoAuth()

    def auth(self) -> Auth:
        return self.credentials


@asynccontextmanager
async def open_websocket(url: str, *, auth: Auth | None = None, **settings: Any) -> AsyncIterator[SocketProbe]:
    """A connector with a socket to ``url``."""
    websocket = WebSocketSettings(url=url, **settings)
    async with open_connector(SocketProbe, SocketProbe.Settings(websocket=websocket), connector_context()) as probe:
        probe.credentials = auth or NoAuth()
        yield probe


@asynccontextmanager
async def open_socket(url: str, **settings: Any) -> AsyncIterator[WebSocketSession]:
    """An open socket to ``url``."""
    async with open_websocket(url, **settings) as probe, probe.websocket.open() as socket:
        yield socket


async def drain(socket: WebSocketSession) -> list[str | bytes]:
    """All messages up to the normal end."""
    return [message async for message in socket.messages()]


def self_signed(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for 127.0.0.1 with a certificate that nobody has signed, and its file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate_file, key_file)
    return context, certificate_file
