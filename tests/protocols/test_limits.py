"""Concurrency, rate and pauses of one connector."""

from __future__ import annotations

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from emp_trio.errors import ServiceError
from emp_trio.protocols.rate_limiter import LimitsSettings, Window

from .support import HttpProbe, open_http

NOWHERE = "http://127.0.0.1:1"


async def test_no_more_jobs_at_once_than_allowed() -> None:
    async with open_http(NOWHERE, limits=LimitsSettings(max_concurrent_jobs=3)) as probe:
        running = most = 0

        async def job() -> None:
            nonlocal running, most
            async with probe.limiter.limit():
                running += 1
                most = max(most, running)
                await trio.testing.wait_all_tasks_blocked()
                running -= 1

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(job)
        assert (running, most) == (0, 3)


async def test_a_place_comes_back_after_an_error_and_a_cancel() -> None:
    async with open_http(NOWHERE, limits=LimitsSettings(max_concurrent_jobs=1)) as probe:

        async def fail() -> None:
            async with probe.limiter.limit():
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        with trio.move_on_after(0):
            async with probe.limiter.limit():
                await trio.sleep_forever()
        with trio.fail_after(60):
            async with probe.limiter.limit():
                pass


async def starts(probe: HttpProbe, count: int) -> list[float]:
    """Times at which ``count`` blocks that were asked for at once begin."""
    began, times = trio.current_time(), []

    async def one() -> None:
        async with probe.limiter.limit():
            times.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return times


async def test_the_rate_is_kept_in_any_minute(autojump_clock: trio.testing.MockClock) -> None:
    async with open_http(NOWHERE, limits=LimitsSettings(requests_per_minute=3)) as probe:
        assert await starts(probe, 8) == pytest.approx([0, 0, 0, 60, 60, 60, 120, 120])


async def test_a_rate_below_one(autojump_clock: trio.testing.MockClock) -> None:
    async with open_http(NOWHERE, limits=LimitsSettings(requests_per_minute=0.5)) as probe:
        assert await starts(probe, 3) == pytest.approx([0, 120, 240])


async def test_a_cancelled_wait_gives_its_turn_back(autojump_clock: trio.testing.MockClock) -> None:
    async with open_http(NOWHERE, limits=LimitsSettings(requests_per_minute=1)) as probe:
        assert await starts(probe, 1) == [0]
        with trio.move_on_after(10) as scope:
            scope.deadline, deadline = trio.current_time() + 100, scope.deadline
            async with trio.open_nursery() as nursery:
                nursery.start_soon(starts, probe, 1)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert deadline > trio.current_time()
        assert await starts(probe, 1) == pytest.approx([60], abs=1)


async def test_nothing_begins_during_a_pause_and_the_rate_holds_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_http(NOWHERE, limits=LimitsSettings(requests_per_minute=2)) as probe:
        assert await starts(probe, 2) == [0, 0]
        async with trio.open_nursery() as nursery:

            async def pause() -> None:
                await trio.sleep(30)
                probe.limiter.slow_down(90)
                probe.limiter.slow_down(1)  # a shorter one does not shorten it

            nursery.start_soon(pause)
            times = await starts(probe, 6)
        assert times == pytest.approx([120, 120, 180, 180, 240, 240])


async def test_a_wait_beyond_the_deadline_is_refused_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_http(NOWHERE, limits=LimitsSettings(requests_per_minute=1)) as probe:
        await starts(probe, 1)
        began = trio.current_time()
        for _ in range(2):  # the refused turn is not used up
            with trio.fail_after(50), pytest.raises(ServiceError) as caught:
                async with probe.limiter.limit():
                    raise AssertionError
        assert (caught.value.type, caught.value.retry) == ("rate_limit", True)
        assert caught.value.retry_after == pytest.approx(60)
        assert trio.current_time() == began


async def test_a_pause_longer_than_a_service_is_waited_for_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with open_http(NOWHERE) as probe:
        probe.limiter.slow_down(3600)
        with pytest.raises(ServiceError) as caught:
            async with probe.limiter.limit():
                raise AssertionError
        assert caught.value.retry_after == pytest.approx(3600)
        await trio.sleep(3500)
        async with probe.limiter.limit():
            assert trio.current_time() >= 3600


PAUSES = st.sampled_from([0.0, 0.0, 1.0, 20.0, 60.0]) | st.floats(0, 100)


@given(
    st.sampled_from([0.5, 1, 2, 3, 5]) | st.floats(0.1, 500),
    st.lists(st.tuples(PAUSES, st.lists(st.integers(0, 9), max_size=4)), min_size=3, max_size=40),
)
@example(2, [*[(pause, []) for pause in (60, 20, 60, 1, 20, 0, 1, 1)], (0, [2, 1, 0, 1]), (20, [])])
def test_a_window_never_lets_too_many_start(per_minute: float, calls: list[tuple[float, list[int]]]) -> None:
    """Whatever is booked, and given back before its time: first come, first served, and never too many at once."""
    window = Window(per_minute)
    count = max(1, int(per_minute))
    length = 60 * count / per_minute
    now, starts = 0.0, list[float]()
    for pause, given_back in calls:
        now += pause
        start = window.book(now)
        assert start >= max([now, *starts])
        starts.append(start)
        for index in given_back:
            waiting = [start for start in starts if start > now]
            if waiting:
                start = waiting[index % len(waiting)]
                window.give_back(start)
                starts.remove(start)
    for first, beyond in zip(starts, starts[count:], strict=False):
        assert beyond - first >= length * (1 - 1e-9)


def test_no_rate_is_no_wait() -> None:
    assert [Window(None).book(5.0) for _ in range(100)] == [5.0] * 100
