"""The fake A1111: an HTTP service on a loopback socket that keeps count of everything asked of it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emp_trio.nursery import open_background
from emp_trio.secrets import Secret
from emp_trio.testing.a1111.engine import Engine, Work
from emp_trio.testing.a1111.rules import FIELDS, fault_of, openapi
from emp_trio.testing.a1111.script import Model, Script
from emp_trio.testing.serve import open_server


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came; header names in lower case, without the credentials."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class _Injection(msgspec.Struct, kw_only=True):
    status: int
    body: Any
    delay: float
    times: int


class FakeA1111:
    """The service. ``app`` is its ASGI application.

    Attributes:
        base_url: where it is served (set by :func:`open_fake_a1111`).
        script: how work goes from now on.
        engine: what runs, waits and has run; its models.
        api_auth: user and password of ``--api-auth``; they are asked for under ``/sdapi`` alone.
        task_routes: whether there are routes under ``/internal``.
        keeps_task_ids: whether ``force_task_id`` is known, as it is since 1.8.
        memory: the answer of ``/sdapi/v1/memory``.
        requests: every request, oldest first.
        violations: what a good client does not do.
    """

    def __init__(self, nursery: trio.Nursery, script: Script | None = None) -> None:
        self.base_url = ""
        self.script = script or Script()
        self.engine = Engine(self._tell)
        self.engine.models = [
            Model(
                title="dreamy.safetensors [1234567890]", model_name="dreamy", hash="1234567890", filename="/m/dreamy"
            ),
            Model(title="anime/flat.ckpt [abcdefabcd]", model_name="anime_flat", filename="/m/anime/flat.ckpt"),
        ]
        self.engine.model = self.engine.models[0].title
        self.api_auth: tuple[str, Secret] | None = None
        self.task_routes = True
        self.keeps_task_ids = True
        self.memory: Any = {
            "ram": {"free": 1, "used": 1, "total": 2},
            "cuda": {"system": {"free": 1, "used": 1, "total": 2}, "events": {"retries": 0, "oom": 0}},
        }
        self.requests: list[Received] = []
        self.violations: list[str] = []
        self._nursery = nursery
        self._injections: dict[str, list[_Injection]] = {}
        self._changed = trio.Event()
        self.app = Starlette(
            routes=[
                self._route("POST", "/sdapi/v1/txt2img", self._generate),
                self._route("POST", "/sdapi/v1/img2img", self._generate),
                self._route("GET", "/sdapi/v1/progress", self._progress),
                self._route("POST", "/sdapi/v1/interrupt", self._interrupt),
                self._route("GET", "/sdapi/v1/sd-models", self._models),
                self._route("GET", "/sdapi/v1/memory", self._memory),
                self._route("POST", "/internal/progress", self._task_progress),
                self._route("GET", "/internal/pending-tasks", self._pending_tasks),
                self._route("GET", "/openapi.json", self._openapi),
                Route("/{path:path}", self._unknown, methods=["GET", "POST", "DELETE", "PUT"]),
            ]
        )

    @property
    def work(self) -> list[Work]:
        """Every generation, oldest first."""
        return self.engine.work

    def count(self, path: str) -> int:
        """Requests of one path so far."""
        return sum(request.path == path for request in self.requests)

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait until something is true of this fake."""
        while not met():
            await self._changed.wait()

    def release(self, *works: Work) -> None:
        """Let these, or everything that has been asked for, go on to their end."""
        self.engine.release(*(works or self.work))

    def inject(self, path: str, *, status: int, body: Any = None, delay: float = 0.0, times: int = 1) -> None:
        """Answer the next ``times`` requests of a path with another status and body (bytes are a page), and do nothing.

        Args:
            delay: seconds before the answer.
        """
        self._injections.setdefault(path, []).append(_Injection(status=status, body=body, delay=delay, times=times))

    def begin(self, endpoint: str, body: dict[str, Any]) -> Work:
        """Work of somebody else, or of the web UI itself."""
        given = body.get("force_task_id") if self.keeps_task_ids else None
        work = Work(task_id=given or f"task({endpoint}-{len(self.work)})", endpoint=endpoint, body=body)
        self.engine.take(work)
        self._nursery.start_soon(self.engine.run, work, lambda: self.script)
        return work

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _route(self, method: str, path: str, handle: Callable[[Request, Any], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await self._serve(request, handle)

        return Route(path, endpoint, methods=[method])

    async def _serve(self, request: Request, handle: Callable[[Request, Any], Any]) -> Response:
        raw, path = await request.body(), request.url.path
        try:
            body = msgspec.json.decode(raw) if raw else None
        except msgspec.DecodeError as error:
            return JSONResponse({"detail": [{"loc": ["body"], "msg": str(error), "type": "value_error"}]}, 422)
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        self.requests.append(Received(method=request.method, path=path, headers=headers, body=body))
        self._tell()
        if not self._may(request):
            return JSONResponse({"detail": "Incorrect username or password"}, 401)
        injection = self._injected(path)
        if injection is not None:
            await trio.sleep(injection.delay)
            if isinstance(injection.body, bytes):
                return Response(injection.body, injection.status, media_type="text/html")
            return JSONResponse(injection.body, injection.status)
        made: Response = await handle(request, body)
        return made

    def _may(self, request: Request) -> bool:
        if self.api_auth is None or not request.url.path.startswith("/sdapi"):
            return True
        user, password = self.api_auth
        expected = base64.b64encode(f"{user}:{password.reveal()}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {expected}"

    def _injected(self, path: str) -> _Injection | None:
        waiting = self._injections.get(path, [])
        if not waiting:
            return None
        waiting[0].times -= 1
        return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]

    async def _generate(self, request: Request, body: Any) -> Response:
        endpoint = request.url.path.rpartition("/")[2]
        fault = fault_of(endpoint, body)
        if fault is not None:
            return JSONResponse(fault[1], fault[0])
        self.violations += [f"{endpoint}: no parameter {name!r}" for name in body if name not in FIELDS[endpoint]]
        work = self.begin(endpoint, body)
        await work.over.wait()
        return JSONResponse(work.answer[1], work.answer[0])

    async def _progress(self, request: Request, body: Any) -> Response:
        if request.query_params.get("skip_current_image") != "true":
            self.violations.append("progress with a preview, which slows the generation down")
        return JSONResponse(self.engine.progress())

    async def _interrupt(self, request: Request, body: Any) -> Response:
        self.engine.interrupt()
        return JSONResponse({})

    async def _models(self, request: Request, body: Any) -> Response:
        return JSONResponse([msgspec.to_builtins(model) for model in self.engine.models])

    async def _memory(self, request: Request, body: Any) -> Response:
        return JSONResponse(self.memory)

    async def _task_progress(self, request: Request, body: Any) -> Response:
        if not self.task_routes:
            return JSONResponse({"detail": "Not Found"}, 404)
        if body.get("live_preview") is not False:
            self.violations.append("progress with a preview, which slows the generation down")
        return JSONResponse(self.engine.task_progress(body["id_task"]))

    async def _pending_tasks(self, request: Request, body: Any) -> Response:
        waiting = self.engine.pending()
        return JSONResponse({"size": len(waiting), "tasks": waiting})

    async def _openapi(self, request: Request, body: Any) -> Response:
        return JSONResponse(openapi())

    async def _unknown(self, request: Request) -> Response:
        self.violations.append(f"{request.method} {request.url.path} is no documented call")
        return JSONResponse({"detail": "Not Found"}, 404)


@asynccontextmanager
async def open_fake_a1111(
    port: int = 0, *, host: str = "127.0.0.1", script: Script | None = None
) -> AsyncIterator[FakeA1111]:
    """Serve a fake A1111 for the length of the block.

    Args:
        port: 0 for any free one.
        script: how work goes; by default it succeeds at once.

    Yields:
        the fake; ``base_url`` is what a client needs.
    """
    async with open_background() as nursery:
        fake = FakeA1111(nursery, script)
        async with open_server(fake.app, port, host=host) as url:
            fake.base_url = url
            yield fake
