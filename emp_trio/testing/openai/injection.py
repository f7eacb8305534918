"""Faults that a test asks for: errors, pages of proxies, delays, cuts. What they do to an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
import trio
from starlette.responses import JSONResponse, Response

from emp_trio.testing.openai.wire import Wire

RouteName = Literal["create", "retrieve", "cancel", "delete", "models", "chat", "images", "edits"]


class Injection(msgspec.Struct, kw_only=True):
    """What happens to the next ``times`` requests of a route; see ``FakeOpenAI.inject``."""

    error: dict[str, Any]
    status: int | None
    headers: Mapping[str, str]
    body: bytes | None
    content_type: str
    delay: float
    after: bool
    times: int
    cut: int | None
    reset: bool
    rate: float | None

    async def answer(self, usual: Callable[[], Awaitable[Response]], wire: Wire) -> Response:
        """The answer to a request whose ``usual`` answer would have had its effect."""
        wire.left, wire.reset, wire.rate = self.cut, self.reset, self.rate
        replaced = self.status is not None or self.body is not None or self.cut == 0
        response = await usual() if self.after or not replaced else None
        await trio.sleep(self.delay)
        if replaced:
            return self._replacement()
        assert response is not None
        response.headers.update(self.headers)
        return response

    def _replacement(self) -> Response:
        headers = dict(self.headers)
        if self.body is not None:
            return Response(self.body, self.status or 200, headers, media_type=self.content_type)
        return JSONResponse({"error": self.error}, self.status or 200, headers)


class Injections:
    """The faults still to come, by route."""

    def __init__(self) -> None:
        self._waiting: dict[RouteName, list[Injection]] = {}

    def add(self, route: RouteName, injection: Injection) -> None:
        """Put one behind those of the same route."""
        self._waiting.setdefault(route, []).append(injection)

    def take(self, route: RouteName) -> Injection | None:
        """The one for a request that has just come, or None."""
        waiting = self._waiting.get(route)
        if not waiting:
            return None
        waiting[0].times -= 1
        return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]
