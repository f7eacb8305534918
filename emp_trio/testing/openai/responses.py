"""The routes of the Responses API: create, retrieve, cancel, delete (OpenAI reference 4 to 7)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emp_trio.testing.openai.checks import Fault
from emp_trio.testing.openai.events import error_frame, frames_of
from emp_trio.testing.openai.generation import Generation
from emp_trio.testing.openai.rules import fault_of, violations_of
from emp_trio.testing.openai.service import Service, error_answer, fault_answer, not_an_object
from emp_trio.testing.openai.sse import EventStream

_QUERY: Final = frozenset(("include[]", "include", "stream", "starting_after", "include_obfuscation"))


async def create(service: Service, request: Request, body: Any) -> Response:
    """``POST /responses``."""
    if not isinstance(body, dict):
        return not_an_object()
    service.violations += violations_of(body)
    script = fault_of(body) or service.script_for(body)
    if isinstance(script, Fault):
        return fault_answer(script)
    if service.plain_tool_choice and not isinstance(body.get("tool_choice", "auto"), str):
        words = "1 validation error for body.tool_choice: Input should be a valid string"
        return JSONResponse({"object": "error", "message": words, "type": "BadRequestError", "code": 400}, 400)
    generation = Generation(
        id=service.new_id("resp_"), body=body, script=script, run=service.new_run(), created_at=time.time()
    )
    service.generations[generation.id] = generation
    if body.get("stream"):
        options = body.get("stream_options") or {}
        return _stream(generation, obfuscation=options.get("include_obfuscation") is not False)
    if not body.get("background"):
        await generation.run.reach(script.queued + script.seconds)
    return JSONResponse(generation.response(trio.current_time()))


async def retrieve(service: Service, request: Request, body: Any) -> Response:
    """``GET /responses/{id}``, and with ``stream=true`` the rest of its stream (6.2)."""
    query = request.query_params
    service.violations += [f"undocumented query parameter {name!r}" for name in query if name not in _QUERY]
    streamed = query.get("stream") == "true"
    if "starting_after" in query and not streamed:
        service.violations.append("starting_after without stream=true")

    def answer(generation: Generation) -> Response:
        if not streamed:
            return JSONResponse(generation.response(trio.current_time()))
        if not (generation.body.get("background") and generation.body.get("stream")):
            return fault_answer(Fault("This response was not created with stream=true and background=true.", "stream"))
        after = query.get("starting_after", "-1")
        if not after.removeprefix("-").isdecimal():
            return fault_answer(Fault("starting_after must be a sequence number.", "starting_after", "invalid_type"))
        return _stream(generation, after=int(after), obfuscation=query.get("include_obfuscation") != "false")

    return _with(service, request, answer)


async def delete(service: Service, request: Request, body: Any) -> Response:
    """``DELETE /responses/{id}``; what it cost stays on the bill."""

    def answer(generation: Generation) -> Response:
        service.made += generation.ran(trio.current_time())
        del service.generations[generation.id]
        return JSONResponse({"id": generation.id, "object": "response", "deleted": True})

    return _with(service, request, answer)


async def cancel(service: Service, request: Request, body: Any) -> Response:
    """``POST /responses/{id}/cancel``."""

    def answer(generation: Generation) -> Response:
        if not generation.body.get("background"):
            return fault_answer(Fault("Cannot cancel a synchronous response.", None, None))
        generation.cancel(trio.current_time())
        return JSONResponse(generation.response(trio.current_time()))

    return _with(service, request, answer)


def _stream(generation: Generation, *, obfuscation: bool, after: int = -1) -> Response:
    """The events of a generation; one in the foreground does not outlive its stream."""
    background = generation.body.get("background")
    script = generation.script.stream
    frames = frames_of(generation, after=after, obfuscation=obfuscation)
    return EventStream(
        frames,
        generation.run,
        script,
        error=error_frame(generation, after + 1 + len(frames[: script.cut_after])),
        left=None if background else lambda: generation.cancel(trio.current_time()),
    )


def _with(service: Service, request: Request, answer: Callable[[Generation], Response]) -> Response:
    found = service.generations.get(request.path_params["id"])
    if found is None:
        return error_answer(404, f"Response with id '{request.path_params['id']}' not found.")
    return answer(found)
