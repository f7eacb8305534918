"""The connection for commands, and the two connections together as a :class:`~emp_trio.queue.port.RedisPort`."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import hiredis
import redis
import trio
import trio_asyncio

from emp_trio.errors import ConfigError, EmpTrioError, NotSent, OutcomeUnknown, QueueError
from emp_trio.queue.bridge.reconnecting import Reconnecting
from emp_trio.queue.bridge.redis_py import make_connection
from emp_trio.queue.bridge.replies import LOOKS, Refusal, Replies, packed, refused, run_while
from emp_trio.queue.bridge.subscriptions import Subscriptions
from emp_trio.queue.port import Gap, Message, RedisSettings, Reply
from emp_trio.queue.waiting import Request
from emp_trio.secrets import Redactor, Secret, held
from emp_trio.secrets.credentials import url_secrets

_TRACK: Final = ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "jobs:pending", "NOLOOP")


class Bridge:
    """Redis for Trio tasks; made by :func:`open_bridge`. Implements :class:`~emp_trio.queue.port.RedisPort`."""

    def __init__(
        self, settings: RedisSettings, on_pending: Callable[[], None] | None, on_connect: Callable[[], None] | None
    ) -> None:
        redactor = Redactor([settings.url])
        self._commands = Reconnecting(settings, redactor)
        self._messages = Reconnecting(settings, redactor)
        self._subscriptions = Subscriptions(settings)
        self.settings = settings
        self._on_pending = on_pending
        self._on_connect = on_connect
        self._waiting: list[Request] = []
        self._sent: collections.deque[Request] = collections.deque()
        self._kick: asyncio.Event | None = None
        self._link: Replies | None = None
        self._ready = trio.Event()
        self.tracking = False

    @property
    def connected(self) -> bool:
        """Whether commands can be sent now."""
        return self._kick is not None

    @property
    def problem(self) -> EmpTrioError | None:
        """Why there is no connection, or None."""
        return self._commands.problem

    async def call(self, *args: str | bytes | int, on_orphan: Callable[[Reply], None] | None = None) -> Reply:
        """See :meth:`emp_trio.queue.port.RedisPort.call`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        done = trio.Event()
        request = Request(packed(args), on_orphan, done)
        if self._kick is None:
            await trio.lowlevel.checkpoint()
            raise self._not_sent()
        self._send(request)
        try:
            await done.wait()
        except trio.Cancelled:
            request.abandoned = True
            if done.is_set():  # the reply came in the same moment
                request.settle(request.value)
            raise
        if isinstance(request.value, Exception):
            raise request.value
        return request.value

    def _send(self, request: Request) -> None:
        """At once while nothing else is under way (a new job is picked up 0.1 ms sooner), else with the next batch."""
        if self._link is not None and not (self._sent or self._waiting):
            self._sent.append(request)
            self._link.transport.write(request.packed)
        else:
            self._waiting.append(request)
            assert self._kick is not None
            self._kick.set()

    def post(self, *args: str | bytes | int, on_reply: Callable[[Reply | Exception], None]) -> None:
        """See :meth:`emp_trio.queue.port.RedisPort.post`."""
        if self._kick is None:
            on_reply(self._not_sent())
            return
        try:
            self._waiting.append(Request(packed(args), on_reply, None))
        except QueueError as error:
            on_reply(error)
            return
        self._kick.set()

    def _not_sent(self) -> EmpTrioError:
        return NotSent(self.problem.message if self.problem else "no connection to Redis")

    def subscribe(
        self, *channels: str, wanted: Callable[[str, bytes], bool] | None = None
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Message | Gap]]:
        """See :meth:`emp_trio.queue.port.RedisPort.subscribe`."""
        return self._subscriptions.subscribe(*channels, wanted=wanted)

    async def wait_connected(self) -> None:
        """Wait for the first connection.

        Raises:
            ConfigError: Redis refuses the login.
            NotSent: no connection within ``settings.patience`` seconds.
        """
        with trio.move_on_after(self.settings.patience):
            while not self._ready.is_set():
                if isinstance(self.problem, ConfigError):
                    raise self.problem
                with trio.move_on_after(0.05):
                    await self._ready.wait()
            return
        raise self._not_sent()

    # -- asyncio side

    async def _serve(self, connection: Any) -> None:
        link = Replies(connection, self._take)
        try:
            await run_while(self._talk(link), link.ended(), self._watch(link))
        finally:
            self._kick = self._link = None
            sent, waiting = list(self._sent), self._waiting
            self._sent.clear()
            self._waiting = []
            for request in sent:
                request.settle(OutcomeUnknown("the connection to Redis ended before the reply"))
            for request in waiting:
                request.settle(NotSent("the connection to Redis ended before the command was sent"))

    async def _talk(self, link: Replies) -> None:
        """Send what is waiting, a batch at a time."""
        if self._on_pending is not None:
            self.tracking = await self._track(link)
        kick = self._kick = asyncio.Event()
        self._link = link
        self._ready.set()
        if self._on_connect is not None:
            self._on_connect()
        while True:
            await kick.wait()
            await link.writable.wait()
            kick.clear()
            batch = [r for r in self._waiting if not r.abandoned]  # cancelled before it was sent: never sent
            self._waiting = []
            self._sent.extend(batch)
            if batch:
                link.transport.write(b"".join([r.packed for r in batch]))

    async def _track(self, link: Replies) -> bool:
        """Ask for pushes; whether the server gives them. Else (a proxy) the machine subscribes to job_submitted."""
        replied = asyncio.Event()
        request = Request(packed(_TRACK), lambda reply: replied.set(), None)
        self._sent.append(request)
        link.transport.write(request.packed)
        async with asyncio.timeout(self.settings.connect_timeout):
            await replied.wait()
        return not isinstance(request.value, Exception)

    def _take(self, reply: Any) -> None:
        """A reply, or a push, in the order of the commands."""
        if isinstance(reply, hiredis.PushNotification):
            if self._on_pending is not None:
                self._on_pending()
        elif not self._sent:
            raise redis.InvalidResponse("the server answers what nobody asked")
        elif isinstance(reply, Refusal):
            if str(reply).startswith("NOAUTH"):  # no login any more
                raise redis.AuthenticationError(str(reply))
            self._sent.popleft().settle(refused(reply))
        else:
            self._sent.popleft().settle(reply)

    async def _watch(self, link: Replies) -> None:
        """A peer that takes no bytes and sends none although a reply is due (half-open connection) is given up after
        reply_timeout."""
        unsent, silent = 0, 0
        while silent < LOOKS:
            await asyncio.sleep(self.settings.reply_timeout / LOOKS)
            before, unsent = unsent, link.transport.get_write_buffer_size()
            silent = 0 if link.heard or unsent != before or not self._sent else silent + 1
            link.heard = False
        raise redis.ConnectionError("no reply in time")


@asynccontextmanager
async def _hidden(url: Secret) -> AsyncIterator[None]:
    """The password of Redis is held for as long as the connection to it."""
    with held(*url_secrets(url)):
        yield


@asynccontextmanager
async def open_bridge(
    settings: RedisSettings,
    *,
    on_pending: Callable[[], None] | None = None,
    on_connect: Callable[[], None] | None = None,
) -> AsyncIterator[Bridge]:
    """Connect to Redis and stay connected.

    Args:
        settings: where Redis is.
        on_pending: called (must not block or raise) whenever anybody else changed ``jobs:pending``, if the server
            supports client tracking; ``Bridge.tracking`` says whether it does.
        on_connect: called after each connection, first and later ones; changes before it were not pushed.

    Yields:
        the Bridge, connected.

    Raises:
        ConfigError: the URL is wrong or Redis refuses the login.
        NotSent: no connection within ``settings.patience`` seconds.
    """
    try:
        make_connection(settings)
    except ValueError:  # its text may hold a part of the password
        raise ConfigError(
            "the Redis URL can't be read: it must be redis://user:password@host:port/database, rediss:// for TLS, or "
            "unix://path; in user and password, write / : @ # ? % and spaces as %2F and so on"
        ) from None
    except (redis.RedisError, TypeError) as error:
        text = Redactor([settings.url]).text(str(error))
        raise ConfigError(f"the Redis URL has an option that can't be used: {text}") from None
    failure: Exception | None = None
    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery, _hidden(settings.url):
        bridge = Bridge(settings, on_pending, on_connect)
        nursery.start_soon(bridge._commands.keep, bridge._serve)
        try:
            await bridge.wait_connected()
            nursery.start_soon(bridge._messages.keep, bridge._subscriptions.serve)
            yield bridge
        except Exception as error:  # noqa: BLE001 - raised below, outside of the groups that nursery and loop add
            failure = error
        nursery.cancel_scope.cancel(reason="the bridge closes")
    if failure is not None:
        raise failure
