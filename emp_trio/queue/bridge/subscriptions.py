"""The connection for subscriptions: messages of channels for any number of readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import redis
import trio

from emp_trio.queue.bridge.replies import Refusal, Replies, run_while, watch
from emp_trio.queue.port import Gap, Message, RedisSettings
from emp_trio.queue.waiting import Listener

_KEEPALIVE = 0  # a ping that confirms nothing


class Subscriptions:
    """What is subscribed to, and the connection that hears it."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._listeners: list[Listener] = []
        self._changed: asyncio.Event | None = None  # while there is a connection
        self._link: Replies | None = None
        self._pings = 0  # that have not been answered

    @asynccontextmanager
    async def subscribe(
        self, *channels: str, wanted: Callable[[str, bytes], bool] | None = None
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Message | Gap]]:
        """See :meth:`emp_trio.queue.port.RedisPort.subscribe`."""
        listener, receive = Listener.make(frozenset(channels), wanted)
        self._listeners.append(listener)
        if self._changed is not None:
            self._changed.set()
        try:
            with listener.send, receive:
                yield receive
        finally:
            self._listeners.remove(listener)
            if self._changed is not None:
                self._changed.set()

    # -- asyncio side

    def drop(self, error: Exception) -> None:
        """Give the connection up, if there is one: the server is not the one to be heard any more."""
        if self._link is not None:
            self._link.end(error)

    async def serve(self, connection: Any) -> None:
        """Hear what the listeners want until the connection ends, and raise why it did."""
        self._link = link = Replies(connection, self._hear)
        self._pings = 0
        self._changed = asyncio.Event()
        self._changed.set()
        for listener in self._listeners:
            listener.reset()
        try:
            await run_while(
                self._follow(link, self._changed),
                link.ended(),
                watch(
                    link, self._settings.reply_timeout, lambda: self._pings > 0, lambda: self._ping(link, _KEEPALIVE)
                ),
            )
        finally:
            self._changed = self._link = None

    async def _follow(self, link: Replies, changed: asyncio.Event) -> None:
        """Keep the server's subscriptions equal to what the listeners want."""
        now, number = frozenset[str](), 0
        while True:
            await changed.wait()
            changed.clear()
            number += 1
            for listener in self._listeners:
                listener.asked = listener.asked or number
            want = frozenset().union(*(x.channels for x in self._listeners))
            for verb, names in (("SUBSCRIBE", want - now), ("UNSUBSCRIBE", now - want)):
                if names:
                    link.write(verb, *sorted(names))
            now = want
            # The reply comes after the subscriptions' confirmations: from then on nothing is missed.
            self._ping(link, number)

    def _ping(self, link: Replies, number: int) -> None:
        self._pings += 1
        link.write("PING", number)

    def _hear(self, reply: Any) -> None:
        """A message, what confirms a subscription, or the reply to a ping."""
        if isinstance(reply, hiredis.PushNotification):
            if reply[0] == b"message":
                channel = reply[1].decode()
                for listener in self._listeners:
                    if channel in listener.channels:
                        listener.offer(channel, reply[2])
        elif isinstance(reply, Refusal):
            raise redis.ResponseError(str(reply))
        elif not (isinstance(reply, bytes) and reply.isdigit()):
            raise redis.InvalidResponse("the server answers what nobody asked")
        else:
            self._pings -= 1
            for listener in self._listeners:
                listener.confirm(int(reply))
