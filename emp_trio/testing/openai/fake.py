"""The fake OpenAI: an HTTP service on a loopback socket that keeps count of everything asked of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emp_trio.secrets import Secret
from emp_trio.testing.openai.chat import Completion
from emp_trio.testing.openai.chat_rules import chat_fault, chat_violations
from emp_trio.testing.openai.checks import Fault
from emp_trio.testing.openai.generation import Generation
from emp_trio.testing.openai.rules import fault_of, violations_of
from emp_trio.testing.openai.script import Script
from emp_trio.testing.openai.sse import EventStream, Run
from emp_trio.testing.serve import open_server

RouteName = Literal["create", "retrieve", "cancel", "delete", "models", "chat"]

_STEERING: Final = "fake_openai"  # metadata key whose value is the JSON of a Script


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came; header names in lower case, without the credentials."""

    route: RouteName
    path: str
    headers: dict[str, str]
    body: Any


class _Injection(msgspec.Struct, kw_only=True):
    response: Callable[[], Response] | None
    delay: float
    after: bool
    times: int


class FakeOpenAI:
    """The service. ``app`` is its ASGI application.

    Attributes:
        base_url: where it is served, with ``/v1`` (set by :func:`open_fake_openai`).
        api_key: the only key it takes.
        script: how generations go from now on; ``metadata["fake_openai"]`` of a request (the JSON of a
            :class:`Script`'s fields) beats it.
        generations: by response id, oldest first.
        requests: every request, oldest first.
        violations: whatever no reference documents in any of them; a good client leaves it empty.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.base_url = ""
        self.api_key = Secret("sk-fake-0123456789abcdef")
        self.script = script or Script()
        self.models = ["gpt-6-luna", "gpt-6.2-sol", "gpt-4.1", "gpt-image-2.6-flare", "gpt-image-2.6-sunburst"]
        self.generations: dict[str, Generation] = {}
        self.requests: list[Received] = []
        self.violations: list[str] = []
        self._injections: dict[RouteName, list[_Injection]] = {}
        self._runs: list[Run] = []
        self._made = 0
        self._numbers = itertools.count(1)
        self._changed = trio.Event()
        self.app = Starlette(
            routes=[
                self._route("/v1/responses", "create", "POST", self._create),
                self._route("/v1/responses/{id}", "retrieve", "GET", self._retrieve),
                self._route("/v1/responses/{id}", "delete", "DELETE", self._delete),
                self._route("/v1/responses/{id}/cancel", "cancel", "POST", self._cancel),
                self._route("/v1/chat/completions", "chat", "POST", self._chat),
                self._route("/v1/models", "models", "GET", self._models),
            ]
        )

    @property
    def billed(self) -> int:
        """Generations that ran, and so would have been billed."""
        return self._made + sum(generation.ran(trio.current_time()) for generation in self.generations.values())

    def count(self, route: RouteName) -> int:
        """Requests of one route so far."""
        return sum(request.route == route for request in self.requests)

    async def until(self, route: RouteName, count: int = 1) -> None:
        """Wait until that many requests of a route have arrived (not: been answered)."""
        while self.count(route) < count:
            await self._changed.wait()

    def finish_all(self) -> None:
        """Let every running generation reach its end now."""
        for generation in self.generations.values():
            generation.finished = generation.cancelled is None
        for run in self._runs:
            run.over.set()

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
        delay: float = 0.0,
        after: bool = False,
        times: int = 1,
    ) -> None:
        """Answer the next ``times`` requests of a route in another way.

        Args:
            status: HTTP status of the error; None answers as usual, only late.
            code, type, message, param: of the documented error shape.
            extra: further members of the error object.
            body: the whole body instead, as a proxy would send.
            delay: seconds before the answer.
            after: the request has its effect all the same.
        """
        content = {"error": {"message": message, "type": type, "param": param, "code": code} | dict(extra or {})}

        def response() -> Response:
            if body is not None:
                return Response(body, status or 200, dict(headers or {}), media_type="text/html")
            return JSONResponse(content, status or 200, dict(headers or {}))

        injection = _Injection(
            response=response if status is not None or body is not None else None, delay=delay, after=after, times=times
        )
        self._injections.setdefault(route, []).append(injection)

    def _route(self, path: str, name: RouteName, method: str, handle: Callable[[Request, Any], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            response: Response = await self._serve(name, request, handle)
            response.headers.update(_headers(next(self._numbers)))
            return response

        return Route(path, endpoint, methods=[method])

    async def _serve(self, name: RouteName, request: Request, handle: Callable[[Request, Any], Any]) -> Response:
        raw = await request.body()
        try:
            body = msgspec.json.decode(raw) if raw else None
        except msgspec.DecodeError:
            return _error(400, "We could not parse the JSON body of your request.")
        headers = {key: value for key, value in request.headers.items() if key != "authorization"}
        self.requests.append(Received(route=name, path=request.url.path, headers=headers, body=body))
        self._changed.set()
        self._changed = trio.Event()
        self._check_headers(headers)
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if given != self.api_key.reveal():
            shown = f"{given[:8]}{'*' * 12}{given[-4:]}"
            return _error(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
        injection = self._injected(name)
        if injection is None:
            return await self._handled(handle, request, body)
        if injection.after or injection.response is None:
            response = await self._handled(handle, request, body)
            await trio.sleep(injection.delay)
            return injection.response() if injection.response is not None else response
        await trio.sleep(injection.delay)
        return injection.response()

    async def _handled(self, handle: Callable[[Request, Any], Any], request: Request, body: Any) -> Response:
        response: Response = await handle(request, body)
        return response

    def _check_headers(self, headers: Mapping[str, str]) -> None:
        if "idempotency-key" in headers:
            self.violations.append("Idempotency-Key is not documented for any endpoint")
        client_id = headers.get("x-client-request-id", "")
        if len(client_id) > 512 or not (client_id.isascii() and (client_id.isprintable())):
            self.violations.append("X-Client-Request-Id is not printable ASCII of at most 512 characters")

    def _injected(self, name: RouteName) -> _Injection | None:
        waiting = self._injections.get(name, [])
        if not waiting:
            return None
        waiting[0].times -= 1
        return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]

    async def _create(self, request: Request, body: Any) -> Response:
        if not isinstance(body, dict):
            return _error(400, "The body must be a JSON object.")
        self.violations += violations_of(body)
        fault = fault_of(body)
        if fault is not None:
            return _fault(fault)
        if body.get("stream"):
            self.violations.append("stream: true, which this fake does not speak")
            return _error(501, "This fake does not stream.")
        script = self._script_for(body)
        if isinstance(script, Fault):
            return _fault(script)
        generation = Generation(
            id=f"resp_{next(self._numbers):06d}",
            body=body,
            script=script,
            began=trio.current_time(),
            created_at=time.time(),
        )
        self.generations[generation.id] = generation
        if not body.get("background"):
            await trio.sleep(script.queued + script.seconds)
        return JSONResponse(generation.response(trio.current_time()))

    async def _chat(self, request: Request, body: Any) -> Response:
        if not isinstance(body, dict):
            return _error(400, "The body must be a JSON object.")
        self.violations += chat_violations(body)
        script = chat_fault(body) or self._script_for(body)
        if isinstance(script, Fault):
            return _fault(script)
        self._made += 1
        run = Run(began=trio.current_time(), seconds=script.seconds)
        self._runs.append(run)
        completion = Completion(
            id=f"chatcmpl-{next(self._numbers):06d}", created=int(time.time()), body=body, script=script
        )
        if body.get("stream"):
            return EventStream(completion.frames(), run, script)
        await run.reach(1.0)
        if script.status in ("failed", "cancelled"):
            return JSONResponse({"error": completion.failure()}, 500)
        return JSONResponse(completion.whole())

    def _script_for(self, body: dict[str, Any]) -> Script | Fault:
        steering = (body.get("metadata") or {}).get(_STEERING)
        try:
            return msgspec.json.decode(steering, type=Script) if steering else self.script
        except msgspec.DecodeError as error:
            return Fault(f"metadata.{_STEERING}: {error}", f"metadata.{_STEERING}")

    async def _retrieve(self, request: Request, body: Any) -> Response:
        return self._with(request, lambda generation: generation.response(trio.current_time()))

    async def _delete(self, request: Request, body: Any) -> Response:
        def delete(generation: Generation) -> dict[str, Any]:
            del self.generations[generation.id]
            return {"id": generation.id, "object": "response", "deleted": True}

        return self._with(request, delete)

    async def _cancel(self, request: Request, body: Any) -> Response:
        def cancel(generation: Generation) -> dict[str, Any] | Fault:
            if not generation.body.get("background"):
                return Fault("Cannot cancel a synchronous response.", None, None)
            generation.cancel(trio.current_time())
            return generation.response(trio.current_time())

        return self._with(request, cancel)

    async def _models(self, request: Request, body: Any) -> Response:
        data = [
            {"id": model, "object": "model", "created": 1_780_000_000, "owned_by": "openai", "shutdown_date": None}
            for model in self.models
        ]
        return JSONResponse({"object": "list", "data": data})

    def _with(self, request: Request, use: Callable[[Generation], dict[str, Any] | Fault]) -> Response:
        found = self.generations.get(request.path_params["id"])
        if found is None:
            return _error(404, f"Response with id '{request.path_params['id']}' not found.")
        answer = use(found)
        return _fault(answer) if isinstance(answer, Fault) else JSONResponse(answer)


def _error(status: int, message: str, *, code: str | None = None) -> Response:
    content = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": content}, status)


def _fault(fault: Fault) -> Response:
    content = {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code}
    return JSONResponse({"error": content}, 400)


def _headers(number: int) -> dict[str, str]:
    return {
        "x-request-id": f"req_{number:06d}",
        "openai-processing-ms": "7",
        "openai-version": "2020-10-01",
        "openai-organization": "org-fake",
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-tokens": "1s",
    }


@asynccontextmanager
async def open_fake_openai(
    port: int = 0, *, host: str = "127.0.0.1", script: Script | None = None
) -> AsyncIterator[FakeOpenAI]:
    """Serve a fake OpenAI for the length of the block.

    Args:
        port: 0 for any free one.
        script: how generations go; by default they succeed after 50 ms.

    Yields:
        the fake; ``base_url`` and ``api_key`` are what a client needs.
    """
    fake = FakeOpenAI(script)
    async with open_server(fake.app, port, host=host) as url:
        fake.base_url = f"{url}/v1"
        yield fake
