"""Answers that are event streams: frames of bytes, each sent when its time has come."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from emp_trio.testing.openai.script import Script

DONE: Final = b"data: [DONE]\n\n"
COMMENT: Final = b": still here\n\n"


class Run(msgspec.Struct, kw_only=True, eq=False):
    """The time that a generation takes, on the service's clock in seconds.

    Attributes:
        over: set once it has been made to end before its time.
    """

    began: float
    seconds: float
    over: trio.Event = msgspec.field(default_factory=trio.Event)

    async def reach(self, share: float) -> None:
        """Wait until that share of it has passed."""
        with trio.move_on_at(self.began + share * self.seconds):
            await self.over.wait()


class EventStream(Response):
    """A stream of frames.

    Args:
        frames: what is sent, as bytes or whatever has come of a frame by the time it is due; None ends the stream.
        run: over which the frames are spread.
        script: cuts and stalls.
        left: called where the client goes away before the end.
    """

    media_type = "text/event-stream"

    def __init__(
        self, frames: Sequence[bytes], run: Run, script: Script, *, left: Callable[[], None] | None = None
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache"})
        self._frames = frames
        self._run = run
        self._stall_after = script.stream.stall_after
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, receive, nursery.cancel_scope)
            for index, frame in enumerate(self._frames):
                if index == self._stall_after:
                    await self._run.over.wait()
                await self._run.reach(index / max(1, len(self._frames) - 1))
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()

    async def _listen(self, receive: Receive, over: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self._left is not None:
            self._left()
        over.cancel()


def data_frame(value: Mapping[str, Any], *, event: str | None = None) -> bytes:
    """An event as it goes over the wire."""
    named = f"event: {event}\n".encode() if event is not None else b""
    return named + b"data: " + msgspec.json.encode(value) + b"\n\n"


def padding() -> str:
    """What an ``obfuscation`` member holds."""
    return secrets.token_urlsafe(12)[: 1 + secrets.randbelow(16)]
