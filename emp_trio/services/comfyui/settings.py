"""Settings of the ComfyUI connectors, and the addresses derived from them.

Sources: connector reference 5.1, 5.2; ComfyUI reference 7.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgspec

from emp_trio.errors import ConfigError
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.urls import shown_url
from emp_trio.protocols.websocket import WebSocketSettings
from emp_trio.secrets import Secret
from emp_trio.services.address import address_of, without_user
from emp_trio.settings import part_of

_Seconds = Annotated[float, msgspec.Meta(gt=0)]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]

S = TypeVar("S", bound=msgspec.Struct)

SERVICE_TYPE: Final = "comfyui"


class ComfyUISettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is, how to log in, and what its jobs may do. All times in seconds.

    Attributes:
        host, port, secure: where it is, unless ``base_url`` says; ``secure`` means TLS. A host may be a whole URL.
        username, password: sent as Basic credentials.
        api_key: sent as a bearer token, or as it is in the header ``api_key_header`` where that is set.
        accept_partial: run what is left of a graph of which the server drops outputs, instead of failing the job.
        call_timeout: for one short call; a busy server answers late.
        transfer_timeout: for one file, which may stand still for the read timeout only.
        cleanup_timeout: for stopping a prompt when its job is stopped.
        canary_timeout: within which an idle server must have run a tiny graph, or it counts as one that does no work.
        canary_interval: between two looks at a server that is under suspicion.
        stall_timeout: how long a server with work in hand may give no sign of life (a message about a prompt, a change
            of what runs, of its history or of its memory) before it is suspect: then it gets no jobs, and those of ours
            that wait in its queue are taken back. What runs there is left alone; the first sign of life ends it.
        reconnect_delay, reconnect_cap: before the first reconnect of the socket, doubled up to the cap.
    """

    host: str
    port: _Port = 8188
    secure: bool = False
    username: str = ""
    password: Secret = Secret("")
    api_key: Secret = Secret("")
    api_key_header: str = ""
    accept_partial: bool = False
    call_timeout: _Seconds = 30.0
    transfer_timeout: _Seconds = 3600.0
    cleanup_timeout: _Seconds = 5.0
    canary_timeout: _Seconds = 30.0
    canary_interval: _Seconds = 5.0
    stall_timeout: _Seconds = 120.0
    reconnect_delay: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    reconnect_cap: Annotated[float, msgspec.Meta(ge=0)] = 30.0


def located(settings: S) -> S:
    """Connector settings in which ``http.base_url`` and ``websocket.url`` are set, and neither holds credentials.

    The HTTP address is ``base_url``, what the socket's URL implies, or made of host and port; the socket is beside it
    under ``/ws`` unless its URL is given. Path and query of the address (a proxy's prefix, a token) hold for both.

    Raises:
        ConfigError: an address that can't be read.
    """
    comfyui, http = part_of(settings, ComfyUISettings), part_of(settings, HttpSettings)
    websocket = part_of(settings, WebSocketSettings)
    default = address_of(comfyui.host, comfyui.port, secure=comfyui.secure)
    try:
        base, user, password = without_user(http.base_url or _http_of(websocket.url) or default)
        socket, socket_user, socket_password = without_user(websocket.url or _socket_of(base))
    except ValueError as error:
        address = shown_url(http.base_url or websocket.url or default)
        raise ConfigError(f"the address of ComfyUI can't be read: {address}") from error
    user, password = user or socket_user, password or socket_password
    if user and not comfyui.username:
        comfyui = msgspec.structs.replace(comfyui, username=user, password=Secret(password))
    return msgspec.structs.replace(
        settings,
        comfyui=comfyui,
        http=msgspec.structs.replace(http, base_url=base),
        websocket=msgspec.structs.replace(websocket, url=socket),
    )


def _socket_of(base: str) -> str:
    parts = urlsplit(base)
    return urlunsplit(
        (parts.scheme.replace("http", "ws", 1), parts.netloc, parts.path.rstrip("/") + "/ws", parts.query, "")
    )


def _http_of(socket: str) -> str:
    parts = urlsplit(socket)
    path = parts.path.rstrip("/").removesuffix("/ws")
    return urlunsplit((parts.scheme.replace("ws", "http", 1), parts.netloc, path, parts.query, "")) if socket else ""
