"""``POST /chat/completions``: what a completion says, whole and in chunks (OpenAI reference 10)."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emp_trio.testing.openai.behavior import framed, split, spoken
from emp_trio.testing.openai.chat_rules import chat_fault, chat_violations
from emp_trio.testing.openai.checks import Fault
from emp_trio.testing.openai.script import Script, ToolCall
from emp_trio.testing.openai.service import Service, fault_answer, not_an_object
from emp_trio.testing.openai.sse import COMMENT, DONE, EventStream, data_frame, padding, pieces, spread

_USAGE: Final = {
    "prompt_tokens": 20,
    "completion_tokens": 30,
    "total_tokens": 50,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 10},
}


async def complete(service: Service, request: Request, body: Any) -> Response:
    """``POST /chat/completions``."""
    if not isinstance(body, dict):
        return not_an_object()
    service.violations += chat_violations(body)
    script = chat_fault(body) or service.script_for(body)
    if isinstance(script, Fault):
        return fault_answer(script)
    completion = Completion(id=service.new_id("chatcmpl-"), created=int(time.time()), body=body, script=script)
    service.made += 1
    run, error = service.new_run(), completion.error()
    if body.get("stream"):
        frame = None if error is None else data_frame({"error": error})
        return EventStream(spread(completion.frames(), script.seconds), run, script.stream, error=frame)
    await run.reach(script.seconds)
    if script.status in ("failed", "cancelled"):
        return JSONResponse({"error": error}, 500)
    return JSONResponse(completion.whole())


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A completion; ``created`` is seconds since the epoch, ``body`` a request that has been found good."""

    id: str
    created: int
    body: dict[str, Any]
    script: Script

    def whole(self) -> dict[str, Any]:
        """The answer, not streamed."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None,
            "refusal": self.script.refusal,
            "annotations": [],
        }
        if calls := self._calls():
            message["tool_calls"] = [_call(index, call) for index, call in enumerate(calls)]
        elif self.script.refusal is None:
            message["content"] = self._text()
        choice = {
            "message": spoken(message, self.script.behavior),
            "finish_reason": self._finish_reason(),
            "logprobs": None,
        }
        choices = [{"index": index} | choice for index in range(self._count())]
        return self._envelope("chat.completion") | {"choices": choices, "usage": _USAGE}

    def frames(self) -> list[bytes]:
        """The answer as the frames of a stream."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
        if calls := self._calls():
            for index, call in enumerate(calls):
                deltas.append({"tool_calls": [{"index": index} | _call(index, ToolCall(name=call.name, arguments=""))]})
                deltas += [
                    {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                    for piece in pieces(call.arguments)
                ]
        elif self.script.refusal is not None:
            deltas += [{"refusal": piece} for piece in pieces(self.script.refusal)]
        else:
            deltas += [{"content": piece} for piece in pieces(self._text())]
        deltas = [spoken(delta, self.script.behavior) for delta in split(deltas, self.script.behavior)]
        frames = [self._chunk(index, delta) for delta in deltas for index in range(self._count())]
        if self.script.stream.noise:
            frames = [COMMENT + frame for frame in frames]
        if self.error() is not None and self.script.stream.cut_after is None:
            return frames
        frames += [self._chunk(index, {}, self._finish_reason()) for index in range(self._count())]
        if (self.body.get("stream_options") or {}).get("include_usage"):
            frames.append(data_frame(self._envelope("chat.completion.chunk") | {"choices": [], "usage": _USAGE}))
        return [*frames, DONE]

    def error(self) -> dict[str, Any] | None:
        """The error it ends in, or None."""
        script = self.script
        given = script.stream.error or (script.error or {} if script.status in ("failed", "cancelled") else None)
        default = {"message": "The server had an error.", "type": "server_error", "param": None, "code": "server_error"}
        return None if given is None else default | given

    def _chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._envelope("chat.completion.chunk") | {"choices": [choice]}
        options = self.body.get("stream_options") or {}
        if options.get("include_usage"):
            chunk["usage"] = None
        if options.get("include_obfuscation", True):
            chunk["obfuscation"] = padding()
        return framed(chunk, self.script.behavior) if self.script.behavior else data_frame(chunk)

    def _envelope(self, object: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": f"{self.body['model']}-2026-09-01",
            "service_tier": "default",
        }

    def _count(self) -> int:
        return self.body.get("n") or 1

    def _finish_reason(self) -> str:
        if self.script.finish_reason is not None:
            return self.script.finish_reason
        if self.script.status == "incomplete":
            return "content_filter" if self.script.incomplete_reason == "content_filter" else "length"
        return "tool_calls" if self._calls() else "stop"

    def _calls(self) -> list[ToolCall]:
        if self.script.tool_calls or self.body.get("tool_choice") in (None, "none", "auto"):
            return self.script.tool_calls
        chosen = self.body["tool_choice"]
        function = chosen["function"] if isinstance(chosen, dict) else self.body["tools"][0]["function"]
        return [ToolCall(name=function["name"])]

    def _text(self) -> str:
        if self.script.text is not None:
            return self.script.text
        wanted = self.body.get("response_format") or {}
        match wanted.get("type"):
            case "json_object":
                return msgspec.json.encode({"answer": f"A fake answer to {self.id}."}).decode()
            case "json_schema":
                return msgspec.json.encode(_instance(wanted["json_schema"].get("schema"))).decode()
        return f"A fake answer to {self.id}."


def _call(index: int, call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{index:06d}", "type": "function", "function": function}


def _instance(schema: Any) -> Any:
    """The simplest value of a JSON schema, as far as its types and enumerations go."""
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"type": "object"}:
            properties = schema.get("properties")
            members = properties.items() if isinstance(properties, dict) else ()
            return {name: _instance(member) for name, member in members}
        case {"type": "array"}:
            return []
        case {"type": "string"}:
            return "fake"
        case {"type": "integer" | "number"}:
            return 1
        case {"type": "boolean"}:
            return True
    return None
