"""Looking until something is there: patience, waits that the service states, and the end of patience."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.polling import Polling, PollingSettings, Wait
from emp_trio.services.connector import Connector

from .support import toolbox


class Probe(Polling, Connector):
    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        polling: PollingSettings = PollingSettings()


def probe(**settings: Any) -> Probe:
    return Probe(Probe.Settings(polling=PollingSettings(**settings)), toolbox())


def looking(*results: Any) -> tuple[Callable[[], Awaitable[Any]], list[float]]:
    """A look that gives these results one after the other, the last one for ever, and the times it was called."""
    times: list[float] = []
    left: Iterator[Any] = iter(results)
    result: Any = None

    async def look() -> Any:
        nonlocal result
        await trio.lowlevel.checkpoint()
        times.append(trio.current_time())
        result = next(left, result)
        if isinstance(result, Exception):
            raise result
        return result

    return look, times


def failing(retry: bool = True, retry_after: float | None = None) -> ServiceError:
    return ServiceError("busy", type="network_error", reason="connection_failed", retry=retry, retry_after=retry_after)


async def test_it_looks_at_once_and_then_every_interval(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(None, None, {"status": "completed"})
    assert await probe(interval=5).poll(look) == {"status": "completed"}
    assert times == [0, 5, 10]


@pytest.mark.parametrize("finished", [0, "", False, [], {}])
async def test_only_none_means_not_finished(finished: object) -> None:
    look, _ = looking(finished)
    assert await probe().poll(look) == finished


async def test_the_end_of_patience_is_named(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(None)
    with pytest.raises(
        ServiceError, match=r"response resp_1 was not finished after 4 attempts to look in 6 s"
    ) as caught:
        await probe(interval=2, attempts=4).poll(look, hint="response resp_1")
    assert len(times) == 4
    error = caught.value
    assert (error.type, error.reason, error.retry, error.maybe_started) == ("timeout", "processing_timeout", True, True)


async def test_errors_in_a_row_are_put_up_with_and_counted_anew(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(*[failing()] * 2, None, *[failing()] * 2, "done")
    assert await probe(errors_in_a_row=2).poll(look) == "done"
    assert len(times) == 6
    look, times = looking(failing())
    with pytest.raises(ServiceError, match="busy"):
        await probe(errors_in_a_row=2).poll(look)
    assert len(times) == 3


async def test_the_last_error_is_told_at_the_end_of_patience(autojump_clock: trio.testing.MockClock) -> None:
    look, _ = looking(None, failing())
    with pytest.raises(ServiceError, match="the last of which failed: busy") as caught:
        await probe(attempts=3).poll(look)
    assert isinstance(caught.value.__cause__, ServiceError)


@pytest.mark.parametrize("error", [failing(retry=False), Refused("no"), ValueError("not ours")])
async def test_an_error_that_is_final_ends_it_at_once(error: Exception) -> None:
    look, times = looking(error)
    with pytest.raises(type(error)):
        await probe().poll(look)
    assert len(times) == 1


async def test_a_stated_wait_is_kept_where_it_is_longer(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(Wait(2), Wait(30), failing(retry_after=60), None, "done")
    assert await probe(interval=5).poll(look) == "done"
    assert times == [0, 5, 35, 95, 100]


async def test_a_stated_wait_that_is_too_long_is_handed_to_the_queue(autojump_clock: trio.testing.MockClock) -> None:
    for wait, deadline in ((121.0, 1000.0), (60.0, 50.0)):
        look, times = looking(failing(retry_after=wait))
        with trio.fail_after(deadline), pytest.raises(ServiceError) as caught:
            await probe().poll(look)
        assert caught.value.retry_after == wait
        assert len(times) == 1


async def test_a_cancel_passes_through(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(None)
    with trio.move_on_after(12) as scope:
        await probe(interval=5).poll(look)
    assert scope.cancelled_caught
    assert times == [0, 5, 10]
