"""A relay in front of an HTTP service that can replace any of its answers. WebSockets pass through it untouched."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import h11
import msgspec
import trio

from emp_trio.testing.faulty_server import Answer, Exchange, open_faulty_server, reply
from emp_trio.testing.http11 import Cut, HttpConnection, Received

_CHUNK = 64 * 2**10


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A request and what the service answered to it."""

    request: Received
    status: int
    content_type: str
    body: bytes


Spoil: TypeAlias = Callable[[Received], Answer | None]
"""Given a request, once, the answer to send instead of the service's; None to send that."""


_PAGE: Final = "<!DOCTYPE html><html><body><h1>Welcome to nginx!</h1></body></html>"
_IDS: Final = re.compile(r"[0-9a-fA-F-]{8,}|[0-9]+")
_NOTHING: Final = Received(method="", target="", headers={}, body=b"", head=b"")
_UNANSWERED: Final = Answered(request=_NOTHING, status=0, content_type="", body=b"")


def kind_of(request: Received) -> str:
    """A request's method and target, without what differs from job to job."""
    return f"{request.method} {_IDS.sub('#', request.target)}"


def untouched(request: Received) -> None:
    """Leave the answer as it is."""


def from_kind(kind: str, answer: Answer, *, lasting: bool) -> Spoil:
    """``answer`` to the first request of a kind, or, ``lasting``, to that and all after it."""
    met = False

    def spoil(request: Received) -> Answer | None:
        nonlocal met
        if met:
            return answer if lasting else None
        met = kind_of(request) == kind
        return answer if met else None

    return spoil


class Relay:
    """A running relay; made by :func:`open_relay`.

    Attributes:
        port: where it listens on 127.0.0.1.
        exchanges: all so far, as the service answered them.
        spoil: asked when the service has answered.
        instead: asked before the service is: what it answers keeps the request from the service.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.exchanges: list[Answered] = []
        self.spoil: Spoil = untouched
        self.instead: Spoil = untouched
        self._service = (host, port)

    async def _answer(self, exchange: Exchange) -> None:
        instead = self.instead(exchange.request)
        if instead is not None:
            self.exchanges.append(msgspec.structs.replace(_UNANSWERED, request=exchange.request))
            await instead(exchange)
            return
        try:
            stream = await trio.open_tcp_stream(*self._service)
        except OSError:
            raise Cut from None
        async with stream:
            upgrade = "upgrade" in exchange.request.headers
            try:
                answered, headers = (_UNANSWERED, {}) if upgrade else await _ask(exchange.request, stream)
            except h11.RemoteProtocolError:
                raise Cut from None
            answered = msgspec.structs.replace(answered, request=exchange.request)
            self.exchanges.append(answered)
            spoilt = self.spoil(exchange.request)
            if upgrade and spoilt is None:
                await _pass_through(exchange, stream)
        usual = reply(answered.status, answered.body, content_type=answered.content_type, headers=headers)
        await (spoilt or usual)(exchange)


async def _ask(request: Received, stream: trio.SocketStream) -> tuple[Answered, dict[str, str]]:
    """Send a request to the service and read the whole answer, with its other headers."""
    connection = HttpConnection(h11.CLIENT, stream)
    head = h11.Request(method=request.method, target=request.target, headers=list(request.headers.items()))
    content = [h11.Data(data=request.body)] if request.body else []
    await connection.send(head, *content, h11.EndOfMessage())
    answer, body = await connection.message()
    assert isinstance(answer, h11.Response)
    headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
    content_type = headers.pop("content-type", "")
    for name in ("content-length", "transfer-encoding", "connection"):
        headers.pop(name, None)
    return Answered(request=request, status=answer.status_code, content_type=content_type, body=body), headers


async def _pass_through(exchange: Exchange, service: trio.SocketStream) -> None:
    """Copy bytes both ways until one side has enough."""

    async def copy(source: trio.abc.ReceiveStream, target: trio.abc.SendStream) -> None:
        while data := await source.receive_some(_CHUNK):
            await target.send_all(data)
        nursery.cancel_scope.cancel()

    await service.send_all(exchange.request.head)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, exchange.stream, service)
        nursery.start_soon(copy, service, exchange.stream)
    raise Cut


@asynccontextmanager
async def open_relay(host: str, port: int) -> AsyncIterator[Relay]:
    """A relay in front of ``host:port``, on a free port of 127.0.0.1 while the block runs."""
    relay = Relay(host, port)
    async with open_faulty_server(relay._answer) as faulty:
        relay.port = faulty.port
        yield relay


def bad_answers() -> dict[str, Answer]:
    """What no service should answer to a request that has had its effect, by name."""
    values: dict[str, Any] = {"null": None, "text": "ok", "number": 7, "list": [], "object": {}, "nested": [[{}]]}
    return {
        "page": reply(200, _PAGE, content_type="text/html"),
        "page as JSON": reply(200, _PAGE, content_type="application/json"),
        "empty": reply(200, b"", content_type="application/json"),
        "not text": reply(200, b"\xff\xfe\x00{", content_type="application/json"),
        "deep": reply(200, b"[" * 100_000, content_type="application/json"),
        "huge": reply(200, b'{"', content_type="application/json", length=10**12),
        "proxy's 502": reply(502, _PAGE, content_type="text/html"),
        **{name: reply(200, json=value) for name, value in values.items()},
    }


def bad_refusals() -> dict[str, Answer]:
    """What may be answered by something that stands where the service should, by name."""
    return {
        "not found": reply(404, _PAGE, content_type="text/html"),
        "forbidden": reply(403, _PAGE, content_type="text/html"),
        "method not allowed": reply(405),
        "redirect": reply(302, headers={"location": "/login"}),
        "echo": echo,
    }


async def echo(exchange: Exchange) -> None:
    """A refusal that repeats everything it was sent, credentials and all."""
    sent = exchange.request.head.decode("latin-1") + exchange.request.body.decode("utf-8", "replace")
    await reply(400, json={"error": {"message": f"what is this? {sent}", "code": sent}})(exchange)
