"""The fake Gemini: an HTTP service on a loopback socket that keeps count of everything asked of it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emp_trio.secrets import Secret
from emp_trio.testing.gemini.generation import Generation, Script
from emp_trio.testing.gemini.rules import (
    MODELS,
    TEXT_MODELS,
    Fault,
    generate_content_fault,
    generate_content_violations,
    interaction_fault,
    interaction_violations,
)
from emp_trio.testing.serve import open_server

RouteName = Literal["generate", "create", "retrieve", "cancel", "delete", "models"]

_LARGEST = 20 * 2**20  # bytes of a request, about
_Handle = Callable[[Request, Any], Awaitable[Response]]


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came; header names in lower case, without the key."""

    route: RouteName
    path: str
    headers: dict[str, str]
    body: Any


class _Injection(msgspec.Struct, kw_only=True):
    response: Callable[[], Response] | None
    delay: float
    after: bool
    times: int


class FakeGemini:
    """The service. ``app`` is its ASGI application.

    Attributes:
        base_url: where it is served: the host alone (set by :func:`open_fake_gemini`).
        api_key: the only key it takes.
        script: how generations go from now on.
        generations: by id, oldest first.
        requests: every request, oldest first.
        violations: whatever no reference documents in any of them; a good client leaves it empty.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.base_url = ""
        self.api_key = Secret("AIzaSyFake-0123456789abcdefghijklmnopqr")
        self.script = script or Script()
        self.generations: dict[str, Generation] = {}
        self.requests: list[Received] = []
        self.violations: list[str] = []
        self._injections: dict[RouteName, list[_Injection]] = {}
        self._numbers = itertools.count(1)
        self._changed = trio.Event()
        self.app = Starlette(
            routes=[
                self._route("/v1beta/models", "models", "GET", self._models),
                self._route("/v1beta/models/{model}:generateContent", "generate", "POST", self._generate),
                self._route("/v1beta/interactions", "create", "POST", self._create),
                self._route("/v1beta/interactions/{id}", "retrieve", "GET", self._retrieve),
                self._route("/v1beta/interactions/{id}", "delete", "DELETE", self._delete),
                self._route("/v1beta/interactions/{id}/cancel", "cancel", "POST", self._cancel),
            ]
        )

    @property
    def billed(self) -> int:
        """Generations that ran, and so would have been billed."""
        return sum(generation.ran(trio.current_time()) for generation in self.generations.values())

    def count(self, route: RouteName) -> int:
        """Requests of one route so far."""
        return sum(request.route == route for request in self.requests)

    async def until(self, route: RouteName, count: int = 1) -> None:
        """Wait until that many requests of a route have arrived (not: been answered)."""
        while self.count(route) < count:
            await self._changed.wait()

    def finish_all(self) -> None:
        """Let every running interaction reach its end now."""
        for generation in self.generations.values():
            generation.finished = generation.cancelled is None

    def inject(
        self,
        route: RouteName,
        *,
        status: int | None = None,
        word: str = "INTERNAL",
        message: str = "An injected error.",
        details: list[dict[str, Any]] | None = None,
        listed: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        delay: float = 0.0,
        after: bool = False,
        times: int = 1,
    ) -> None:
        """Answer the next ``times`` requests of a route in another way.

        Args:
            status: HTTP status of the error; None answers as usual, only late.
            word, message, details: of the documented error shape.
            listed: the error object in a list, as it sometimes comes.
            body: the whole body instead, as a proxy would send.
            delay: seconds before the answer.
            after: the request has its effect all the same.
        """

        def response() -> Response:
            if body is not None:
                return Response(body, status or 200, dict(headers or {}), media_type="text/html")
            answer = _error(status or 500, message, word, details, listed=listed)
            answer.headers.update(headers or {})
            return answer

        injection = _Injection(
            response=response if status is not None or body is not None else None, delay=delay, after=after, times=times
        )
        self._injections.setdefault(route, []).append(injection)

    def _route(self, path: str, name: RouteName, method: str, handle: _Handle) -> Route:
        async def endpoint(request: Request) -> Response:
            return await self._serve(name, request, handle)

        return Route(path, endpoint, methods=[method])

    async def _serve(self, name: RouteName, request: Request, handle: _Handle) -> Response:
        raw = await request.body()
        try:
            body = msgspec.json.decode(raw) if raw else None
        except msgspec.DecodeError:
            return _error(400, "Invalid JSON payload received.", "INVALID_ARGUMENT")
        headers = {key: value for key, value in request.headers.items() if key != "x-goog-api-key"}
        self.requests.append(Received(route=name, path=request.url.path, headers=headers, body=body))
        self._changed.set()
        self._changed = trio.Event()
        if "key" in request.query_params:
            self.violations.append("the key is in the URL, where it lands in logs")
        if len(raw) > _LARGEST:
            return _error(400, "Request payload size exceeds the limit.", "INVALID_ARGUMENT")
        refusal = self._refusal(request.headers.get("x-goog-api-key"))
        if refusal is not None:
            return refusal
        injection = self._injected(name)
        if injection is None:
            return await handle(request, body)
        if injection.after or injection.response is None:
            response = await handle(request, body)
            await trio.sleep(injection.delay)
            return injection.response() if injection.response is not None else response
        await trio.sleep(injection.delay)
        return injection.response()

    def _refusal(self, key: str | None) -> Response | None:
        if key is None:
            text = (
                "Method doesn't allow unregistered callers. Please use API Key or other form of API consumer identity."
            )
            return _error(403, text, "PERMISSION_DENIED")
        if key != self.api_key.reveal():
            text = "API key not valid. Please pass a valid API key."
            about = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
            return _error(400, text, "INVALID_ARGUMENT", [about | {"domain": "googleapis.com"}])
        return None

    def _injected(self, name: RouteName) -> _Injection | None:
        waiting = self._injections.get(name, [])
        if not waiting:
            return None
        waiting[0].times -= 1
        return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]

    async def _models(self, request: Request, body: Any) -> Response:
        names = [*TEXT_MODELS, *MODELS]
        return JSONResponse({"models": [{"name": f"models/{name}", "displayName": name} for name in names]})

    async def _generate(self, request: Request, body: Any) -> Response:
        if not isinstance(body, dict):
            return _error(400, "Invalid JSON payload received.", "INVALID_ARGUMENT")
        model = request.path_params["model"]
        self.violations += generate_content_violations(body)
        fault = generate_content_fault(model, body)
        if fault is not None:
            return _fault(fault)
        generation = self._begin(model)
        await trio.sleep(generation.script.queued + generation.script.seconds)
        return JSONResponse(generation.response())

    async def _create(self, request: Request, body: Any) -> Response:
        if not isinstance(body, dict):
            return _error(400, "Invalid JSON payload received.", "INVALID_ARGUMENT")
        self.violations += interaction_violations(body)
        fault = interaction_fault(body)
        if fault is not None:
            return _fault(fault)
        if body.get("stream"):
            self.violations.append("stream: true, which this fake does not speak")
            return _error(501, "This fake does not stream.", "UNIMPLEMENTED")
        generation = self._begin(body["model"])
        if not body.get("background"):
            await trio.sleep(generation.script.queued + generation.script.seconds)
        return JSONResponse(generation.interaction(trio.current_time()))

    async def _retrieve(self, request: Request, body: Any) -> Response:
        return self._with(request, lambda generation: generation.interaction(trio.current_time()))

    async def _delete(self, request: Request, body: Any) -> Response:
        def delete(generation: Generation) -> dict[str, Any]:
            del self.generations[generation.id]
            return {}

        return self._with(request, delete)

    async def _cancel(self, request: Request, body: Any) -> Response:
        def cancel(generation: Generation) -> dict[str, Any]:
            generation.cancel(trio.current_time())
            return generation.interaction(trio.current_time())

        return self._with(request, cancel)

    def _begin(self, model: str) -> Generation:
        number = next(self._numbers)
        generation = Generation(id=f"int_{number:06d}", model=model, script=self.script, began=trio.current_time())
        self.generations[generation.id] = generation
        return generation

    def _with(self, request: Request, use: Callable[[Generation], dict[str, Any]]) -> Response:
        found = self.generations.get(request.path_params["id"])
        if found is None:
            return _error(404, "Requested entity was not found.", "NOT_FOUND")
        return JSONResponse(use(found))


def _error(
    status: int, message: str, word: str, details: list[dict[str, Any]] | None = None, *, listed: bool = False
) -> Response:
    error: dict[str, Any] = {"code": status, "message": message, "status": word}
    if details is not None:
        error["details"] = details
    content = {"error": error}
    return JSONResponse([content] if listed else content, status)


def _fault(fault: Fault) -> Response:
    return _error(fault.status, fault.message, fault.word)


@asynccontextmanager
async def open_fake_gemini(
    port: int = 0, *, host: str = "127.0.0.1", script: Script | None = None
) -> AsyncIterator[FakeGemini]:
    """Serve a fake Gemini for the length of the block.

    Args:
        port: 0 for any free one.
        script: how generations go; by default they succeed after 50 ms.

    Yields:
        the fake; ``base_url`` and ``api_key`` are what a client needs.
    """
    fake = FakeGemini(script)
    async with open_server(fake.app, port, host=host) as url:
        fake.base_url = url
        yield fake
