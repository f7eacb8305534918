"""The Redis interface of the queue, independent of any client library."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import msgspec
import trio

from emp_trio.secrets import Secret


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where Redis is and how long to wait for it.

    Args:
        url: what :func:`emp_trio.queue.address.read_address` reads.
        connect_timeout: seconds for one connection attempt.
        reply_timeout: seconds without a reply to a sent command after which a connection counts as dead; a silent one
            is asked for a reply after as many.
        patience: seconds :func:`~emp_trio.queue.bridge.open_bridge` waits for the first connection.
        longest_pause: seconds between reconnection attempts, at most.
    """

    url: Secret
    connect_timeout: float = 5.0
    reply_timeout: float = 5.0
    patience: float = 10.0
    longest_pause: float = 1.0


class Gap:
    """Stands in a subscription wherever messages may have been missed: the reader must look at the state itself."""


GAP: Final = Gap()

Message = tuple[str, bytes]
Reply = Any


class RedisPort(Protocol):
    """One connection for commands, one for subscriptions."""

    async def call(self, *args: str | bytes | int, on_orphan: Callable[[Reply], None] | None = None) -> Reply:
        """Send a command and wait for its reply.

        Args:
            args: the command.
            on_orphan: called with the reply when the caller was cancelled after the command had been sent.

        Raises:
            NotSent: there is no connection; nothing was sent.
            OutcomeUnknown: the connection ended between the command and its reply.
            ServerRefused: the server answered with an error.
            trio.Cancelled: the command may have been executed all the same; see ``on_orphan``.
        """

    def post(self, *args: str | bytes | int, on_reply: Callable[[Reply | Exception], None]) -> None:
        """Send a command without waiting; ``on_reply`` gets its reply, or the error that ``call`` would raise."""

    def subscribe(
        self, *channels: str, wanted: Callable[[str, bytes], bool] | None = None
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Message | Gap]]:
        """Messages of channels, beginning with a Gap as soon as the subscription stands.

        Args:
            channels: names of channels.
            wanted: looks at (channel, message) before it is buffered.
        """

    @property
    def connected(self) -> bool:
        """Whether commands can be sent now."""
