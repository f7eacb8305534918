"""The loopback server: it is there inside the block and gone after it."""

from __future__ import annotations

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from emp_trio.testing.serve import open_server


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


async def hang(request: Request) -> Response:
    request.app.state.hanging.set()
    await trio.sleep_forever()
    raise AssertionError


def application() -> Starlette:
    app = Starlette(routes=[Route("/", hello), Route("/hang", hang)])
    app.state.hanging = trio.Event()
    return app


async def test_it_answers_in_the_block_and_not_after() -> None:
    async with httpx.AsyncClient() as client:
        async with open_server(application()) as url:
            assert (await client.get(url)).text == "hello"
        with pytest.raises(httpx.TransportError):
            await client.get(url)


async def test_a_hanging_request_does_not_hold_up_the_end() -> None:
    app = application()

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(timeout=None) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"{url}/hang")

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, open_server(app) as url:
            nursery.start_soon(ask, url)
            await app.state.hanging.wait()


async def test_an_error_in_the_block_comes_out_alone() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_server(application()):
            raise ZeroDivisionError


async def test_a_port_in_use_is_an_os_error() -> None:
    async with open_server(application()) as url:
        with pytest.raises(OSError, match="in use"):
            async with open_server(application(), int(url.rsplit(":", 1)[1])):
                raise AssertionError
