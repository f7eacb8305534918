"""Connection of the client commands to the queue, cancelled by ^C."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from emp_trio.cli.output import INTERRUPTED, print_problem
from emp_trio.errors import ConfigError
from emp_trio.secrets import Secret

if TYPE_CHECKING:
    import trio

    from emp_trio.queue.client import Queue

_VARIABLES: Final = ("HUB_REDIS_URL", "REDIS_URL")
_SILENCE: Final = 3.0  # seconds without a connection before a warning is printed

RedisOption = Annotated[
    str | None,
    Parameter(name="--redis", help="URL of the queue's Redis. Default: HUB_REDIS_URL, then REDIS_URL."),
]


def named_redis() -> Secret | None:
    """Return the URL of Redis in the environment, or None."""
    url = next((value for name in _VARIABLES if (value := os.environ.get(name))), None)
    return Secret(url) if url else None


def redis_url(option: str | None) -> Secret:
    """Return the URL of the option, or of the environment.

    Raises:
        ConfigError: neither has one.
    """
    url = Secret(option) if option else named_redis()
    if url is None:
        raise ConfigError(
            "no Redis is named: give --redis redis://HOST:PORT or set HUB_REDIS_URL "
            "(without any Redis, 'emp-trio demo' shows everything on this machine)"
        )
    return url


async def with_queue(given: str | None, use: Callable[[Queue], Awaitable[int]], *, durable: bool = False) -> int:
    """Connect to the queue and run ``use`` until it returns, or until ^C.

    Args:
        given: value of ``--redis``.
        use: called with the queue; cancelled by ^C.
        durable: as for :func:`~emp_trio.queue.client.open_queue`.

    Returns:
        the exit code that ``use`` returned, or 130 after ^C.

    Raises:
        ConfigError: there is no URL, or it is invalid.
        QueueError: the connection is lost, or Redis rejects a command.
    """
    url = redis_url(given)
    import trio

    from emp_trio.queue.client import open_queue

    code = INTERRUPTED
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_stop_on_interrupt, nursery.cancel_scope)
        nursery.start_soon(_explain_silence, patience := trio.CancelScope())
        try:
            async with open_queue(url, durable=durable) as queue:
                patience.cancel(reason="connected")
                code = await use(queue)
        except Exception as error:  # noqa: BLE001 - raised below, outside the nursery's exception group
            failure = error
        nursery.cancel_scope.cancel(reason="done")
    if failure is not None:
        raise failure
    return code


async def _explain_silence(patience: trio.CancelScope) -> None:
    import trio

    with patience:
        await trio.sleep(_SILENCE)
        print_problem(
            "no connection to Redis yet; does it run, and is --redis or HUB_REDIS_URL right?", label="warning"
        )


async def _stop_on_interrupt(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel(reason="^C")
