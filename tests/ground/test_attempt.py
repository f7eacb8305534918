"""The time of an attempt: each stage has its limit and leaves room for those after it."""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.attempt import StageLimits, Stages, stage_deadline
from emp_trio.errors import DeadlineExceeded, Stage

LIMITS = StageLimits(upload=120.0, cdn=60.0, settle=10.0)
INSIDE: tuple[Stage, ...] = ("upload", "cdn")


@pytest.mark.parametrize(
    ("stage", "left", "end"),
    [
        ("service", 1800.0, 1610.0),  # 190 s are kept for upload, cdn and settle
        ("upload", 1800.0, 120.0),
        ("upload", 170.0, 100.0),  # less than its own limit: 70 s are kept
        ("cdn", 1800.0, 60.0),
        ("cdn", 65.0, 55.0),
        ("settle", 1800.0, 10.0),
        ("settle", 3.0, 3.0),
        ("service", 100.0, 50.0),  # shorter than the reserves: half of what is left
        ("service", -5.0, -5.0),
    ],
)
def test_when_a_stage_ends(stage: Stage, left: float, end: float) -> None:
    assert stage_deadline(stage, now=1000.0, attempt_deadline=1000.0 + left, limits=LIMITS) == 1000.0 + end


@given(st.sampled_from(("service", "upload", "cdn", "settle")), st.floats(0, 1e6))
def test_every_stage_gets_a_chance_and_none_outlives_the_attempt(stage: Stage, left: float) -> None:
    end = stage_deadline(stage, now=0.0, attempt_deadline=left, limits=LIMITS)
    assert min(left / 2, {"upload": 120, "cdn": 60, "settle": 10}.get(stage, math.inf)) <= end <= left


async def test_a_slow_service_is_named(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught, Stages(began + 1000, LIMITS).service():
        await trio.sleep_forever()
    assert (caught.value.stage, caught.value.seconds) == ("service", 810.0)
    assert trio.current_time() - began == pytest.approx(810)


@pytest.mark.parametrize(("stage", "limit"), [("upload", 120), ("cdn", 60)])
async def test_a_slow_inner_stage_is_named(autojump_clock: trio.testing.MockClock, stage: Stage, limit: float) -> None:
    stages, began = Stages(trio.current_time() + 1000, LIMITS), trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught, stages.service(), stages.stage(stage):
        await trio.sleep_forever()
    assert caught.value.stage == stage
    assert trio.current_time() - began == pytest.approx(limit)


async def test_the_services_clock_stands_still_while_an_asset_is_saved(autojump_clock: trio.testing.MockClock) -> None:
    stages = Stages(trio.current_time() + 1000, LIMITS)
    with stages.service():
        await trio.sleep(800)  # 10 s before its end
        for stage in INSIDE:
            with stages.stage(stage):
                await trio.sleep(50)
        assert not stages.out_of_time


async def test_a_cancel_of_the_service_by_its_holder_is_no_lateness(autojump_clock: trio.testing.MockClock) -> None:
    stages = Stages(trio.current_time() + 1000, LIMITS)
    with stages.service() as scope:
        scope.cancel()
        await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_cleanup_sees_that_time_is_up(autojump_clock: trio.testing.MockClock) -> None:
    stages, seen = Stages(trio.current_time() + 1000, LIMITS), []

    async def work() -> None:
        seen.append(stages.out_of_time)
        try:
            await trio.sleep_forever()
        finally:
            seen.append(stages.out_of_time)

    with pytest.raises(DeadlineExceeded), stages.service():
        await work()
    assert seen == [False, True]
    assert not stages.out_of_time  # nothing is open any more
