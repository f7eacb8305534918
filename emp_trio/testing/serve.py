"""Run an ASGI application on a real loopback socket, inside a nursery of its own."""

from __future__ import annotations

import functools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from emp_trio.nursery import open_background


@asynccontextmanager
async def open_server(app: Any, port: int = 0, *, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve ``app`` over HTTP, with hypercorn.

    Args:
        app: an ASGI 3 application; its lifespan is run.
        port: 0 for any free one.
        host: address to bind, IPv4 or IPv6.

    Yields:
        the base URL (``http://127.0.0.1:40123``), once connections are accepted.

    Raises:
        OSError: the address can't be bound.

    Not meant for WebSockets: two tasks that send on one of them at a time bring hypercorn down.

    When the block ends the server stops at once: open connections are closed, running handlers are cancelled.
    """
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.accesslog = None
    config.loglevel = "WARNING"
    bound = _bind(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
    config.bind = [f"fd://{bound.detach()}"]
    async with open_background() as nursery:
        await nursery.start(functools.partial(serve, app, config, shutdown_trigger=trio.sleep_forever))
        yield url


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
