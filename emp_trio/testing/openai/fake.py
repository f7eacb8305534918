"""The fake OpenAI: an HTTP service on a loopback socket that keeps count of everything asked of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emp_trio.secrets import Secret
from emp_trio.testing.openai import chat, images, responses
from emp_trio.testing.openai.generation import Generation
from emp_trio.testing.openai.headers import ANSWER_HEADERS, header_violations
from emp_trio.testing.openai.image_rules import form_body
from emp_trio.testing.openai.injection import Injection, Injections, RouteName
from emp_trio.testing.openai.multipart import parse_multipart
from emp_trio.testing.openai.script import Script
from emp_trio.testing.openai.service import Service, error_answer
from emp_trio.testing.openai.wire import open_wire_server

_Handler: TypeAlias = Callable[[Service, Request, Any], Awaitable[Response]]


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came; header names in lower case, without the credentials."""

    route: RouteName
    path: str
    headers: dict[str, str]
    body: Any


class FakeOpenAI:
    """The service. ``app`` is its ASGI application.

    Attributes:
        base_url: where it is served, with ``/v1`` (set by :func:`open_fake_openai`).
        api_key: the only key it takes.
        shutdown_dates: of models, ``YYYY-MM-DD``.
        generations: responses by id, oldest first.
        requests: every request, oldest first.
        violations: whatever no reference documents in any of them; a good client leaves it empty.
        headers: of every answer; those of an injection beat them.
    """

    def __init__(self, script: Script | None = None) -> None:
        self._service = Service(script or Script())
        self.base_url = ""
        self.api_key = Secret("sk-fake-0123456789abcdef")
        self.shutdown_dates = self._service.shutdown_dates
        self.generations: dict[str, Generation] = self._service.generations
        self.violations: list[str] = self._service.violations
        self.requests: list[Received] = []
        self.headers = dict(ANSWER_HEADERS)
        self._injections = Injections()
        self._numbers = itertools.count(1)
        self._changed = trio.Event()
        self.app = Starlette(
            routes=[
                self._route("/v1/responses", "create", "POST", responses.create),
                self._route("/v1/responses/{id}", "retrieve", "GET", responses.retrieve),
                self._route("/v1/responses/{id}", "delete", "DELETE", responses.delete),
                self._route("/v1/responses/{id}/cancel", "cancel", "POST", responses.cancel),
                self._route("/v1/chat/completions", "chat", "POST", chat.complete),
                self._route("/v1/images/generations", "images", "POST", images.generate),
                self._route("/v1/images/edits", "edits", "POST", images.edit),
                self._route("/v1/models", "models", "GET", _models),
                Route("/{path:path}", self._unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ]
        )

    @property
    def script(self) -> Script:
        """How generations go from now on.

        ``metadata["fake_openai"]`` of a request (the JSON of a :class:`Script`'s fields) beats it.
        """
        return self._service.script

    @script.setter
    def script(self, script: Script) -> None:
        self._service.script = script

    @property
    def models(self) -> list[str]:
        """Ids of the models it lists; others are taken too, unless they are gone."""
        return self._service.models

    @models.setter
    def models(self, models: list[str]) -> None:
        self._service.models = models

    @property
    def billed(self) -> int:
        """What ran, and so would have been billed: responses, chat completions, pictures of the Images API."""
        return self._service.billed

    def count(self, route: RouteName) -> int:
        """Requests of one route so far."""
        return sum(request.route == route for request in self.requests)

    async def until(self, route: RouteName, count: int = 1) -> None:
        """Wait until that many requests of a route have arrived (not: been answered)."""
        while self.count(route) < count:
            await self._changed.wait()

    def finish_all(self) -> None:
        """Let every running generation reach its end now."""
        for run in self._service.runs:
            run.finish()

    def inject(
        self,
        route: RouteName,
        *,
        status: int | None = None,
        code: str | None = None,
        type: str = "server_error",
        message: str = "An injected error.",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        content_type: str = "text/html",
        delay: float = 0.0,
        after: bool = False,
        times: int = 1,
        cut: int | None = None,
        reset: bool = False,
        rate: float | None = None,
    ) -> None:
        """Answer the next ``times`` requests of a route in another way.

        Args:
            status: HTTP status of the error; None answers as usual, but for the rest.
            code, type, message, param: of the documented error shape.
            headers: added to the answer, such as ``x-should-retry``.
            extra: further members of the error object.
            body: the whole body instead, as a proxy would send; ``content_type`` is its type.
            delay: seconds before the answer.
            after: the request has its effect all the same.
            cut: bytes of the answer, its head included, that still come; then the connection ends. 0: the request has
                no effect, unless ``after``.
            reset: it ends with a reset instead; at once, without ``cut``.
            rate: bytes of the answer per second.
        """
        error = {"message": message, "type": type, "param": param, "code": code} | dict(extra or {})
        self._injections.add(
            route,
            Injection(
                error=error,
                status=status,
                headers=dict(headers or {}),
                body=body,
                content_type=content_type,
                delay=delay,
                after=after,
                times=times,
                cut=0 if reset and cut is None else cut,
                reset=reset,
                rate=rate,
            ),
        )

    def _route(self, path: str, name: RouteName, method: str, handle: _Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            response = await self._serve(name, request, handle)
            headers = {"x-request-id": f"req_{next(self._numbers):06d}"} | self.headers
            for header, value in headers.items():
                response.headers.setdefault(header, value)
            return response

        return Route(path, endpoint, methods=[method])

    async def _unknown(self, request: Request) -> Response:
        self.violations.append(f"undocumented call {request.method} {request.url.path}")
        return Response(status_code=404)  # bare, as the retired routes answer (reference 1.1)

    async def _serve(self, name: RouteName, request: Request, handle: _Handler) -> Response:
        try:
            body = _decoded(name, await request.body(), request.headers.get("content-type", ""))
        except ValueError as error:
            return error_answer(400, f"We could not parse the body of your request: {error}.")
        headers = {key: value for key, value in request.headers.items() if key != "authorization"}
        self.requests.append(Received(route=name, path=request.url.path, headers=headers, body=body))
        self._changed.set()
        self._changed = trio.Event()
        streamed = (body if isinstance(body, dict) else request.query_params).get("stream") in (True, "true")
        self.violations.extend(header_violations(headers, body=body, streamed=streamed, form=name == "edits"))
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if given != self.api_key.reveal():
            shown = f"{given[:8]}{'*' * 12}{given[-4:]}"
            return error_answer(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
        usual = functools.partial(handle, self._service, request, body)
        injection = self._injections.take(name)
        return await (usual() if injection is None else injection.answer(usual, request.scope["extensions"]["wire"]))


def _decoded(route: RouteName, raw: bytes, content_type: str) -> Any:
    """The body of a request. Raises ValueError (of which msgspec.DecodeError is one) where it cannot be read."""
    if route == "edits" and content_type.startswith("multipart/form-data"):
        return form_body(parse_multipart(raw, content_type))
    return msgspec.json.decode(raw) if raw else None


async def _models(service: Service, request: Request, body: Any) -> Response:
    data = [
        {
            "id": model,
            "object": "model",
            "created": 1_780_000_000,
            "owned_by": "openai",
            "shutdown_date": service.shutdown_dates.get(model),
        }
        for model in service.models
    ]
    return JSONResponse({"object": "list", "data": data})


@asynccontextmanager
async def open_fake_openai(
    port: int = 0, *, host: str = "127.0.0.1", script: Script | None = None, strict: bool = False
) -> AsyncIterator[FakeOpenAI]:
    """Serve a fake OpenAI for the length of the block.

    Args:
        port: 0 for any free one.
        script: how generations go; by default they succeed after 50 ms.
        strict: violations are an error at the end of the block.

    Yields:
        the fake; ``base_url`` and ``api_key`` are what a client needs.

    Raises:
        AssertionError: the block has ended well, but asked for what nobody documents.
        OSError: the address can't be bound.
    """
    fake = FakeOpenAI(script)
    async with open_wire_server(fake.app, port, host=host) as url:
        fake.base_url = f"{url}/v1"
        yield fake
    if strict and fake.violations:
        raise AssertionError("the fake OpenAI was asked for what nobody documents: " + "; ".join(fake.violations))
