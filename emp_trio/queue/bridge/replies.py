"""Read replies and pushes, and write commands, on the asyncio side of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import hiredis
import redis

from emp_trio.errors import QueueError
from emp_trio.queue.bridge.redis_py import transport_of

_LOOKS: Final = 10  # for a sign of life, in one timeout
_NOTHING: Final = object()  # what the parser says where it has no whole reply


class Refusal(Exception):
    """An error that the server answered. A value, not raised."""


class Replies(asyncio.Protocol):
    """Takes a connection over from redis-py after its login, which waits for no reply then, and hands all replies and
    pushes that one read brings to ``take`` at once."""

    def __init__(self, connection: Any, take: Callable[[Any], None]) -> None:
        self.transport = transport_of(connection)
        self.heard = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.take = take
        self._reader = hiredis.Reader(protocolError=redis.InvalidResponse, replyError=Refusal, notEnoughData=_NOTHING)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport.set_protocol(self)

    def write(self, *args: str | bytes | int) -> None:
        """Send a command."""
        self.transport.write(packed(args))

    def peer(self) -> str:
        """Who is at the other end, for people."""
        peer = self.transport.get_extra_info("peername")
        return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self.take(reply)
        except Exception as error:  # noqa: BLE001 - ends the connection, and is raised there
            self.end(error)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(redis.ConnectionError(str(exc) if exc else "the server closed the connection"))

    def end(self, error: Exception) -> None:
        """Have :meth:`ended` raise ``error``."""
        if not self._ended.done():
            self._ended.set_exception(error)

    async def ended(self) -> None:
        """Wait for the end of the connection, and raise its reason."""
        await self._ended


def packed(args: tuple[Any, ...]) -> bytes:
    """The command as bytes. Made by its caller: what can't be written must not hurt the others of a batch."""
    try:
        return cast(bytes, hiredis.pack_command(args))
    except (TypeError, ValueError) as error:
        raise QueueError(f"the command {args[0]} can't be written: {error}") from None


async def watch(link: Replies, timeout: float, due: Callable[[], bool], ping: Callable[[], None]) -> None:
    """Raise once the connection is dead although nobody said so (half-open, as behind a router that went away).

    A peer that takes no bytes and sends none for ``timeout`` seconds is given up while a reply is due, and asked for
    one where none is: after twice ``timeout`` at most a dead connection is known. Silence is counted in looks, not by
    the clock: while this process itself stands still, it hears nothing.

    Args:
        due: whether a reply is due.
        ping: asks for one.

    Raises:
        redis.ConnectionError: always; ends by it or by cancellation.
    """
    unsent = silent = idle = 0
    while silent < _LOOKS:
        await asyncio.sleep(timeout / _LOOKS)
        before, unsent = unsent, link.transport.get_write_buffer_size()
        lives, link.heard = link.heard or unsent != before, False
        silent = 0 if lives or not due() else silent + 1
        idle = 0 if lives or due() else idle + 1
        if idle >= _LOOKS:
            ping()
    raise redis.ConnectionError("no reply in time")


async def run_while(*jobs: Awaitable[None]) -> None:
    """Run asyncio jobs until the first of them ends; then end all, and raise what it raised."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
