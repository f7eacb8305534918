"""State shared by the routes of the fake OpenAI: billing counter, recorded calls, errors."""

from __future__ import annotations

import itertools
from typing import Any, Final, Protocol

import msgspec
import trio
from starlette.responses import JSONResponse, Response

from emp_trio.testing.openai.checks import Fault
from emp_trio.testing.openai.generation import Generation
from emp_trio.testing.openai.run import Run
from emp_trio.testing.openai.script import Script

_STEERING: Final = "fake_openai"  # metadata key whose value is the JSON of a Script


class Billed(Protocol):
    """Something that costs money."""

    def made(self, now: float) -> int:
        """How often, by ``now`` on the service's clock."""
        ...


class Service:
    """State of the service; the attributes are those of ``FakeOpenAI``."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.models = ["gpt-6-luna", "gpt-6.2-sol", "gpt-4.1", "gpt-image-2.6-flare", "gpt-image-2.6-sunburst"]
        self.plain_tool_choice = False
        self.shutdown_dates: dict[str, str] = {}
        self.generations: dict[str, Generation] = {}
        self.violations: list[str] = []
        self.made = 0  # chat completions, and responses that have been deleted
        self.drawings: list[Billed] = []
        self.runs: list[Run] = []
        self._numbers = itertools.count(1)

    @property
    def billed(self) -> int:
        """What would have been billed so far."""
        now = trio.current_time()
        ran = sum(generation.ran(now) for generation in self.generations.values())
        return self.made + ran + sum(drawing.made(now) for drawing in self.drawings)

    def new_id(self, prefix: str) -> str:
        """An id that nothing else has."""
        return f"{prefix}{next(self._numbers):06d}"

    def new_run(self) -> Run:
        """The time of a generation that begins now."""
        self.runs.append(Run(began=trio.current_time()))
        return self.runs[-1]

    def script_for(self, body: dict[str, Any]) -> Script | Fault:
        """How the generation that a request asks for goes."""
        steering = (body.get("metadata") or {}).get(_STEERING)
        try:
            return msgspec.json.decode(steering, type=Script) if steering else self.script
        except msgspec.DecodeError as error:
            return Fault(f"metadata.{_STEERING}: {error}", f"metadata.{_STEERING}")


def error_answer(status: int, message: str, *, code: str | None = None) -> Response:
    """An answer in the documented error shape."""
    content = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": content}, status)


def fault_answer(fault: Fault) -> Response:
    """The answer to a wrong request."""
    content = {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code}
    return JSONResponse({"error": content}, 400)


def not_an_object() -> Response:
    """The answer to a body that is not a JSON object."""
    return error_answer(400, "The body must be a JSON object.")
