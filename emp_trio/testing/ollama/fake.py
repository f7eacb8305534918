"""The fake Ollama: an HTTP service on a loopback socket that keeps count of everything asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emp_trio.secrets import Secret
from emp_trio.testing.fake_service import FakeService, Handler, open_fake_service
from emp_trio.testing.ollama.rules import fault_of, length_of, violations_of, wants
from emp_trio.testing.ollama.script import Script, answer_lines, embedding, pull_lines, whole_answer
from emp_trio.testing.ollama.stream import Lines, Work

CONTEXT: Final = 4096  # words that a model reads where num_ctx does not say


class FakeOllama(FakeService):
    """The service. What ``inject`` takes beside its own is in :meth:`error`.

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
        super().__init__()
        self.api_key: Secret | None = None
        self.script = script or Script()
        self.installed = {
            "llama3.2:latest": ["completion", "tools"],
            "qwen3-vl:8b": ["completion", "tools", "vision", "thinking"],
            "nomic-embed-text:latest": ["embedding"],
        }
        self.library = {"tinyllama:latest": [800_000, 20_000, 3_000]}
        self.work: list[Work] = []
        self._downloaded: dict[str, int] = {}
        for name, method, handle in (
            ("generate", "POST", self._words),
            ("chat", "POST", self._words),
            ("embed", "POST", self._embed),
            ("pull", "POST", self._pull),
            ("tags", "GET", self._tags),
            ("version", "GET", self._version),
        ):
            self.route(name, method, f"/api/{name}", _handler(name, handle))

    @property
    def generations(self) -> list[Work]:
        """Answers in words that were begun."""
        return [work for work in self.work if work.route in ("generate", "chat")]

    def error(
        self, status: int, *, message: str = "an injected error", extra: Mapping[str, Any] | None = None
    ) -> Response:
        """An error in the documented shape, with further members beside it (``signin_url``)."""
        return JSONResponse({"error": message} | dict(extra or {}), status)

    def refusal(self, request: Request, body: Any) -> Response | None:
        """The answer to a wrong key, where one is wanted."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.api_key is None or given == self.api_key.reveal():
            return None
        return self.error(401, message="unauthorized", extra={"signin_url": "https://ollama.example/connect"})

    def _refused(self, name: str, body: Any) -> Response | None:
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

    def _words(self, name: str, body: Any) -> Response:
        refusal = self._refused(name, body)
        if refusal is not None:
            return refusal
        script = self.script if body.get("think") is not False else msgspec.structs.replace(self.script, thinking="")
        return self._answer(name, body, answer_lines(script, body["model"], chat=name == "chat"))

    def _embed(self, name: str, body: Any) -> Response:
        refusal = self._refused(name, body)
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
        self.tell()
        return JSONResponse(answer)

    def _pull(self, name: str, body: Any) -> Response:
        refusal = self._refused(name, body)
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

    def _tags(self, name: str, body: Any) -> Response:
        details = {"format": "gguf", "family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
        models = [
            {"name": name, "model": name, "size": 2_000_000_000, "details": details, "capabilities": service_features}
            for name, service_features in self.installed.items()
        ]
        return JSONResponse({"models": models})

    def _version(self, name: str, body: Any) -> Response:
        return JSONResponse({"version": "0.13.0"})

    def _answer(self, name: str, body: dict[str, Any], lines: Iterable[dict[str, Any]]) -> Response:
        work = Work(route=name, model=body["model"])
        self.work.append(work)
        self.tell()
        if body.get("stream", True):
            return Lines(work, lines, self.script, self.tell)
        everything = list(lines)
        work.end = "error" if "error" in everything[-1] else "done"
        if work.end == "error":
            return JSONResponse(everything[-1], 500)
        return JSONResponse(everything[-1] if name == "pull" else whole_answer(everything))


def _handler(name: str, handle: Callable[[str, Any], Response]) -> Handler:
    async def answer(request: Request, body: Any) -> Response:
        await trio.lowlevel.checkpoint()
        return handle(name, body)

    return answer


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
    async with open_fake_service(FakeOllama(script), port, host=host) as fake:
        yield fake
