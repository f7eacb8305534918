"""Find the master before each connection, and follow the Sentinels' announcements of a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
import trio

from emp_trio.errors import EmpTrioError, NotSent
from emp_trio.queue.address import Address
from emp_trio.queue.bridge.reconnecting import Reconnecting
from emp_trio.queue.bridge.subscriptions import Subscriptions
from emp_trio.queue.port import Gap, RedisSettings
from emp_trio.queue.sentinel import locate, sentinel_options
from emp_trio.secrets import Redactor

log = structlog.get_logger("emp_trio.redis")

_CHANNEL: Final = (
    "+switch-master"  # https://valkey.io/topics/sentinel: "<name> <old ip> <old port> <new ip> <new port>"
)


class Master:
    """The server that an address means now.

    Args:
        on_switch: called, with the error that says so, when another server than the one located last is the master.
    """

    def __init__(
        self, address: Address, settings: RedisSettings, redactor: Redactor, on_switch: Callable[[EmpTrioError], None]
    ) -> None:
        self._address = address
        self._settings = settings
        self._redactor = redactor
        self._on_switch = on_switch
        self._threads = trio.CapacityLimiter(1)
        self._at: tuple[str, int] | None = None

    async def locate(self) -> Mapping[str, Any]:
        """Arguments of redis-py's connection. Raises as :func:`emp_trio.queue.sentinel.locate`."""
        if not self._address.sentinels:
            return self._address.options
        found = await self._ask()
        at = (found["host"], found["port"])
        if at != self._at:
            log.info("redis.master", service=self._address.service, at=f"{at[0]}:{at[1]}")
        self._at = at
        return found

    async def watch(self) -> None:
        """Listen to every Sentinel until cancelled.

        A master that is replaced while it lives (a fail-over by hand, a partition) takes commands for ten seconds more,
        and forgets them when it becomes a replica.
        """
        async with trio.open_nursery() as nursery:
            for host, port in self._address.sentinels:
                subscriptions = Subscriptions(self._settings)
                options = sentinel_options(self._address, host, port)

                async def here(options: Mapping[str, Any] = options) -> Mapping[str, Any]:
                    await trio.lowlevel.checkpoint()
                    return options

                link = Reconnecting(self._address.transport, here, self._settings, self._redactor)
                nursery.start_soon(link.keep, subscriptions.serve)
                nursery.start_soon(self._listen, subscriptions)

    async def _listen(self, subscriptions: Subscriptions) -> None:
        async with subscriptions.subscribe(_CHANNEL) as heard:
            async for item in heard:
                if isinstance(item, Gap):  # a switch may have been missed
                    try:
                        found = await self._ask()
                    except EmpTrioError:
                        continue  # another Sentinel says it, or the connection itself ends
                    self._is_now(found["host"], found["port"])
                else:
                    name, _, _, host, port = item[1].decode("utf-8", "replace").rsplit(" ", 4)
                    if name == self._address.service:
                        self._is_now(host, int(port))

    async def _ask(self) -> Mapping[str, Any]:
        return await trio.to_thread.run_sync(
            locate, self._address, self._redactor, abandon_on_cancel=True, limiter=self._threads
        )

    def _is_now(self, host: str, port: int) -> None:
        if self._at is not None and self._at != (host, port):
            self._on_switch(NotSent(f"the Sentinels have made {host}:{port} the master"))
