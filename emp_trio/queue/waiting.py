"""Pending requests that wait for replies, and listeners of channels."""

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

    __slots__ = ("abandoned", "done", "on_reply", "packed", "value")

    def __init__(self, packed: bytes, on_reply: Callable[[Any], None] | None, done: trio.Event | None) -> None:
        self.packed = packed
        self.on_reply = on_reply
        self.done = done
        self.value: Any = None
        self.abandoned = False

    def settle(self, value: Any) -> None:
        """Hand over the reply (or the error that stands for it)."""
        self.value = value
        if self.done is None or self.abandoned:
            if self.on_reply is not None and (self.done is None or not isinstance(value, Exception)):
                self.on_reply(value)
        else:
            self.done.set()


class Listener:
    """A subscription's reader: takes what it wants into a small buffer and is told (by a Gap) of what it missed.

    ``asked`` is the number of the first ping that was sent after its subscription, 0 while there is none.
    """

    __slots__ = ("_missed", "_stands", "asked", "channels", "send", "wanted")

    def __init__(
        self,
        channels: frozenset[str],
        wanted: Callable[[str, bytes], bool] | None,
        send: trio.MemorySendChannel[Message | Gap],
    ) -> None:
        self.channels = channels
        self.wanted = wanted
        self.send = send
        self.asked = 0
        self._stands = False
        self._missed = False

    @staticmethod
    def make(
        channels: frozenset[str], wanted: Callable[[str, bytes], bool] | None
    ) -> tuple[Listener, trio.MemoryReceiveChannel[Message | Gap]]:
        """A listener and the channel that its reader reads."""
        send, receive = trio.open_memory_channel[Message | Gap](math.inf)  # _put keeps it small
        return Listener(channels, wanted, send), receive

    def reset(self) -> None:
        """The connection is gone, and the subscription with it."""
        self.asked = 0
        self._stands = False

    def confirm(self, number: int) -> None:
        """Ping ``number`` was answered. If it came after the subscription, that stands now: from here on nothing is
        missed, but something may have been before."""
        if not self._stands and 0 < self.asked <= number:
            self._stands = True
            self._put(GAP)

    def offer(self, channel: str, data: bytes) -> None:
        """Take a message if it is wanted."""
        if self.wanted is None or self.wanted(channel, data):
            self._put((channel, data))

    def _put(self, item: Message | Gap) -> None:
        """Buffer it. A reader that lags loses messages, but a Gap stands in their place: it is the last thing in the
        buffer for as long as the buffer is full."""
        full = self.send.statistics().current_buffer_used >= _BUFFER
        if not full:
            self.send.send_nowait(item)
        elif not self._missed:
            self.send.send_nowait(GAP)
        self._missed = full
