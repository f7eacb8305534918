"""Looking until something is there: patience, waits that the service states, and the end of patience."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.polling import Ended, NotFinished, Poller, PollingSettings, Wait, look_pause


def poller(**settings: Any) -> Poller:
    return Poller(PollingSettings(**settings))


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


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (5, [0, 0.3, 1, 2, 4, 8, 13, 18]),
        (2, [0, 0.3, 1, 2, 4, 6, 8, 10]),
        (60, [0, 0.3, 1, 2, 4, 8, 16, 32]),
        (1, [0, 0.3, 1, 2, 3, 4, 5, 6]),
        (0.5, [0, 0.3, 0.8, 1.3, 1.8, 2.3, 2.8, 3.3]),
        (0.25, [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]),
        (0, [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
async def test_it_looks_at_once_soon_again_and_then_every_interval(
    autojump_clock: trio.testing.MockClock, interval: float, expected: list[float]
) -> None:
    look, times = looking(*[None] * 7, {"status": "completed"})
    assert await poller(interval=interval).poll(look) == {"status": "completed"}
    assert times == pytest.approx(expected)


@given(st.floats(0, 1000), st.floats(0, 100))
def test_no_pause_is_longer_than_the_interval_or_than_the_work_has_taken(age: float, interval: float) -> None:
    pause = look_pause(age, interval)
    assert 0 <= pause <= interval
    assert pause <= max(1.0, age)
    assert pause >= min(interval, 0.3)


async def test_the_interval_may_grow_with_the_age(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(*[None] * 7, "done")
    assert await poller(interval=99, attempts=50).poll(look, interval=lambda age: 2 if age < 4 else 3) == "done"
    assert times == [0, 0.3, 1, 2, 4, 7, 10, 13]


@pytest.mark.parametrize("finished", [0, "", False, [], {}])
async def test_only_none_means_not_finished(finished: object) -> None:
    look, _ = looking(finished)
    assert await poller().poll(look) == finished


async def test_the_end_of_patience_is_named(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(None)
    with pytest.raises(
        NotFinished, match=r"response resp_1 was not finished after 6 attempts to look in 6 s"
    ) as caught:
        await poller(interval=2, attempts=4).poll(look, hint="response resp_1")
    assert times == [0, 0.3, 1, 2, 4, 6]
    error = caught.value
    assert error.seconds == 6
    assert (error.type, error.reason, error.retry, error.maybe_started) == ("timeout", "processing_timeout", True, True)


@pytest.mark.parametrize("interval", [0.0, 0.1, 0.7, 1, 3, 5, 30])
@pytest.mark.parametrize("attempts", [1, 2, 3, 60])
async def test_early_looks_come_on_top_and_the_patience_stays(
    autojump_clock: trio.testing.MockClock, interval: float, attempts: int
) -> None:
    look, times = looking(None)
    with pytest.raises(NotFinished):
        await poller(interval=interval, attempts=attempts).poll(look)
    assert times[-1] == pytest.approx((attempts - 1) * interval)
    assert attempts <= len(times) <= attempts + 6


async def test_errors_in_a_row_are_put_up_with_and_counted_anew(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(*[failing()] * 2, None, *[failing()] * 2, "done")
    assert await poller(errors_in_a_row=2).poll(look) == "done"
    assert len(times) == 6
    look, times = looking(failing())
    with pytest.raises(ServiceError, match="busy"):
        await poller(errors_in_a_row=2).poll(look)
    assert len(times) == 3


async def test_looks_that_fail_are_an_interval_apart_also_early_ones(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(None, *[failing()] * 5, "done")
    assert await poller(interval=5).poll(look) == "done"
    assert times == [0, 0.3, 5.3, 10.3, 15.3, 20.3, 25.3]


async def test_the_last_error_is_told_at_the_end_of_patience(autojump_clock: trio.testing.MockClock) -> None:
    look, _ = looking(None, failing())
    with pytest.raises(ServiceError, match="the last of which failed: busy") as caught:
        await poller(attempts=3).poll(look)
    assert isinstance(caught.value.__cause__, ServiceError)


@pytest.mark.parametrize("error", [failing(retry=False), Refused("no"), ValueError("not ours")])
async def test_an_error_that_is_final_ends_it_at_once(error: Exception) -> None:
    look, times = looking(error)
    with pytest.raises(type(error)):
        await poller().poll(look)
    assert len(times) == 1


@pytest.mark.parametrize("retry", [True, False])
async def test_work_that_has_ended_is_not_looked_at_again(retry: bool) -> None:
    error = ServiceError("the response failed", type="rate_limit", reason="requests_per_minute", retry=retry)
    look, times = looking(None, Ended(error))
    with pytest.raises(ServiceError) as caught:
        await poller(interval=0).poll(look)
    assert (caught.value, len(times)) == (error, 2)


@pytest.mark.parametrize(
    ("error", "looks"),
    [
        (ServiceError("the kiln says that the work failed"), 1),
        (ServiceError("overloaded", status=503), 6),
        (ServiceError("slow down", status=429), 6),
        (ServiceError("cut off", type="network_error", reason="connection_failed"), 6),
        (ServiceError("no JSON", type="response_error", reason="invalid_response_format"), 6),
    ],
)
async def test_what_a_look_says_of_the_work_is_final_and_what_the_call_says_of_itself_is_not(
    error: ServiceError, looks: int
) -> None:
    look, times = looking(error)
    with pytest.raises(ServiceError):
        await poller(interval=0).poll(look)
    assert len(times) == looks


async def test_a_stated_wait_is_kept_where_it_is_longer(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(Wait(2), Wait(30), failing(retry_after=60), None, "done")
    assert await poller(interval=5).poll(look) == "done"
    assert times == [0, 2, 32, 92, 97]


async def test_a_stated_wait_counts_as_one_look_and_has_a_bound(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(Wait(1e9))
    with pytest.raises(NotFinished):
        await poller(interval=5, attempts=4).poll(look)
    assert times == [0, 120, 240, 360]


async def test_a_stated_wait_that_is_too_long_is_handed_to_the_queue(autojump_clock: trio.testing.MockClock) -> None:
    for wait, deadline in ((121.0, 1000.0), (60.0, 50.0)):
        look, times = looking(failing(retry_after=wait))
        with trio.fail_after(deadline), pytest.raises(ServiceError) as caught:
            await poller().poll(look)
        assert caught.value.retry_after == wait
        assert len(times) == 1


async def test_a_cancel_passes_through(autojump_clock: trio.testing.MockClock) -> None:
    look, times = looking(None)
    with trio.move_on_after(12) as scope:
        await poller(interval=5).poll(look)
    assert scope.cancelled_caught
    assert times == [0, 0.3, 1, 2, 4, 8]
