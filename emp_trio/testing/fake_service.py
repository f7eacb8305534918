"""Base of fake HTTP services: routes, recorded requests, and faults on demand.

::

    class FakeKiln(FakeService):
        secret_headers = ("x-kiln-key",)

        def __init__(self) -> None:
            super().__init__()
            self.jobs: dict[str, dict[str, Any]] = {}
            self.route("fire", "POST", "/jobs", self._fire)

        async def _fire(self, request: Request, body: Any) -> Response: ...

    async with open_fake_service(FakeKiln()) as kiln:
        kiln.inject("fire", status=503)          # the next answer is an error in the service's own shape
        kiln.inject("fire", cut=40, after=True)  # the one after it is cut, and the job runs all the same
        ...  # talk to kiln.base_url
        assert kiln.violations == []

A connector whose service is faked by this can be put through :mod:`emp_trio.testing.conformance`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeAlias, TypeVar

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emp_trio.testing.asgi_server import open_asgi_server
from emp_trio.testing.http11 import ResponseWriter

Handler: TypeAlias = Callable[[Request, Any], Awaitable[Response]]
"""Answers a request, given it and its decoded body."""


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came; header names in lower case, without the credentials."""

    route: str
    path: str
    headers: dict[str, str]
    body: Any


class Injection(msgspec.Struct, kw_only=True):
    """What happens to the next ``times`` requests of a route; see :meth:`FakeService.inject`."""

    response: Callable[[], Response] | None
    headers: Mapping[str, str]
    delay: float
    after: bool
    times: int
    cut: int | None
    reset: bool
    rate: float | None

    async def answer(self, usual: Callable[[], Awaitable[Response]], writer: ResponseWriter) -> Response:
        """The answer to a request whose ``usual`` answer would have had its effect."""
        writer.left, writer.reset = self.cut, self.reset
        if self.rate is not None:
            writer.piece = max(1, int(self.rate / 10))
            writer.pause = writer.piece / self.rate
        replaced = self.response is not None or self.cut == 0
        response = await usual() if self.after or not replaced else Response()
        await trio.sleep(self.delay)
        if self.response is not None:
            response = self.response()
        response.headers.update(self.headers)
        return response


class FakeService:
    """Base of fake HTTP services. Its requests have JSON bodies, or none.

    Class attributes:
        secret_headers: names, in lower case, of headers that carry credentials; requests are kept without them.

    Attributes:
        base_url: where it is served (set by :func:`open_fake_service`).
        requests: every request to one of its routes, oldest first.
        violations: whatever it should not have been asked; a good client leaves it empty.
    """

    secret_headers: ClassVar[tuple[str, ...]] = ("authorization",)

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[Received] = []
        self.violations: list[str] = []
        self._routes: list[Route] = []
        self._injections: dict[str, list[Injection]] = {}
        self._changed = trio.Event()

    @property
    def app(self) -> Starlette:
        """The ASGI application. What it has no route for is a 404 and a violation."""
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        return Starlette(routes=[*self._routes, Route("/{path:path}", self._unknown, methods=methods)])

    def route(self, name: str, method: str, path: str, handle: Handler) -> None:
        """Serve ``path`` (``/jobs/{id}``: see ``request.path_params``) with ``handle``; ``name`` is for tests."""

        async def endpoint(request: Request) -> Response:
            response = await self._serve(name, request, handle)
            self.sent(response)
            return response

        self._routes.append(Route(path, endpoint, methods=[method]))

    def refusal(self, request: Request, body: Any) -> Response | None:
        """Hook: the answer to a request that no route would take, for its credentials above all; None to others. Also
        the place for violations that show in any request."""
        return None

    def error(self, status: int, *args: Any, **words: Any) -> Response:
        """Hook: an error in the service's documented shape, from what ``inject`` was given beside its own: ``message``,
        for a text, must be possible. (With ``args`` an override may have any signature.)"""
        return JSONResponse({"error": words.pop("message", "an injected error")} | words, status)

    def sent(self, response: Response) -> None:
        """Hook: every answer of a route, for headers that all of them have."""

    def decoded(self, name: str, raw: bytes, content_type: str) -> Any:
        """Hook: the body of a request. Raises ValueError (of which msgspec.DecodeError is one) for a bad one."""
        return msgspec.json.decode(raw) if raw else None

    def count(self, route: str) -> int:
        """Requests of one route so far."""
        return sum(request.route == route for request in self.requests)

    async def until(self, route: str, count: int = 1) -> None:
        """Wait until that many requests of a route have arrived (not: been answered)."""
        await self.until_true(lambda: self.count(route) >= count)

    async def until_true(self, met: Callable[[], bool]) -> None:
        """Wait until something is true of this fake; looked at after every request and every :meth:`tell`."""
        while not met():
            await self._changed.wait()

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = trio.Event()

    def inject(
        self,
        route: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "text/html",
        delay: float = 0.0,
        after: bool = False,
        times: int = 1,
        cut: int | None = None,
        reset: bool = False,
        rate: float | None = None,
        **words: Any,
    ) -> None:
        """Answer the next ``times`` requests of a route in another way.

        Args:
            status: HTTP status of the error; None answers as usual, but for the rest.
            headers: added to the answer.
            body: the whole body instead, as a proxy would send; ``content_type`` is its type.
            delay: seconds before the answer.
            after: the request has its effect all the same.
            cut: bytes of the answer, its head included, that still come; then the connection ends. 0: the request has
                no effect, unless ``after``.
            reset: it ends with a reset instead; at once, without ``cut``.
            rate: bytes of the answer per second.
            words: of the service's error shape; see :meth:`error`.
        """
        response: Callable[[], Response] | None = None
        if body is not None:
            response = functools.partial(Response, body, status or 200, media_type=content_type)
        elif status is not None:
            response = functools.partial(self.error, status, **words)
        injection = Injection(
            response=response,
            headers=headers or {},
            delay=delay,
            after=after,
            times=times,
            cut=0 if reset and cut is None else cut,
            reset=reset,
            rate=rate,
        )
        self._injections.setdefault(route, []).append(injection)

    async def _serve(self, name: str, request: Request, handle: Handler) -> Response:
        try:
            body = self.decoded(name, await request.body(), request.headers.get("content-type", ""))
        except ValueError as error:
            return self.error(400, message=f"could not parse the body: {error}")
        headers = {key: value for key, value in request.headers.items() if key not in self.secret_headers}
        self.requests.append(Received(route=name, path=request.url.path, headers=headers, body=body))
        self.tell()
        refusal = self.refusal(request, body)
        if refusal is not None:
            return refusal
        injection = self._injected(name)
        if injection is None:
            return await handle(request, body)
        writer = request.scope["extensions"]["writer"]
        return await injection.answer(functools.partial(handle, request, body), writer)

    def _injected(self, name: str) -> Injection | None:
        waiting = self._injections.get(name)
        if not waiting:
            return None
        waiting[0].times -= 1
        return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]

    async def _unknown(self, request: Request) -> Response:
        self.violations.append(f"undocumented call {request.method} {request.url.path}")
        return Response(status_code=404)


S = TypeVar("S", bound=FakeService)


@asynccontextmanager
async def open_fake_service(fake: S, port: int = 0, *, host: str = "127.0.0.1") -> AsyncIterator[S]:
    """Serve a fake for the length of the block.

    Args:
        fake: its ``base_url`` is set.
        port: 0 for any free one.
        host: address to bind, IPv4 or IPv6.

    Raises:
        OSError: the address can't be bound.

    When the block ends open connections are closed and running handlers cancelled.
    """
    async with open_asgi_server(fake.app, port, host=host) as fake.base_url:
        yield fake
