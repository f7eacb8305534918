"""The fake Gemini: an HTTP service on a loopback socket that keeps count of everything asked of it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emp_trio.secrets import Secret
from emp_trio.testing.fake_service import FakeService, open_fake_service
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

_LARGEST = 20 * 2**20  # bytes of a request, about


class FakeGemini(FakeService):
    """The service. What ``inject`` takes beside its own is in :meth:`error`.

    Attributes:
        base_url: where it is served: the host alone (set by :func:`open_fake_gemini`).
        api_key: the only key it takes.
        script: how generations go from now on.
        generations: by id, oldest first.
        requests: every request, oldest first.
        violations: whatever no reference documents in any of them; a good client leaves it empty.
    """

    secret_headers = ("x-goog-api-key",)

    def __init__(self, script: Script | None = None) -> None:
        super().__init__()
        self.api_key = Secret("AIzaSyFake-0123456789abcdefghijklmnopqr")
        self.script = script or Script()
        self.generations: dict[str, Generation] = {}
        self._numbers = itertools.count(1)
        for version in ("v1beta", "v1"):  # the documentation speaks of the one, the vendor's client asks for the other
            self.route("models", "GET", f"/{version}/models", self._models)
            self.route("generate", "POST", f"/{version}/models/{{model}}:generateContent", self._generate)
            self.route("create", "POST", f"/{version}/interactions", self._create)
            self.route("retrieve", "GET", f"/{version}/interactions/{{id}}", self._retrieve)
            self.route("delete", "DELETE", f"/{version}/interactions/{{id}}", self._delete)
            self.route("cancel", "POST", f"/{version}/interactions/{{id}}/cancel", self._cancel)

    @property
    def billed(self) -> int:
        """Generations that ran, and so would have been billed."""
        return sum(generation.ran(trio.current_time()) for generation in self.generations.values())

    def finish_all(self) -> None:
        """Let every running interaction reach its end now."""
        for generation in self.generations.values():
            generation.finished = generation.cancelled is None

    def error(
        self,
        status: int,
        *,
        word: str = "INTERNAL",
        message: str = "An injected error.",
        details: list[dict[str, Any]] | None = None,
        listed: bool = False,
    ) -> Response:
        """An error in the documented shape; ``listed``: in a list, as it sometimes comes."""
        return _error(status, message, word, details, listed=listed)

    def refusal(self, request: Request, body: Any) -> Response | None:
        """What every request is checked for: where its key is, its size, and the key."""
        if "key" in request.query_params:
            self.violations.append("the key is in the URL, where it lands in logs")
        if int(request.headers.get("content-length", 0)) > _LARGEST:
            return _error(400, "Request payload size exceeds the limit.", "INVALID_ARGUMENT")
        key = request.headers.get("x-goog-api-key")
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
    async with open_fake_service(FakeGemini(script), port, host=host) as fake:
        yield fake
