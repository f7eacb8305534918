"""The fake OpenAI: an HTTP service on a loopback socket that keeps count of everything asked of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emp_trio.secrets import Secret
from emp_trio.testing.fake_service import FakeService, Handler, open_fake_service
from emp_trio.testing.forms import parse_form
from emp_trio.testing.openai import chat, images, responses
from emp_trio.testing.openai.generation import Generation
from emp_trio.testing.openai.headers import ANSWER_HEADERS, header_violations
from emp_trio.testing.openai.image_rules import form_body
from emp_trio.testing.openai.script import Script
from emp_trio.testing.openai.service import Service, error_answer

RouteName: TypeAlias = Literal["create", "retrieve", "cancel", "delete", "models", "chat", "images", "edits"]

_Handler: TypeAlias = Callable[[Service, Request, Any], Awaitable[Response]]


class FakeOpenAI(FakeService):
    """The service. What ``inject`` takes beside its own is in :meth:`error`.

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
        super().__init__()
        self._service = Service(script or Script())
        self.api_key = Secret("sk-fake-0123456789abcdef")
        self.shutdown_dates = self._service.shutdown_dates
        self.generations: dict[str, Generation] = self._service.generations
        self.violations = self._service.violations
        self.headers = dict(ANSWER_HEADERS)
        self._numbers = itertools.count(1)
        self.route("create", "POST", "/v1/responses", self._handler(responses.create))
        self.route("retrieve", "GET", "/v1/responses/{id}", self._handler(responses.retrieve))
        self.route("delete", "DELETE", "/v1/responses/{id}", self._handler(responses.delete))
        self.route("cancel", "POST", "/v1/responses/{id}/cancel", self._handler(responses.cancel))
        self.route("chat", "POST", "/v1/chat/completions", self._handler(chat.complete))
        self.route("images", "POST", "/v1/images/generations", self._handler(images.generate))
        self.route("edits", "POST", "/v1/images/edits", self._handler(images.edit))
        self.route("models", "GET", "/v1/models", self._handler(_models))

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
    def plain_tool_choice(self) -> bool:
        """Whether it takes ``tool_choice`` as a text only, as some servers of others do, and says so in their way."""
        return self._service.plain_tool_choice

    @plain_tool_choice.setter
    def plain_tool_choice(self, plain: bool) -> None:
        self._service.plain_tool_choice = plain

    @property
    def billed(self) -> int:
        """What ran, and so would have been billed: responses, chat completions, images of the Images API."""
        return self._service.billed

    def finish_all(self) -> None:
        """Let every running generation reach its end now."""
        for run in self._service.runs:
            run.finish()

    def error(
        self,
        status: int,
        *,
        code: str | None = None,
        type: str | None = None,
        message: str = "An injected error.",
        param: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Response:
        """An error in the documented shape.

        Args:
            type: None for the type that is usual with the status.
            extra: further members of the error object.
        """
        usual = "server_error" if status >= 500 else "invalid_request_error"
        error = {"message": message, "type": type or usual, "param": param, "code": code} | dict(extra or {})
        return JSONResponse({"error": error}, status)

    def refusal(self, request: Request, body: Any) -> Response | None:
        """What every request is checked for: its headers, and the key."""
        streamed = (body if isinstance(body, dict) else request.query_params).get("stream") in (True, "true")
        headers = {key: value for key, value in request.headers.items() if key != "authorization"}
        form = request.url.path.endswith("/edits")
        self.violations.extend(header_violations(headers, body=body, streamed=streamed, form=form))
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if given == self.api_key.reveal():
            return None
        shown = f"{given[:8]}{'*' * 12}{given[-4:]}"
        return error_answer(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")

    def sent(self, response: Response) -> None:
        """Every answer has an id, and the headers that are set."""
        for header, value in ({"x-request-id": f"req_{next(self._numbers):06d}"} | self.headers).items():
            response.headers.setdefault(header, value)

    def decoded(self, name: str, raw: bytes, content_type: str) -> Any:
        """The body of a request: JSON, or the form of an edit."""
        if name == "edits" and content_type.startswith("multipart/form-data"):
            return form_body(parse_form(raw, content_type))
        return super().decoded(name, raw, content_type)

    def _handler(self, handle: _Handler) -> Handler:
        return functools.partial(handle, self._service)


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
    async with open_fake_service(FakeOpenAI(script), port, host=host) as fake:
        fake.base_url += "/v1"
        yield fake
    if strict and fake.violations:
        raise AssertionError("the fake OpenAI was asked for what nobody documents: " + "; ".join(fake.violations))
