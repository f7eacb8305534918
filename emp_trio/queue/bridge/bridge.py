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

from emp_trio.errors import ConfigError, EmpTrioError, NotSent, OutcomeUnknown, QueueError, ServerRefused
from emp_trio.queue.address import Address, read_address
from emp_trio.queue.bridge.master import Master
from emp_trio.queue.bridge.reconnecting import Reconnecting
from emp_trio.queue.bridge.redis_py import make_connection
from emp_trio.queue.bridge.replies import Refusal, Replies, packed, run_while, watch
from emp_trio.queue.bridge.subscriptions import Subscriptions
from emp_trio.queue.port import Gap, Message, RedisSettings, Reply
from emp_trio.queue.refusals import CLUSTER, SENTINEL, end_of_connection, refused
from emp_trio.queue.waiting import Request
from emp_trio.secrets import Redactor, Secret, held
from emp_trio.secrets.credentials import url_secrets

_TRACK: Final = ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "jobs:pending", "NOLOOP")
_UNUSABLE: Final = {b"cluster": CLUSTER, b"sentinel": SENTINEL}  # by what HELLO says of the server's mode


class Bridge:
    """Redis for Trio tasks; made by :func:`open_bridge`. Implements :class:`~emp_trio.queue.port.RedisPort`."""

    def __init__(
        self,
        address: Address,
        settings: RedisSettings,
        on_pending: Callable[[], None] | None,
        on_connect: Callable[[], None] | None,
    ) -> None:
        redactor = Redactor([settings.url])
        self._address = address
        self._master = Master(address, settings, redactor, self._move)
        self._commands = Reconnecting(address.transport, self._master.locate, settings, redactor)
        self._messages = Reconnecting(address.transport, self._master.locate, settings, redactor)
        self._subscriptions = Subscriptions(settings)
        self.settings = settings
        self._on_pending = on_pending
        self._on_connect = on_connect
        self._waiting: list[Request] = []
        self._sent: collections.deque[Request] = collections.deque()
        self._kick: asyncio.Event | None = None
        self._link: Replies | None = None
        self._leaving = False
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
        if isinstance(self.problem, ServerRefused):
            return ServerRefused(self.problem.message, code=self.problem.code)
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
        self._link = link = Replies(connection, self._take)
        self._leaving = False
        try:
            await run_while(
                self._talk(link),
                link.ended(),
                watch(link, self.settings.reply_timeout, lambda: bool(self._sent), lambda: self._ping(link)),
            )
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
        await self._greet(link)
        self._commands.problem = None
        kick = self._kick = asyncio.Event()
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

    async def _greet(self, link: Replies) -> None:
        """See who answers, and ask for pushes. A server that gives none (a proxy) has the machine subscribe to
        job_submitted instead.

        Raises:
            ConfigError: it is a cluster, or a Sentinel.
            NotSent: it is not the master that the Sentinels say it is.
        """
        said, *pushes = await self._ask(link, ("HELLO",), *([_TRACK] if self._on_pending is not None else []))
        self.tracking = bool(pushes) and not isinstance(pushes[0], Exception)
        who = said if isinstance(said, dict) else {}  # a proxy may refuse to say
        if (mode := who.get(b"mode")) in _UNUSABLE:
            raise ConfigError(_UNUSABLE[mode])
        if self._address.sentinels and who.get(b"role", b"master") != b"master":
            raise NotSent(f"the Sentinels name {link.peer()}, which is no master")

    async def _ask(self, link: Replies, *commands: tuple[str, ...]) -> list[Any]:
        """What the server replies to commands, or refuses, before anybody else may send one."""
        replied = asyncio.Event()
        requests = [Request(packed(command), None, None) for command in commands]
        requests[-1].on_reply = lambda reply: replied.set()
        self._sent.extend(requests)
        link.transport.write(b"".join([request.packed for request in requests]))
        async with asyncio.timeout(self.settings.connect_timeout):
            await replied.wait()
        return [request.value for request in requests]

    def _take(self, reply: Any) -> None:
        """A reply, or a push, in the order of the commands."""
        if isinstance(reply, hiredis.PushNotification):
            if self._on_pending is not None:
                self._on_pending()
        elif not self._sent:
            raise redis.InvalidResponse("the server answers what nobody asked")
        elif isinstance(reply, Refusal):
            text = str(reply)
            self._sent.popleft().settle(refused(text))
            if (error := end_of_connection(text)) is not None:
                self._leave(error)
        else:
            self._sent.popleft().settle(reply)

    def _leave(self, error: EmpTrioError) -> None:
        """Send nothing more to this server; read the replies that are due, then have the connection end."""
        if self._leaving or self._link is None:
            return
        self._leaving = True
        self._kick = None
        self._commands.problem = error
        self._subscriptions.drop(error)

        def take(reply: Any) -> None:
            self._take(reply)
            if not self._sent:
                raise error

        self._link.take = take
        if not self._sent:
            raise error

    def _move(self, error: EmpTrioError) -> None:
        """Leave the server at once for another one: what it still takes would be lost."""
        self._kick = None
        self._commands.problem = error
        if self._link is not None:
            self._link.end(error)
        self._subscriptions.drop(error)

    def _ping(self, link: Replies) -> None:
        request = Request(packed(("PING",)), None, None)
        self._sent.append(request)
        link.transport.write(request.packed)


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
    address = read_address(settings.url)
    try:
        make_connection(address.transport, address.options, settings.connect_timeout)
    except (redis.RedisError, TypeError) as error:
        text = Redactor([settings.url]).text(str(error))
        raise ConfigError(f"the Redis URL has an option that can't be used: {text}") from None
    failure: Exception | None = None
    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery, _hidden(settings.url):
        bridge = Bridge(address, settings, on_pending, on_connect)
        nursery.start_soon(bridge._commands.keep, bridge._serve)
        nursery.start_soon(bridge._master.watch)
        try:
            await bridge.wait_connected()
            nursery.start_soon(bridge._messages.keep, bridge._subscriptions.serve)
            yield bridge
        except Exception as error:  # noqa: BLE001 - raised below, outside of the groups that nursery and loop add
            failure = error
        nursery.cancel_scope.cancel(reason="the bridge closes")
    if failure is not None:
        raise failure
