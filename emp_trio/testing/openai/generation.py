"""One response of the fake OpenAI: the response object it is at any moment. A function of time."""

from __future__ import annotations

from typing import Any

import msgspec

from emp_trio.testing.openai.media import image
from emp_trio.testing.openai.run import Run
from emp_trio.testing.openai.script import Script


class Generation(msgspec.Struct, kw_only=True):
    """A response of the service.

    Times (``now``) are of the service's clock in seconds; ``created_at`` is seconds since the epoch.
    """

    id: str
    body: dict[str, Any]
    script: Script
    run: Run
    created_at: float

    def status(self, now: float) -> str:
        """The response's status at ``now``."""
        if self.run.cancelled is not None:
            return "cancelled"
        if self.run.finished or now >= self.run.began + self.script.queued + self.script.seconds:
            return self.script.status
        return "queued" if now < self.run.began + self.script.queued else "in_progress"

    def ran(self, now: float) -> bool:
        """Whether it got as far as to cost money."""
        until = now if self.run.cancelled is None else self.run.cancelled
        return self.run.finished or until >= self.run.began + self.script.queued

    def cancel(self, now: float) -> None:
        """Cancel it; a finished one stays what it is."""
        if self.status(now) in ("queued", "in_progress"):
            self.run.cancel(now)

    def response(self, now: float) -> dict[str, Any]:
        """The response object at ``now``."""
        return self.snapshot(self.status(now))

    def snapshot(self, status: str) -> dict[str, Any]:
        """The response object in a status (OpenAI reference 4.3)."""
        ended = status in ("completed", "incomplete")
        took = self.script.queued + self.script.seconds
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": self.created_at + took if status == "completed" else None,
            "status": status,
            "error": self._error() if status == "failed" else None,
            "incomplete_details": {"reason": self.script.incomplete_reason} if status == "incomplete" else None,
            "model": f"{self.body['model']}-2026-09-01",
            "output": self._output() if ended else [],
            "usage": self._usage() if ended else None,
            "tool_usage": self._tool_usage() if ended and self._images() else None,
            "background": bool(self.body.get("background")),
            "store": self.body.get("store", True),
            "metadata": self.body.get("metadata") or {},
            "tools": self.body.get("tools", []),
            "tool_choice": self.body.get("tool_choice", "auto"),
            "parallel_tool_calls": self.body.get("parallel_tool_calls", True),
            "instructions": self.body.get("instructions"),
            "temperature": self.body.get("temperature", 1.0),
            "top_p": self.body.get("top_p", 1.0),
            "max_output_tokens": self.body.get("max_output_tokens"),
            "previous_response_id": self.body.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None} | (self.body.get("reasoning") or {}),
            "text": {"format": {"type": "text"}, "verbosity": "medium"} | (self.body.get("text") or {}),
            "truncation": self.body.get("truncation") or "disabled",
            "service_tier": "default",
        }

    def image_tool(self) -> dict[str, Any] | None:
        """The image tool of the request, or None."""
        tools = self.body.get("tools", [])
        return next((tool for tool in tools if tool["type"] == "image_generation"), None)

    def _error(self) -> dict[str, Any]:
        return self.script.error or {"code": "server_error", "message": "The server had an error."}

    def _images(self) -> int:
        return self.script.images if self.image_tool() is not None and self.script.image_error is None else 0

    def _output(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = [{"id": f"rs_{self.id}", "type": "reasoning", "summary": []}, *self.script.extra]
        items += [self._image_item(index) for index in range(self._images())]
        if self.script.image_error is not None:
            error = {"type": "image_generation_user_error"} | self.script.image_error
            failed = {"id": f"ig_{self.id}", "type": "image_generation_call", "status": "failed", "result": None}
            items.append(failed | {"error": error})
        content: list[dict[str, Any]] = []
        if self.script.refusal is not None:
            content.append({"type": "refusal", "refusal": self.script.refusal})
        elif self.script.text is not None:
            content += (
                [{"type": "output_text", "text": self.script.text, "annotations": []}] if self.script.text else []
            )
        elif len(items) == 1:
            content.append({"type": "output_text", "text": f"A fake answer to {self.id}.", "annotations": []})
        if content:
            items.append(
                {
                    "id": f"msg_{self.id}",
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "content": content,
                }
            )
        return items

    def _image_item(self, index: int) -> dict[str, Any]:
        tool = self.image_tool() or {}
        output_format = tool.get("output_format", "png")
        seed = index + len(str(self.body.get("input")))
        background = tool.get("background", "auto")
        return {
            "id": f"ig_{self.id}_{index}",
            "type": "image_generation_call",
            "status": "generating",  # a finished response often still says so (OpenAI reference 7)
            "result": image(output_format, seed=seed, size=self.script.image_bytes),
            "revised_prompt": f"A fake image of: {str(self.body.get('input'))[:80]}",
            "action": "edit" if tool.get("action") == "edit" else "generate",
            "background": "opaque" if background == "auto" else background,
            "output_format": output_format,
            "quality": tool.get("quality", "auto"),
            "size": tool.get("size", "auto"),
        }

    def _tool_usage(self) -> dict[str, Any]:
        """A family of tools that was not used has zero counts."""
        return {"image_gen": IMAGE_USAGE, "web_search": {"num_requests": 0}}

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 30,
            "output_tokens_details": {"reasoning_tokens": 10},
            "total_tokens": 50,
        }


IMAGE_USAGE = {
    "input_tokens": 15,
    "input_tokens_details": {"text_tokens": 15, "image_tokens": 0},
    "output_tokens": 1056,
    "total_tokens": 1071,
}
