"""The thread that keeps leases and slots alive, with a plain Redis connection of its own.

It needs nothing of the event loop: while a connector blocks that, the thread goes on. What it does is decided by
:func:`emp_trio.queue.keeping.look`. Beside the bridge this is the one module that imports redis.

The thread is a daemon and holds no lock while it waits for Redis, so that neither a dead server nor a fork can keep the
process from ending; a forked child has no such thread and must not use the worker.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any, Final, TypeAlias

import redis
import structlog
import trio
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from emp_trio.errors import ConfigError, EmpTrioError, NotSent
from emp_trio.queue import library
from emp_trio.queue.address import read_address
from emp_trio.queue.keeping import (
    Duty,
    KeepSettings,
    Other,
    Others,
    Pace,
    Process,
    Told,
    first_pace,
    look,
    not_done,
)
from emp_trio.queue.lease_table import LeaseTable, View
from emp_trio.queue.port import RedisSettings
from emp_trio.queue.sentinel import locate
from emp_trio.secrets import Redactor

log = structlog.get_logger("emp_trio.leases")

Where: TypeAlias = Callable[[FrameType], Mapping[str, str]]
"""Says where the loop stands, from the innermost frame of its thread: fields for the log."""

_SLOTS: Final = 500  # in one call, so that Redis is never kept busy for long
_JOIN: Final = 5.0  # seconds that the thread has to end
_SIGN: Final = 1.0  # seconds between two signs that the loop moves
_SHORTEST: Final = 0.5  # seconds; a shorter limit for a reply would take a busy server for a dead one


_CLASSES: Final[Mapping[str, Any]] = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}


class _Wire:
    """One connection, made when it is needed, to the server that is the one then. Nothing is sent twice by itself."""

    def __init__(self, settings: RedisSettings, limit: float) -> None:
        self._address = read_address(settings.url)
        self._redactor = Redactor([settings.url])
        self._reply_limit = min(settings.reply_timeout, limit)
        self._connect_limit = min(settings.connect_timeout, limit)
        self._make(self._address.options)  # which says whether the URL can be used
        self._connection: Any = None
        self._text, _ = library.source()

    def _make(self, options: Mapping[str, Any]) -> Any:
        return _CLASSES[self._address.transport](
            **options,
            protocol=3,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=self._reply_limit,
            socket_connect_timeout=self._connect_limit,
            client_name="emp-trio-leases",
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )

    def functions(self, calls: Sequence[tuple[str, Sequence[str | int]]]) -> list[Any]:
        """Call library functions, all in one go; their replies. Those the server has lost are loaded first.

        Raises:
            redis.RedisError, OSError: no reply in time, or the first error that the server answered.
            NotSent, ConfigError: no Sentinel says where the server is.
        """
        commands = [("FCALL", f"{library.NAME}_{name}", 0, *args) for name, args in calls]
        replies = self._exchange(commands)
        if any(isinstance(r, redis.ResponseError) and "Function not found" in str(r) for r in replies):
            self._exchange([("FUNCTION", "LOAD", "REPLACE", self._text)])
            replies = self._exchange(commands)
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise reply
        return replies

    def _exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self._connection is None:
            self._connection = self._make(locate(self._address, self._redactor))
        self._connection.connect()
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(self._connection.read_response())
            except redis.ResponseError as error:
                replies.append(error)
        return replies

    def close(self) -> None:
        """Close the connection; the next call makes a new one."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None


class ThreadKeeper:
    """The thread; made by :func:`open_thread_keeper`."""

    def __init__(
        self,
        wire: _Wire,
        table: LeaseTable,
        process: Process,
        settings: KeepSettings,
        told: Told,
        redactor: Redactor,
        where: Where,
    ) -> None:
        self._wire = wire
        self._table = table
        self._process = process
        self._settings = settings
        self._told = told
        self._redactor = redactor
        self._where = where
        self._token = trio.lowlevel.current_trio_token()
        self._loop_thread = threading.get_ident()
        self._offset = trio.current_time() - time.perf_counter()  # Trio's clock is this one, moved by a random number
        self._seen = 0
        self._failing = False
        self.problem = ""
        self.connected = trio.Event()
        self.ended = trio.Event()
        self.thread = threading.Thread(target=self._main, name="emp-trio-leases", daemon=True)

    def _now(self) -> float:
        return time.perf_counter() + self._offset

    def _main(self) -> None:
        try:
            self._keep()
        except BaseException as error:
            log.error("leases.keeper_crashed", exc_info=error)
            self._post(self._told.fail, EmpTrioError(f"the thread that renews the leases crashed: {error!r}"))
        finally:
            self._wire.close()
            self._post(self.ended.set)

    def _keep(self) -> None:
        pace = first_pace(self._now())
        while not self._table.closed:
            now = self._now()
            view = self._table.view()
            if view.anew:
                self._wire.close()
            pace, duty = look(pace, view, now, self._settings)
            if duty.loop:
                self._say(duty, pace)
            if duty.renew or duty.claims or duty.alive:
                try:
                    self._do(view, duty)
                except (redis.RedisError, OSError, EmpTrioError) as error:
                    if isinstance(error, redis.ResponseError):
                        self._is_connected()
                    self._wire.close()
                    self._failed(error, len(view.held))
                    pace = not_done(pace, self._now())
                else:
                    self._failing = False
                    self._is_connected()
            self._table.wait(pace.wake, pace.wake - self._now())
        with suppress(redis.RedisError, OSError, EmpTrioError):  # else it is forgotten by itself in a minute
            self._wire.functions([("ended", (self._process.nonce,))])

    def _do(self, view: View, duty: Duty) -> None:
        calls: list[tuple[str, Sequence[str | int]]] = []
        lease = round(self._settings.lease * 1000)
        if duty.claims:
            calls.append(("hold", [lease, *(part for slot in duty.claims for part in slot)]))
        if duty.renew:
            calls.append(("renew", [lease, *(part for ref in duty.renew for part in (ref.job_id, ref.token))]))
        if duty.alive:
            calls += [("alive", self._introduction(view, part)) for part in _parts(view.slots)]
        sent = self._now()
        replies = self._wire.functions(calls)
        if duty.claims:
            replies.pop(0)
            self._table.held_claims(duty.claims, sent + self._settings.lease)
        if duty.renew:
            gone = {_text(job_id): _text(why) for job_id, why in replies.pop(0)}
            self._table.renewed([ref for ref in duty.renew if ref.job_id not in gone], sent + self._settings.lease)
            lost = {ref: gone[ref.job_id] for ref in duty.renew if ref.job_id in gone}
            if lost:
                self._post(self._told.gone, lost)
        if duty.alive:
            found = _others(replies)
            self._seen = found.now
            if found.slots or found.known or view.suspects:
                self._post(self._told.others, found)

    def _is_connected(self) -> None:
        if not self.connected.is_set():
            self._post(self.connected.set)

    def _introduction(self, view: View, slots: Sequence[str]) -> list[str | int]:
        me = self._process
        takes_over = me.take_over and not self._seen  # said once: who comes back after a silence has to ask again
        flags = ("1" if takes_over else "0", "1" if view.leaving else "0")
        silence = round(self._settings.lease * 1000)
        return [
            me.nonce,
            me.machine_id,
            me.where,
            *flags,
            self._seen,
            silence,
            len(view.suspects),
            *view.suspects,
            *slots,
        ]

    def _failed(self, error: Exception, jobs: int) -> None:
        self.problem = self._redactor.text(str(error)) or type(error).__name__
        if not self._failing:  # once per trouble, however long it takes
            log.warning("leases.not_renewed", jobs=jobs, error=self.problem)
        self._failing = True

    def _say(self, duty: Duty, pace: Pace) -> None:
        if duty.loop == "moves":
            log.warning("loop.moves_again")
            return
        frame = sys._current_frames().get(self._loop_thread)
        where = dict(self._where(frame)) if frame is not None else {}
        del frame
        said = {"seconds": round(pace.still, 1), **where}
        if duty.loop == "still":
            log.warning("loop.stands_still", **said, hint=_STILL)
        else:
            log.error("loop.stopped", **said, hint=_STOPPED)

    def _post(self, function: Callable[..., object], *args: object) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *args)


_STILL: Final = "code that blocks belongs into trio.to_thread.run_sync; leases are renewed for now"
_STOPPED: Final = "no lease of this process is renewed any more: its jobs go to others"


def _parts(slots: Sequence[str]) -> list[Sequence[str]]:
    return [slots[i : i + _SLOTS] for i in range(0, len(slots), _SLOTS)] or [()]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _others(replies: Sequence[Any]) -> Others:
    slots: list[tuple[str, str]] = []
    known: dict[str, Other] = {}
    now = started = take_over = 0
    for reply in replies:
        now, started, take_over, found, others = reply
        flat = [_text(part) for part in found]
        slots += zip(flat[::2], flat[1::2], strict=True)
        for nonce, machine, where, began, seen, takes, leaving in others:
            name = _text(nonce)
            known[name] = Other(name, _text(machine), _text(where), int(began), int(seen), bool(takes), bool(leaving))
    return Others(now=now, started=started, take_over=bool(take_over), slots=tuple(slots), known=tuple(known.values()))


@asynccontextmanager
async def open_thread_keeper(
    redis_settings: RedisSettings,
    table: LeaseTable,
    process: Process,
    settings: KeepSettings,
    told: Told,
    *,
    limit: float,
    where: Where,
) -> AsyncIterator[None]:
    """Renew leases and give signs of life from a thread, until the end of the block.

    Args:
        redis_settings: where Redis is; all of it (TLS, unix socket, user) holds for this connection, too.
        table: what is to be kept.
        told: is told of losses and of other processes, in the loop's thread.
        limit: seconds to wait for a reply before a new connection is tried; must leave time for that within a lease.
        where: names the place in which the loop stands.

    Raises:
        ConfigError: the URL can't be used.
        NotSent: Redis did not answer the first sign of life within ``redis_settings.patience`` seconds.
    """
    redactor = Redactor([redis_settings.url])
    try:
        wire = _Wire(redis_settings, max(limit, _SHORTEST))
    except (TypeError, redis.RedisError):  # their text may hold a part of the password
        raise ConfigError("the Redis URL can't be used for the renewal of leases") from None
    keeper = ThreadKeeper(wire, table, process, settings, told, redactor, where)
    keeper.thread.start()
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_move, table, min(_SIGN, settings.renew_every))
            try:
                with trio.move_on_after(redis_settings.patience):
                    await keeper.connected.wait()
                if not keeper.connected.is_set():
                    raise NotSent(f"no connection to Redis for the renewal of leases: {keeper.problem or 'no answer'}")
                yield
            except Exception as error:  # noqa: BLE001 - raised below, outside of the group that the nursery adds
                failure = error
            nursery.cancel_scope.cancel(reason="nothing is kept any more")
    finally:
        table.close()
        with trio.move_on_after(_JOIN, shield=True):
            await keeper.ended.wait()
        if keeper.ended.is_set():
            keeper.thread.join()
        else:
            log.warning("leases.keeper_left", hint="its thread waits for Redis; it ends with the process")
    if failure is not None:
        raise failure


async def _move(table: LeaseTable, pause: float) -> None:
    """Show that the loop moves, until cancelled."""
    while True:
        table.moves(trio.current_time())
        await trio.sleep(pause)
