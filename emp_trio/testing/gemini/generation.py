"""One generation of the fake Gemini: its script, and what either interface says of it. A function of time."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, Literal

import msgspec

from emp_trio.testing.png import make_png

Seconds = Annotated[float, msgspec.Meta(ge=0)]

_SIGNATURE = base64.b64encode(b"a thought signature").decode()


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a generation goes.

    Attributes:
        queued: seconds in status ``queued`` (of an interaction).
        seconds: seconds of work after that.
        status: how an interaction ends.
        errors: ``errors`` of a failed interaction.
        finish_reason: of the candidate of a response; None leaves the response without candidates.
        finish_message: said beside it.
        block_reason: ``promptFeedback.blockReason`` of a response that has no candidates then.
        ratings: ``safetyRatings``, of the candidate or of the prompt.
        images: images made.
        drafts: images in thoughts, before them; none where there are no images.
        only_thoughts: the images themselves are marked as thoughts, as it has been seen.
        snake_case: fields of a response are named as gateways name them.
        by_uri: images are given by address (``fileData``, ``uri``) instead of data.
        text: words beside the images.
        data: base64 text in place of every image.
        image_bytes: exact size of an image.
        declared: what an image is said to be; it is a PNG in any case.
    """

    queued: Seconds = 0.0
    seconds: Seconds = 0.05
    status: Literal[
        "completed",
        "failed",
        "cancelled",
        "incomplete",
        "budget_exceeded",
        "requires_action",
        "requires_continuation",
    ] = "completed"
    errors: list[dict[str, Any]] = []
    finish_reason: str | None = "STOP"
    finish_message: str | None = None
    block_reason: str | None = None
    ratings: list[dict[str, Any]] = []
    images: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    drafts: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    only_thoughts: bool = False
    snake_case: bool = False
    by_uri: str | None = None
    text: str | None = None
    data: str | None = None
    image_bytes: Annotated[int, msgspec.Meta(ge=10_000)] | None = None
    declared: str = "image/png"


class Generation(msgspec.Struct, kw_only=True):
    """A generation of the service; ``began`` and ``cancelled`` are times of the service's clock in seconds."""

    id: str
    model: str
    script: Script
    began: float
    cancelled: float | None = None
    finished: bool = False

    def status(self, now: float) -> str:
        """The interaction's status at ``now``."""
        if self.cancelled is not None:
            return "cancelled"
        if self.finished or now >= self.began + self.script.queued + self.script.seconds:
            return self.script.status
        return "queued" if now < self.began + self.script.queued else "in_progress"

    def ran(self, now: float) -> bool:
        """Whether it got as far as to cost money."""
        if self.script.block_reason is not None:
            return False
        until = now if self.cancelled is None else self.cancelled
        return self.finished or until >= self.began + self.script.queued

    def cancel(self, now: float) -> None:
        """Cancel it; a finished one stays what it is."""
        if self.status(now) in ("queued", "in_progress"):
            self.cancelled = now

    def interaction(self, now: float) -> dict[str, Any]:
        """The interaction object at ``now`` (Gemini reference A7)."""
        status = self.status(now)
        found: dict[str, Any] = {"id": self.id, "status": status, "model": self.model}
        if status == "failed":
            found["errors"] = self.script.errors or [{"code": "INTERNAL", "message": "An internal error."}]
        if status == "completed":
            found["steps"] = self._steps()
        if status in ("completed", "incomplete"):
            found["usage"] = {
                "total_input_tokens": 12,
                "total_output_tokens": 1290,
                "total_thought_tokens": 40,
                "total_cached_tokens": 3,
                "total_tokens": 1342,
            }
        return found

    def response(self) -> dict[str, Any]:
        """The response of ``generateContent`` (Gemini reference A4)."""
        found: dict[str, Any] = {"responseId": self.id, "modelVersion": f"{self.model}-001"}
        found["usageMetadata"] = {
            "promptTokenCount": 12,
            "candidatesTokenCount": 1290,
            "thoughtsTokenCount": 40,
            "cachedContentTokenCount": 3,
            "totalTokenCount": 1342,
        }
        if self.script.block_reason is not None:
            feedback = {"blockReason": self.script.block_reason, "safetyRatings": self.script.ratings}
            return found | {"promptFeedback": feedback}
        if self.script.finish_reason is None:
            return found | {"candidates": []}
        candidate: dict[str, Any] = {
            "content": {"role": "model", "parts": self._parts()},
            "finishReason": self.script.finish_reason,
            "index": 0,
            "safetyRatings": self.script.ratings,
        }
        if self.script.finish_message is not None:
            candidate["finishMessage"] = self.script.finish_message
        found |= {"candidates": [candidate]}
        return _snake(found) if self.script.snake_case else found

    def _parts(self) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{"text": "Thinking about it.", "thought": True}]
        parts += [
            {"inlineData": {"mimeType": "image/png", "data": _draft(index)}, "thought": True}
            for index in range(self.script.drafts if self.script.images and not self.script.only_thoughts else 0)
        ]
        if self.script.text is not None:
            parts.append({"text": self.script.text})
        for index in range(self.script.images):
            part: dict[str, Any] = {"inlineData": {"mimeType": self.script.declared, "data": self._image(index)}}
            if self.script.by_uri is not None:
                part = {"fileData": {"mimeType": self.script.declared, "fileUri": self.script.by_uri}}
            part |= {"thoughtSignature": _SIGNATURE} | ({"thought": True} if self.script.only_thoughts else {})
            parts.append(part)
        return parts

    def _steps(self) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        if self.script.text is not None:
            content.append({"type": "text", "text": self.script.text})
        for index in range(self.script.images):
            image: dict[str, Any] = {"type": "image", "mime_type": self.script.declared}
            uri = self.script.by_uri
            image |= {"data": self._image(index)} if uri is None else {"uri": uri}
            content.append(image | ({"thought": True} if self.script.only_thoughts else {}))
        drafts = self.script.drafts if self.script.images and not self.script.only_thoughts else 0
        thoughts = [{"type": "image", "data": _draft(index), "mime_type": "image/png"} for index in range(drafts)]
        steps: list[dict[str, Any]] = [{"type": "thought", "signature": _SIGNATURE, "summary": thoughts}]
        return [*steps, {"type": "model_output", "content": content}] if content else steps

    def _image(self, index: int) -> str:
        if self.script.data is not None:
            return self.script.data
        return base64.b64encode(make_png(seed=index, size=self.script.image_bytes)).decode()


def _snake(value: Any) -> Any:
    """``value`` with the names of gateways that pass a client library's own objects on."""
    if isinstance(value, dict):
        return {re.sub("[A-Z]", lambda m: "_" + m[0].lower(), name): _snake(item) for name, item in value.items()}
    return [_snake(item) for item in value] if isinstance(value, list) else value


def _draft(index: int) -> str:
    return base64.b64encode(make_png(16, 16, seed=200 + index)).decode()
