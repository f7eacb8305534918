"""Answers of the fake Ollama on their way to the client, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec
import trio
from starlette.responses import Response

from emp_trio.testing.ollama.script import Script


class Work(msgspec.Struct, kw_only=True):
    """One generation, embedding or download: how many lines of it were sent, and how it ended.

    ``dropped`` means that its client went away, at which Ollama stops; ``cut`` that the script broke it off.
    """

    route: str
    model: str
    lines: int = 0
    end: Literal["running", "done", "error", "cut", "dropped"] = "running"


class Lines(Response):
    """An answer of JSON lines, sent as a script says until the client has it all or goes away.

    Args:
        work: what is kept up to date.
        lines: all lines of an undisturbed answer.
        script: its pauses and disturbances.
        tell: called whenever ``work`` has changed.
    """

    def __init__(self, work: Work, lines: Iterable[dict[str, Any]], script: Script, tell: Callable[[], None]) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self._work = work
        self._script = script
        self._tell = tell
        self._rest = iter(lines)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the answer (ASGI)."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
                await self._send_all(send)
                nursery.cancel_scope.cancel()
        finally:
            if self._work.end == "running":
                self._work.end = "dropped"
            self._tell()

    async def _send_all(self, send: Any) -> None:
        await trio.sleep(self._script.load)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for line in self._disturbed():
            if self._work.lines == self._script.stall_after:
                await trio.sleep_forever()
            await trio.sleep(self._script.pause)
            await send({"type": "http.response.body", "body": msgspec.json.encode(line) + b"\n", "more_body": True})
            self._work.lines += 1
            self._tell()
        if self._work.end == "running":
            self._work.end = "done"
        await send({"type": "http.response.body", "body": b""})

    def _disturbed(self) -> Iterator[dict[str, Any]]:
        """The lines, up to what the script does to them."""
        for number, line in enumerate(self._rest):
            if number == self._script.cut_after:
                self._work.end = "cut"
                return
            if number == self._script.error_after and self._script.error is not None:
                self._work.end = "error"
                yield {"error": self._script.error}
                return
            if "error" in line:
                self._work.end = "error"
            yield line


async def _cancel_when_gone(receive: Any, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
