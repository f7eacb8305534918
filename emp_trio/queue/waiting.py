"""Who waits for what: a request for its reply, a listener for messages of channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import trio

from emp_trio.queue.port import GAP, Gap, Message

_BUFFER: Final = 256  # messages a slow listener may lag behind before it is told of a gap


class Request:
    """One command on its way. ``done`` is the waiting caller's event, or None for a posted command, whose reply goes
    to ``on_reply``; so does the reply of a request whose caller was cancelled."""

    __slots__ = ("abandoned", "args", "done", "on_reply", "sent_at", "value")

    def __init__(self, args: tuple[Any, ...], on_reply: Callable[[Any], None] | None, done: trio.Event | None) -> None:
        self.args = args
        self.on_reply = on_reply
        self.done = done
        self.value: Any = None
        self.abandoned = False
        self.sent_at = math.inf

    def settle(self, value: Any) -> None:
        """Hand over the reply (or the error that stands for it)."""
        self.value = value
        if self.done is None or self.abandoned:
            if self.on_reply is not None and (self.done is None or not isinstance(value, Exception)):
                self.on_reply(value)
        else:
            self.done.set()


class Listener:
    """A subscription's reader: takes what it wants into a small buffer and is told (by a Gap) of what it missed."""

    __slots__ = ("channels", "confirmed", "missed", "send", "wanted")

    def __init__(
        self,
        channels: frozenset[str],
        wanted: Callable[[str, bytes], bool] | None,
        send: trio.MemorySendChannel[Message | Gap],
    ) -> None:
        self.channels = channels
        self.wanted = wanted
        self.send = send
        self.confirmed = False
        self.missed = False

    @staticmethod
    def make(
        channels: frozenset[str], wanted: Callable[[str, bytes], bool] | None
    ) -> tuple[Listener, trio.MemoryReceiveChannel[Message | Gap]]:
        """A listener and the channel that its reader reads."""
        send, receive = trio.open_memory_channel[Message | Gap](_BUFFER)
        return Listener(channels, wanted, send), receive

    def confirm(self) -> None:
        """The subscription stands: from here on nothing is missed, but something may have been before."""
        if not self.confirmed:
            self.confirmed = True
            self._put(GAP)

    def offer(self, channel: str, data: bytes) -> None:
        """Take a message if it is wanted."""
        if self.wanted is None or self.wanted(channel, data):
            self._put((channel, data))

    def _put(self, item: Message | Gap) -> None:
        """Buffer it; a reader that lags loses messages but learns of it by a Gap."""
        try:
            if self.missed:
                self.send.send_nowait(GAP)
                self.missed = False
            self.send.send_nowait(item)
        except trio.WouldBlock:
            self.missed = True
