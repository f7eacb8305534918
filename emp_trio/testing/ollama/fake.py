"""The fake Ollama: an HTTP service on a loopback socket that keeps count of everything asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from emp_trio.secrets import Secret
from emp_trio.testing.ollama.rules import fault_of, length_of, violations_of, wants
from emp_trio.testing.ollama.script import Script, answer_lines, embedding, pull_lines, whole_answer
from emp_trio.testing.ollama.stream import Lines, Work
from emp_trio.testing.serve import open_server

RouteName = Literal["generate", "chat", "embed", "pull", "tags", "version"]

CONTEXT: Final = 4096  # words that a model reads where num_ctx does not say


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came; header names in lower case, without the credentials."""

    route: RouteName
    headers: dict[str, str]
    body: Any


class _Injection(msgspec.Struct, kw_only=True):
    response: Callable[[], Response] | None
    delay: float
    times: int


class FakeOllama:
    """The service. ``app`` is its ASGI application.

    Attributes:
        base_url: where it is served (set by :func:`open_fake_ollama`).
        api_key: when it is set, the only key that is taken, as the hosted service does.
        script: how work goes from now on.
        installed: models with what they can do.
        library: models that can be pulled, with the sizes of their files.
        work: everything that was begun, oldest first.
        requests: every request, oldest first.
        violations: whatever no reference documents in any of them; a good client leaves it empty.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.base_url = ""
        self.api_key: Secret | None = None
        self.script = script or Script()
        self.installed = {
            "llama3.2:latest": ["completion", "tools"],
            "qwen3-vl:8b": ["completion", "tools", "vision", "thinking"],
            "nomic-embed-text:latest": ["embedding"],
        }
        self.library = {"tinyllama:latest": [800_000, 20_000, 3_000]}
        self.work: list[Work] = []
        self.requests: list[Received] = []
        self.violations: list[str] = []
        self._downloaded: dict[str, int] = {}
        self._injections: dict[RouteName, list[_Injection]] = {}
        self._changed = trio.Event()
        self.app = Starlette(
            routes=[
                self._route("/api/generate", "generate", "POST", self._words),
                self._route("/api/chat", "chat", "POST", self._words),
                self._route("/api/embed", "embed", "POST", self._embed),
                self._route("/api/pull", "pull", "POST", self._pull),
                self._route("/api/tags", "tags", "GET", self._tags),
                self._route("/api/version", "version", "GET", self._version),
                Route("/{path:path}", self._unknown, methods=["GET", "POST", "DELETE", "PUT"]),
            ]
        )

    @property
    def generations(self) -> list[Work]:
        """Answers in words that were begun."""
        return [work for work in self.work if work.route in ("generate", "chat")]

    def count(self, route: RouteName) -> int:
        """Requests of one route so far."""
        return sum(request.route == route for request in self.requests)

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait until something is true of this fake."""
        while not met():
            await self._changed.wait()

    def inject(
        self,
        route: RouteName,
        *,
        status: int | None = None,
        message: str = "an injected error",
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        delay: float = 0.0,
        times: int = 1,
    ) -> None:
        """Answer the next ``times`` requests of a route in another way.

        Args:
            status: HTTP status of the error; None answers as usual, only late.
            message: text of the documented error shape.
            extra: further members beside it (``signin_url``).
            body: the whole body instead, as a proxy would send.
            delay: seconds before the answer.
        """

        def response() -> Response:
            if body is not None:
                return Response(body, status or 200, dict(headers or {}), media_type="text/html")
            return JSONResponse({"error": message} | dict(extra or {}), status or 200, dict(headers or {}))

        made = response if status is not None or body is not None else None
        self._injections.setdefault(route, []).append(_Injection(response=made, delay=delay, times=times))

    def tell(self) -> None:
        """Wake whoever waits in :meth:`until`."""
        self._changed.set()
        self._changed = trio.Event()

    def _route(self, path: str, name: RouteName, method: str, handle: Callable[[RouteName, Any], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await self._serve(name, request, handle)

        return Route(path, endpoint, methods=[method])

    async def _serve(self, name: RouteName, request: Request, handle: Callable[[RouteName, Any], Response]) -> Response:
        raw = await request.body()
        try:
            body = msgspec.json.decode(raw) if raw else None
        except msgspec.DecodeError as error:
            return _error(400, f"invalid JSON: {error}")
        headers = {key: value for key, value in request.headers.items() if key != "authorization"}
        self.requests.append(Received(route=name, headers=headers, body=body))
        self.tell()
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.api_key is not None and given != self.api_key.reveal():
            return JSONResponse({"error": "unauthorized", "signin_url": "https://ollama.example/connect"}, 401)
        injection = self._injected(name)
        if injection is not None:
            await trio.sleep(injection.delay)
            if injection.response is not None:
                return injection.response()
        return handle(name, body)

    def _injected(self, name: RouteName) -> _Injection | None:
        waiting = self._injections.get(name, [])
        if not waiting:
            return None
        waiting[0].times -= 1
        return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]

    def _refusal(self, name: RouteName, body: Any) -> Response | None:
        """The error that a request for a model deserves."""
        if isinstance(body, dict):
            self.violations += violations_of(name, body)
        fault = fault_of(name, body)
        if fault is not None:
            return _error(400, fault)
        if name == "pull":
            return None
        model = _full(body["model"])
        if model not in self.installed:
            return _error(404, f"model '{body['model']}' not found")
        for ability in wants(name, body):
            if ability not in self.installed[model]:
                return _error(400, f'"{body["model"]}" does not support {ability}')
        if body.get("truncate") is False and length_of(body) > body.get("options", {}).get("num_ctx", CONTEXT):
            return _error(400, "the input length exceeds the context length")
        return None

    def _words(self, name: RouteName, body: Any) -> Response:
        refusal = self._refusal(name, body)
        if refusal is not None:
            return refusal
        script = self.script if body.get("think") is not False else msgspec.structs.replace(self.script, thinking="")
        return self._answer(name, body, answer_lines(script, body["model"], chat=name == "chat"))

    def _embed(self, name: RouteName, body: Any) -> Response:
        refusal = self._refusal(name, body)
        if refusal is not None:
            return refusal
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        answer = {
            "model": body["model"],
            "embeddings": [embedding(text, body.get("dimensions") or self.script.dimensions) for text in texts],
            "total_duration": 14_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": sum(len(text.split()) for text in texts),
        }
        self.work.append(Work(route=name, model=body["model"], end="done"))
        return JSONResponse(answer)

    def _pull(self, name: RouteName, body: Any) -> Response:
        refusal = self._refusal(name, body)
        if refusal is not None:
            return refusal
        model = _full(body["model"])
        layers = self.library.get(model)
        if layers is None:
            missing = [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
            return self._answer(name, body, iter(missing))
        return self._answer(name, body, self._install(model, layers))

    def _install(self, model: str, layers: list[int]) -> Iterable[dict[str, Any]]:
        for line in pull_lines(model, layers, self._downloaded):
            if line["status"] == "success":
                self.installed[model] = ["completion"]
            yield line

    def _tags(self, name: RouteName, body: Any) -> Response:
        details = {"format": "gguf", "family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
        models = [
            {"name": name, "model": name, "size": 2_000_000_000, "details": details, "capabilities": abilities}
            for name, abilities in self.installed.items()
        ]
        return JSONResponse({"models": models})

    def _version(self, name: RouteName, body: Any) -> Response:
        return JSONResponse({"version": "0.13.0"})

    async def _unknown(self, request: Request) -> Response:
        self.violations.append(f"{request.method} {request.url.path} is no documented call")
        return PlainTextResponse("404 page not found", 404)

    def _answer(self, name: RouteName, body: dict[str, Any], lines: Iterable[dict[str, Any]]) -> Response:
        work = Work(route=name, model=body["model"])
        self.work.append(work)
        if body.get("stream", True):
            return Lines(work, lines, self.script, self.tell)
        everything = list(lines)
        work.end = "error" if "error" in everything[-1] else "done"
        if work.end == "error":
            return JSONResponse(everything[-1], 500)
        return JSONResponse(everything[-1] if name == "pull" else whole_answer(everything))


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _full(model: str) -> str:
    return model if ":" in model else f"{model}:latest"


@asynccontextmanager
async def open_fake_ollama(
    port: int = 0, *, host: str = "127.0.0.1", script: Script | None = None
) -> AsyncIterator[FakeOllama]:
    """Serve a fake Ollama for the length of the block.

    Args:
        port: 0 for any free one.
        script: how work goes; by default it succeeds at once.

    Yields:
        the fake; ``base_url`` is what a client needs.
    """
    fake = FakeOllama(script)
    async with open_server(fake.app, port, host=host) as url:
        fake.base_url = url
        yield fake
