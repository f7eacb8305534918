"""A connection that is made anew whenever it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

import redis
import trio
import trio_asyncio

from emp_trio.errors import ConfigError, EmpTrioError, NotSent
from emp_trio.queue.bridge.redis_py import disconnect, make_connection
from emp_trio.queue.port import RedisSettings
from emp_trio.secrets import Redactor

R = TypeVar("R")


async def _from_aio(function: Callable[[], Awaitable[R]]) -> R:
    """Run an asyncio function from Trio; trio-asyncio itself is untyped."""
    return cast(R, await trio_asyncio.aio_as_trio(function)())


class Reconnecting:
    """One connection: connects for ever, calls ``serve`` while it stands.

    Args:
        transport: ``tcp``, ``tls`` or ``unix``.
        locate: says where to connect to, as arguments of redis-py's connection, or raises an EmpTrioError.

    Attributes:
        problem: why there is no connection, or None; for ``serve`` to clear once the connection can be used.
    """

    def __init__(
        self,
        transport: str,
        locate: Callable[[], Awaitable[Mapping[str, Any]]],
        settings: RedisSettings,
        redactor: Redactor,
    ) -> None:
        self._transport = transport
        self._locate = locate
        self._settings = settings
        self._redactor = redactor
        self.problem: EmpTrioError | None = None

    async def keep(self, serve: Callable[[Any], Awaitable[None]]) -> None:
        """Connect, serve, reconnect with growing pauses; ends only by cancellation. Each time the server is looked up
        anew."""
        pause = 0.01
        while True:
            began = trio.current_time()
            try:
                options = await self._locate()
            except EmpTrioError as error:
                self.problem = error
            else:
                await _from_aio(partial(self._once, options, serve))
            stood = trio.current_time() - began > self._settings.longest_pause + self._settings.connect_timeout
            pause = 0.01 if stood else min(pause * 2, self._settings.longest_pause)
            await trio.sleep(pause * random.uniform(0.5, 1.0))

    async def _once(self, options: Mapping[str, Any], serve: Callable[[Any], Awaitable[None]]) -> None:
        connection = make_connection(self._transport, options, self._settings.connect_timeout)
        try:
            async with asyncio.timeout(self._settings.connect_timeout):  # redis-py's own leaves out the login
                await connection.connect()
            await serve(connection)
        except EmpTrioError as error:
            self.problem = error
        except redis.AuthenticationError as error:
            self.problem = ConfigError(f"Redis refuses the login: {self._redactor.text(str(error))}; check the URL")
        except redis.ResponseError as error:
            text = self._redactor.text(str(error))
            hint = "; emp-trio needs Valkey, or Redis 7.0 or later" if "unknown command" in text else ""
            self.problem = ConfigError(f"Redis refuses the connection: {text}{hint}")
        except (TimeoutError, redis.RedisError, OSError, EOFError) as error:
            text = self._redactor.text(str(error)) or type(error).__name__
            self.problem = NotSent(f"no connection to Redis: {text}")
        finally:
            await disconnect(connection)
