"""The only place that knows asyncio: Redis for a Trio program, by redis-py's connection under trio-asyncio.

One asyncio-side owner per connection packs what Trio tasks ask for into batches (a bridge crossing per batch, not per
command), reads replies in order, and never sends anything twice. A cancelled caller only marks its request: the reply
is still read in its turn. See the reference of measurements in docs/why-one-connection.md.
"""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import hiredis
import redis
import redis.asyncio as aioredis
import trio
import trio_asyncio
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from emp_trio.errors import ConfigError, EmpTrioError, NotSent, OutcomeUnknown, QueueError, ServerRefused
from emp_trio.queue.port import Gap, Message, RedisSettings, Reply
from emp_trio.queue.waiting import Listener, Request
from emp_trio.secrets import Redactor, Secret, held
from emp_trio.secrets.credentials import url_secrets

R = TypeVar("R")
_KEEPALIVE = "0"  # a ping that confirms nothing
_LOOKS = 10  # in one reply_timeout


async def _from_aio(function: Callable[[], Awaitable[R]]) -> R:
    """Run an asyncio function from Trio; trio-asyncio itself is untyped."""
    return cast(R, await trio_asyncio.aio_as_trio(function)())


class _SafeSend:
    """Sends by ``write`` instead of ``writelines``, which on CPython 3.12 and 3.13.0-9 lacks the guard against a lost
    connection and so takes the whole loop down (cpython issue 136234)."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        connection = cast(Any, self)
        writer = connection._writer
        if writer is None or writer.transport.is_closing():
            raise redis.ConnectionError("the connection is closing")
        try:
            writer.write(command if isinstance(command, bytes) else b"".join(command))
            await writer.drain()
        except OSError as error:
            await connection.disconnect(nowait=True)
            raise redis.ConnectionError(str(error)) from error


class _Tcp(_SafeSend, aioredis.Connection): ...


class _Tls(_SafeSend, SSLConnection): ...


class _Unix(_SafeSend, UnixDomainSocketConnection): ...


def _connection(settings: RedisSettings) -> Any:
    url = settings.url.reveal()
    options: dict[str, Any] = dict(parse_url(url))
    kind = options.pop("connection_class", None)
    cls = _Tls if kind is SSLConnection else _Unix if kind is UnixDomainSocketConnection else _Tcp
    if cls is not _Unix:
        options.setdefault("socket_keepalive", True)
        if "db" not in options and urlsplit(url).path.strip("/"):
            raise ValueError("the database is not a number")
    return cls(
        **options,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=settings.connect_timeout,
        client_name="emp-trio",
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


def _packed(args: tuple[Any, ...]) -> bytes:
    """The command as bytes. Made by its caller: what can't be written must not hurt the others of a batch."""
    try:
        return cast(bytes, hiredis.pack_command(args))
    except (TypeError, ValueError) as error:
        raise QueueError(f"the command {args[0]} can't be written: {error}") from None


def _refusal(error: redis.RedisError) -> ServerRefused:
    text = str(error)
    if error.status_code not in (None, "ERR"):  # redis-py takes the codes that it knows out of the text
        text = f"{error.status_code} {text}"
    first = text.split(" ", 1)[0]
    return ServerRefused(f"Redis refused the command: {text}", code=first if first.isupper() else "ERR")


class _Link:
    """One connection: connects for ever, calls ``serve`` while it stands."""

    def __init__(self, settings: RedisSettings, redactor: Redactor) -> None:
        self.settings = settings
        self.redactor = redactor
        self.problem: EmpTrioError | None = None

    async def keep(self, serve: Callable[[Any], Awaitable[None]]) -> None:
        """Connect, serve, reconnect with growing pauses; ends only by cancellation."""
        pause = 0.01
        while True:
            began = trio.current_time()
            await _from_aio(lambda: self._once(serve))
            stood = trio.current_time() - began > self.settings.longest_pause + self.settings.connect_timeout
            pause = 0.01 if stood else min(pause * 2, self.settings.longest_pause)
            await trio.sleep(pause * random.uniform(0.5, 1.0))

    async def _once(self, serve: Callable[[Any], Awaitable[None]]) -> None:
        connection, writer = _connection(self.settings), None
        try:
            async with asyncio.timeout(self.settings.connect_timeout):  # redis-py's own leaves out the login
                await connection.connect()
            writer = connection._writer
            self.problem = None
            await serve(connection)
        except redis.AuthenticationError as error:
            self.problem = ConfigError(f"Redis refuses the login: {self.redactor.text(str(error))}; check the URL")
        except redis.ResponseError as error:
            text = self.redactor.text(str(error))
            hint = "; emp-trio needs Valkey, or Redis 7.0 or later" if "unknown command" in text else ""
            self.problem = ConfigError(f"Redis refuses the connection: {text}{hint}")
        except (TimeoutError, redis.RedisError, OSError, EOFError) as error:
            text = self.redactor.text(str(error)) or type(error).__name__
            self.problem = NotSent(f"no connection to Redis: {text}")
        finally:
            await connection.disconnect(nowait=True)
            if writer is not None and isinstance(connection, _Tls):
                writer.transport.abort()  # a TLS goodbye would outlive the loop


class _Replies(asyncio.Protocol):
    """Takes over a connection after its login, and hands all replies and pushes that one read brings to ``take`` at
    once: a task that reads, and redis-py's own way of one await and more per reply, cost a job 0.1 ms and more."""

    def __init__(self, connection: Any, take: Callable[[Any], None]) -> None:
        self.transport: asyncio.Transport = connection._writer.transport
        self.heard = False
        self.writable = asyncio.Event()
        self.writable.set()
        self._take = take
        self._reader = connection._parser._reader
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport.set_protocol(self)
        if connection._reader.at_eof():
            self.connection_lost(None)
        early = bytes(connection._reader._buffer)  # what came with the last reply of the login
        connection._reader._buffer.clear()
        self.data_received(early)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not NOT_ENOUGH_DATA:
                self._take(reply)
        except Exception as error:  # noqa: BLE001 - ends the connection, and is raised there
            self._end(error)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(redis.ConnectionError(str(exc) if exc else "the server closed the connection"))

    def _end(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    async def ended(self) -> None:
        """Wait for the end of the connection, and raise its reason."""
        await self._ended


async def _run_while(*jobs: Awaitable[None]) -> None:
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


class Bridge:
    """Redis for Trio tasks; made by :func:`open_bridge`. Implements :class:`~emp_trio.queue.port.RedisPort`."""

    def __init__(
        self, settings: RedisSettings, on_pending: Callable[[], None] | None, on_connect: Callable[[], None] | None
    ) -> None:
        redactor = Redactor([settings.url])
        self._commands = _Link(settings, redactor)
        self._subscriptions = _Link(settings, redactor)
        self.settings = settings
        self._on_pending = on_pending
        self._on_connect = on_connect
        self._waiting: list[Request] = []
        self._sent: collections.deque[Request] = collections.deque()
        self._kick: asyncio.Event | None = None
        self._link: _Replies | None = None
        self._ready = trio.Event()
        self._listeners: list[Listener] = []
        self._listening: asyncio.Event | None = None
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
        request = Request(_packed(args), on_orphan, done)
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
            self._waiting.append(Request(_packed(args), on_reply, None))
        except QueueError as error:
            on_reply(error)
            return
        self._kick.set()

    def _not_sent(self) -> EmpTrioError:
        return NotSent(self.problem.message if self.problem else "no connection to Redis")

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

    # -- commands, asyncio side

    async def _serve_commands(self, connection: Any) -> None:
        if self._on_pending is not None:
            self.tracking = await self._track(connection)
        self._kick = asyncio.Event()
        self._link = link = _Replies(connection, self._take)
        self._ready.set()
        if self._on_connect is not None:
            self._on_connect()
        try:
            await _run_while(self._write(link), link.ended(), self._watch(link))
        finally:
            self._kick = self._link = None
            sent, waiting = list(self._sent), self._waiting
            self._sent.clear()
            self._waiting = []
            for request in sent:
                request.settle(OutcomeUnknown("the connection to Redis ended before the reply"))
            for request in waiting:
                request.settle(NotSent("the connection to Redis ended before the command was sent"))

    async def _track(self, connection: Any) -> bool:
        await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "jobs:pending", "NOLOOP")
        try:
            async with asyncio.timeout(self.settings.connect_timeout):
                await connection.read_response()
        except redis.ResponseError:  # a proxy or an old server: the machine subscribes to job_submitted instead
            return False
        return True

    async def _write(self, link: _Replies) -> None:
        kick = self._kick
        assert kick is not None
        while True:
            await kick.wait()
            await link.writable.wait()
            kick.clear()
            batch = [r for r in self._waiting if not r.abandoned]  # cancelled before it was sent: never sent
            self._waiting = []
            self._sent.extend(batch)
            if batch:
                link.transport.write(b"".join([r.packed for r in batch]))

    def _take(self, reply: Any) -> None:
        """A reply, or a push, in the order of the commands."""
        if isinstance(reply, hiredis.PushNotification):
            if self._on_pending is not None:
                self._on_pending()
        elif not self._sent:
            raise redis.InvalidResponse("the server answers what nobody asked")
        elif isinstance(reply, redis.ResponseError | redis.BusyLoadingError):
            self._sent.popleft().settle(_refusal(reply))
        elif isinstance(reply, redis.ConnectionError):  # the server is about to close: no login any more
            raise reply
        else:
            self._sent.popleft().settle(reply)

    async def _watch(self, link: _Replies) -> None:
        """A peer that takes no bytes and sends none although a reply is due (half-open connection) is given up after
        reply_timeout. Counted in looks, not by the clock: while this process itself stands still, it hears nothing."""
        unsent, silent = 0, 0
        while silent < _LOOKS:
            await asyncio.sleep(self.settings.reply_timeout / _LOOKS)
            before, unsent = unsent, link.transport.get_write_buffer_size()
            silent = 0 if link.heard or unsent != before or not self._sent else silent + 1
            link.heard = False
        raise redis.ConnectionError("no reply in time")

    # -- subscriptions

    @asynccontextmanager
    async def subscribe(
        self, *channels: str, wanted: Callable[[str, bytes], bool] | None = None
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Message | Gap]]:
        """See :meth:`emp_trio.queue.port.RedisPort.subscribe`."""
        listener, receive = Listener.make(frozenset(channels), wanted)
        self._listeners.append(listener)
        if self._listening is not None:
            self._listening.set()
        try:
            with listener.send, receive:
                yield receive
        finally:
            self._listeners.remove(listener)
            if self._listening is not None:
                self._listening.set()

    async def _serve_subscriptions(self, connection: Any) -> None:
        self._listening = asyncio.Event()
        self._listening.set()
        for listener in self._listeners:
            listener.reset()
        link = _Replies(connection, self._hear)
        try:
            await _run_while(self._follow(connection), link.ended(), self._ping(connection, link))
        finally:
            self._listening = None

    async def _follow(self, connection: Any) -> None:
        """Keep the server's subscriptions equal to what the listeners want."""
        listening, now, number = self._listening, frozenset[str](), 0
        assert listening is not None
        while True:
            await listening.wait()
            listening.clear()
            number += 1
            for listener in self._listeners:
                listener.asked = listener.asked or number
            want = frozenset().union(*(x.channels for x in self._listeners))
            for verb, names in (("SUBSCRIBE", want - now), ("UNSUBSCRIBE", now - want)):
                if names:
                    await connection.send_command(verb, *sorted(names))
            now = want
            # The reply comes after the subscriptions' confirmations: from then on nothing is missed.
            await connection.send_command("PING", number)

    def _hear(self, reply: Any) -> None:
        """A message, what confirms a subscription, or the reply to a ping."""
        if isinstance(reply, hiredis.PushNotification):
            if reply[0] == b"message":
                channel = reply[1].decode()
                for listener in self._listeners:
                    if channel in listener.channels:
                        listener.offer(channel, reply[2])
        elif isinstance(reply, redis.RedisError):
            raise reply
        else:
            for listener in self._listeners:
                listener.confirm(int(reply))

    async def _ping(self, connection: Any, link: _Replies) -> None:
        """Ask for a sign of life after ``reply_timeout`` seconds without one; raise where none comes in as many."""
        silent = 0
        while silent <= 2 * _LOOKS:
            await asyncio.sleep(self.settings.reply_timeout / _LOOKS)
            silent = 0 if link.heard else silent + 1
            link.heard = False
            if silent == _LOOKS:
                await connection.send_command("PING", _KEEPALIVE)
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
        _connection(settings)
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
        nursery.start_soon(bridge._commands.keep, bridge._serve_commands)
        try:
            await bridge.wait_connected()
            nursery.start_soon(bridge._subscriptions.keep, bridge._serve_subscriptions)
            yield bridge
        except Exception as error:  # noqa: BLE001 - raised below, outside of the groups that nursery and loop add
            failure = error
        nursery.cancel_scope.cancel(reason="the bridge closes")
    if failure is not None:
        raise failure
