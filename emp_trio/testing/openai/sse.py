"""Answers that are event streams: frames of bytes, each sent when its time has come."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from emp_trio.testing.openai.run import Run
from emp_trio.testing.openai.script import StreamScript

_PIECE: Final = re.compile(r"\s*\S+\s*|\s+")
DONE: Final = b"data: [DONE]\n\n"
COMMENT: Final = b": still here\n\n"


class Frame(NamedTuple):
    """Bytes that are due ``after`` so many seconds of a run."""

    after: float
    data: bytes


class EventStream(Response):
    """A stream of frames, sent as they become due; a cancelled run ends it.

    Args:
        script: where it is cut, or stalls.
        error: a frame for its end, also where it is cut.
        left: called where the connection ends before the stream does.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: Sequence[Frame],
        run: Run,
        script: StreamScript,
        *,
        error: bytes | None = None,
        left: Callable[[], None] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache"})
        self._frames = list(frames[: script.cut_after])
        if error is not None:
            self._frames.append(Frame(self._frames[-1].after if self._frames else 0.0, error))
        self._run = run
        self._stall_after = script.stall_after
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        left = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_disconnected, receive, nursery.cancel_scope)
                await self._send_frames(send)
                left = False
                nursery.cancel_scope.cancel()
        finally:
            if left and self._left is not None:
                self._left()

    async def _send_frames(self, send: Send) -> None:
        for index, (after, data) in enumerate(self._frames):
            if index == self._stall_after:
                await self._run.over.wait()
            if not await self._run.reach(after):
                break
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_disconnected(self, receive: Receive, stream: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        stream.cancel()


def spread(frames: Sequence[bytes], seconds: float) -> list[Frame]:
    """Frames over so many seconds: the first at once, the last at the end."""
    return [Frame(seconds * index / max(1, len(frames) - 1), data) for index, data in enumerate(frames)]


def data_frame(value: Mapping[str, Any], *, event: str | None = None) -> bytes:
    """An event as it goes over the wire."""
    named = f"event: {event}\n".encode() if event is not None else b""
    return named + b"data: " + msgspec.json.encode(value) + b"\n\n"


def pieces(text: str) -> list[str]:
    """A text as the deltas in which it is streamed: word by word."""
    return _PIECE.findall(text)


def padding() -> str:
    """What an ``obfuscation`` member holds."""
    return secrets.token_urlsafe(12)[: 1 + secrets.randbelow(16)]
