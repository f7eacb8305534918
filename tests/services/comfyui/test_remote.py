"""ComfyUI elsewhere: addresses, credentials, proxies, certificates (ComfyUI reference 7; connector reference 5)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ConfigError, EmpTrioError, ServiceError
from emp_trio.protocols.auth import ApiKeyHeader, Basic, Bearer, NoAuth
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.websocket import WebSocketSettings
from emp_trio.secrets import Secret
from emp_trio.services.address import auth_of
from emp_trio.services.comfyui.connectors import ComfyUIRemoteConnector
from emp_trio.services.comfyui.settings import ComfyUISettings, located
from emp_trio.testing.attempt import run_job
from emp_trio.testing.comfyui import FakeComfyUI, open_fake_comfyui
from tests.services.comfyui.support import image, open_comfyui, runs
from tests.services.support import job

SECRET = "s3cret-of-the-proxy"
TLS = Path(__file__).parents[2] / "data" / "tls"


def settings(*, base_url: str = "", url: str = "", **comfyui: Any) -> Any:
    return ComfyUIRemoteConnector.Settings(
        comfyui=ComfyUISettings(**({"host": "gpu"} | comfyui)),
        http=HttpSettings(base_url=base_url),
        websocket=WebSocketSettings(url=url),
    )


@pytest.mark.parametrize(
    ("given", "base", "socket"),
    [
        ({}, "http://gpu:8188", "ws://gpu:8188/ws"),
        ({"port": 9000, "secure": True}, "https://gpu:9000", "wss://gpu:9000/ws"),
        ({"host": "::1"}, "http://[::1]:8188", "ws://[::1]:8188/ws"),
        ({"host": "https://gpu.example/comfy/"}, "https://gpu.example/comfy/", "wss://gpu.example/comfy/ws"),
        ({"base_url": "https://x.example/gpu/7/api"}, "https://x.example/gpu/7/api", "wss://x.example/gpu/7/api/ws"),
        ({"base_url": "http://x/?token=t"}, "http://x/?token=t", "ws://x/ws?token=t"),
        ({"url": "wss://x.example:8443/api/ws"}, "https://x.example:8443/api", "wss://x.example:8443/api/ws"),
        ({"base_url": "http://a", "url": "ws://b/socket"}, "http://a", "ws://b/socket"),
    ],
)
def test_addresses(given: dict[str, Any], base: str, socket: str) -> None:
    found = located(settings(**given))
    assert (found.http.base_url, found.websocket.url) == (base, socket)


@pytest.mark.parametrize("where", ["base_url", "url"])
def test_credentials_in_an_address_become_a_header(where: str) -> None:
    """7: they never reach a log."""
    scheme = "https" if where == "base_url" else "wss"
    found = located(settings(**{where: f"{scheme}://me:{SECRET}%21@x.example/p"}))
    assert SECRET not in found.http.base_url + found.websocket.url
    assert auth_of(found.comfyui) == Basic("me", Secret(f"{SECRET}!"))
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("given", "auth"),
    [
        ({}, NoAuth()),
        ({"username": "u", "password": Secret("p")}, Basic("u", Secret("p"))),
        ({"api_key": Secret("k")}, Bearer(Secret("k"))),
        ({"api_key": Secret("k"), "api_key_header": "X-API-Key"}, ApiKeyHeader("X-API-Key", Secret("k"))),
        ({"api_key": Secret("k"), "username": "u"}, Bearer(Secret("k"))),
    ],
)
def test_credentials(given: dict[str, Any], auth: Any) -> None:
    assert auth_of(settings(**given).comfyui) == auth


@pytest.mark.parametrize("address", ["http://[broken", "ftp://x", "x y"])
async def test_an_address_that_can_not_be_read_is_a_fault_of_the_configuration(
    address: str, connector_context: ConnectorContext
) -> None:
    async with open_fake_comfyui() as fake:
        with pytest.raises(ConfigError):
            async with open_comfyui(fake, connector_context, http={"base_url": address}, quiet=False):
                pass


AUTHS = {
    "basic": (
        {"username": "me", "password": Secret(SECRET)},
        "authorization",
        "Basic bWU6czNjcmV0LW9mLXRoZS1wcm94eQ==",
    ),
    "bearer": ({"api_key": Secret(SECRET)}, "authorization", f"Bearer {SECRET}"),
    "header": ({"api_key": Secret(SECRET), "api_key_header": "X-API-Key"}, "x-api-key", SECRET),
}


@pytest.mark.parametrize("kind", AUTHS)
async def test_a_proxy_with_a_path_and_credentials(connector_context: ConnectorContext, kind: str) -> None:
    """7: on every call, on the upgrade and on /view."""
    given, header, value = AUTHS[kind]
    with capture_logs() as logs:
        async with open_fake_comfyui() as fake:
            fake.base_path, fake.demands = "/gpu/7", {header: value}
            http = {"base_url": f"{fake.url}/api"}
            async with open_comfyui(
                fake, connector_context, cls=ComfyUIRemoteConnector, http=http, **given
            ) as connector:
                result = await run_job(connector, job({"workflow": image()}))
                assert (await connector.health()).healthy
            assert {request.headers.get(header) for request in fake.requests} == {value}
            assert fake.count("GET /ws") == fake.process.opened == 1
            assert fake.count("GET /view") == 1
    assert SECRET not in str(logs) + str(msgspec.to_builtins(result))


async def test_wrong_credentials_are_told_and_not_repeated_in_a_loop(
    connector_context: ConnectorContext, in_time: None
) -> None:
    """7: one client ran itself out of memory that way."""
    async with open_fake_comfyui() as fake:
        fake.demands = {"authorization": "Bearer right"}
        key = {"api_key": Secret("wrong-" + SECRET), "reconnect_delay": 0.5}
        async with open_comfyui(fake, connector_context, cls=ComfyUIRemoteConnector, quiet=False, **key) as connector:
            health = await connector.health()
            assert not health.healthy
            assert SECRET not in health.detail
            with pytest.raises(ServiceError) as caught:
                await run_job(connector, job({"workflow": image()}))
            assert (caught.value.type, caught.value.retry) == ("auth_error", False)
            assert SECRET not in caught.value.message
            assert fake.count("GET /ws") == 1


@pytest.mark.parametrize(
    ("status", "headers", "content_type"),
    [(200, {}, "text/html; charset=utf-8"), (302, {"location": "/login"}, "text/html")],
)
@pytest.mark.parametrize("route", ["GET /object_info", "POST /prompt", "GET /view"])
async def test_a_login_page_is_a_matter_of_credentials(
    connector: Any, fake: FakeComfyUI, status: int, headers: dict[str, str], content_type: str, route: str
) -> None:
    """7: 3xx to a login page, or 200 with HTML."""
    fake.inject(route, status, b"<html>please log in</html>", headers=headers, content_type=content_type, times=9)
    fake.inject("GET /login", 200, b"<html>please log in</html>", content_type="text/html", times=9)
    with pytest.raises(EmpTrioError) as caught:
        await run_job(connector, job({"workflow": image()}))
    assert (caught.value.type, caught.value.retry) == ("auth_error", False)
    assert runs(fake) == (1 if route == "GET /view" else 0)


async def test_a_certificate_of_its_own_making_is_accepted_only_where_that_is_asked_for(
    connector_context: ConnectorContext,
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(TLS / "server.pem")
    async with open_fake_comfyui(tls=tls) as fake:
        async with open_comfyui(fake, connector_context, cls=ComfyUIRemoteConnector, quiet=False) as connector:
            health = await connector.health()
            assert not health.healthy
            assert "certificate" in health.detail.lower()
            await connector.server.probe.verdict()
            assert fake.requests == []
        http = {"verify_tls": False}
        async with open_comfyui(fake, connector_context, cls=ComfyUIRemoteConnector, http=http) as connector:
            assert (await run_job(connector, job({"workflow": image()}))).success
            assert fake.process.opened == 1
