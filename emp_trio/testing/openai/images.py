"""The routes of the Images API, and what they make (OpenAI reference 8 and 9)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emp_trio.testing.openai.checks import Fault
from emp_trio.testing.openai.generation import IMAGE_USAGE
from emp_trio.testing.openai.image_rules import image_fault, image_violations
from emp_trio.testing.openai.media import image
from emp_trio.testing.openai.run import Run
from emp_trio.testing.openai.script import Script
from emp_trio.testing.openai.service import Service, fault_answer, not_an_object
from emp_trio.testing.openai.sse import COMMENT, DONE, EventStream, Frame, data_frame, spread

_USED: Final = {"background": "opaque", "output_format": "png", "quality": "medium", "size": "1024x1024"}


async def generate(service: Service, request: Request, body: Any) -> Response:
    """``POST /images/generations``."""
    return await _draw(service, body, edit=False)


async def edit(service: Service, request: Request, body: Any) -> Response:
    """``POST /images/edits``."""
    return await _draw(service, body, edit=True)


async def _draw(service: Service, body: Any, *, edit: bool) -> Response:
    if isinstance(body, Fault):
        return fault_answer(body)
    if not isinstance(body, dict):
        return not_an_object()
    service.violations += image_violations(body, edit=edit)
    fault = image_fault(body, edit=edit)
    if fault is not None:
        return fault_answer(fault)
    script = service.script
    drawing = Drawing(body=body, edit=edit, script=script, run=service.new_run(), created=int(time.time()))
    service.drawings.append(drawing)
    if body.get("stream"):
        error = drawing.error()
        return EventStream(
            drawing.frames(),
            drawing.run,
            script.stream,
            error=None if error is None else data_frame({"type": "error", "error": error}, event="error"),
            left=lambda: drawing.run.cancel(trio.current_time()),
        )
    await drawing.run.reach(script.seconds)
    if (error := drawing.error()) is not None:
        return JSONResponse({"error": error}, 500 if error["type"] == "server_error" else 400)
    return JSONResponse(drawing.whole())


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """A request for images; ``body`` has been found good, ``created`` is seconds since the epoch."""

    body: dict[str, Any]
    edit: bool
    script: Script
    run: Run
    created: int

    def made(self, now: float) -> int:
        """Images made by ``now``, on the service's clock; of a stream that was left, those that were begun."""
        if self.script.image_error is not None or self.script.status == "failed":
            return 0
        if self.run.cancelled is None or not self.script.seconds:
            return self._count()
        share = (self.run.cancelled - self.run.began) / self.script.seconds
        return min(self._count(), 1 + int(share * self._count()))

    def whole(self) -> dict[str, Any]:
        """The answer, not streamed."""
        data = [
            {"b64_json": self._image(index), "revised_prompt": f"A fake image of: {self.body['prompt'][:80]}"}
            for index in range(self._count())
        ]
        return {"created": self.created, "data": data, "usage": IMAGE_USAGE} | self._used()

    def frames(self) -> list[Frame]:
        """The answer as a stream."""
        script = self.script.stream
        frames = [data_frame(event, event=event["type"]) for event in self._events()]
        if script.noise:
            frames = [COMMENT + frame for frame in [data_frame({"type": "keepalive"}), *frames]]
        if script.done_marker:
            frames.append(DONE)
        if self.error() is not None and script.cut_after is None:
            frames = [frame for frame in frames if b".partial_image" in frame[:200]]
        return spread(frames, self.script.seconds)

    def error(self) -> dict[str, Any] | None:
        """The error it ends in, or None."""
        default = {"type": "server_error", "code": "server_error", "message": "The server had an error.", "param": None}
        if self.script.image_error is not None:
            return default | {"type": "image_generation_user_error"} | self.script.image_error
        if self.script.status == "failed":
            return default | (self.script.error or {})
        return None if self.script.stream.error is None else default | self.script.stream.error

    def _events(self) -> Iterator[dict[str, Any]]:
        name = "image_edit" if self.edit else "image_generation"
        asked = self.body.get("partial_images") or 0
        some = asked if self.script.stream.partial_images is None else min(asked, self.script.stream.partial_images)
        for index in range(self._count()):
            for number in range(some):
                seed = 1000 + 10 * index + number
                partial = {"b64_json": image(self._used()["output_format"], seed=seed), "created_at": self.created}
                yield {"type": f"{name}.partial_image", "partial_image_index": number} | partial | self._used()
            final = {"b64_json": self._image(index), "usage": IMAGE_USAGE, "created_at": self.created}
            yield {"type": f"{name}.completed"} | final | self._used()

    def _count(self) -> int:
        return (self.body.get("n") or 1) if self.script.images else 0

    def _image(self, index: int) -> str:
        seed = index + len(self.body["prompt"])
        return image(self._used()["output_format"], seed=seed, size=self.script.image_bytes)

    def _used(self) -> dict[str, Any]:
        return {
            name: default if self.body.get(name) in (None, "auto") else self.body[name]
            for name, default in _USED.items()
        }
