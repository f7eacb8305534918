"""What comes out of nurseries: the one error that counts, and resources that outlive those who use them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.nursery import (
    errors_in,
    leading_error,
    leading_error_raised,
    open_background,
    outliving,
    without_cancelled,
)

FINAL, PASSING, FOREIGN = InvalidJob("final"), ServiceError("passing"), ValueError("foreign")


def group(*errors: Exception) -> ExceptionGroup:
    return ExceptionGroup("", errors)


@pytest.mark.parametrize(
    ("error", "leads"),
    [
        (FOREIGN, FOREIGN),
        (group(FOREIGN, PASSING), PASSING),
        (group(PASSING, group(FOREIGN, FINAL)), FINAL),
        (BaseExceptionGroup("", [KeyboardInterrupt(), FOREIGN]), FOREIGN),
    ],
)
def test_one_error_stands_for_a_group(error: BaseException, leads: BaseException) -> None:
    assert leading_error(error) is leads


def test_the_single_errors_in_an_error() -> None:
    assert list(errors_in(group(PASSING, group(FOREIGN, FINAL)))) == [PASSING, FOREIGN, FINAL]
    assert list(errors_in(FOREIGN)) == [FOREIGN]


async def fail(error: Exception = PASSING) -> None:
    raise error


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise FOREIGN


async def test_an_error_without_its_cancellations() -> None:
    left: list[BaseException | None] = []

    async def cancelled(*tasks: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(0.01):
            try:
                async with trio.open_nursery() as nursery:
                    for task in tasks:
                        nursery.start_soon(task)
            except BaseException as error:
                left.append(without_cancelled(error))
                raise

    await cancelled(trio.sleep_forever, trio.sleep_forever)
    assert left == [None]
    with pytest.raises(BaseExceptionGroup):
        await cancelled(trio.sleep_forever, fail_when_cancelled)
    assert left[1] is not None
    assert list(errors_in(left[1])) == [FOREIGN]
    assert without_cancelled(FOREIGN) is FOREIGN


def test_a_group_is_raised_as_its_leading_error() -> None:
    with pytest.raises(InvalidJob, match="final"), leading_error_raised():
        raise group(FOREIGN, group(FINAL))


async def beside(task: Callable[[], Awaitable[None]], block: Callable[[], Awaitable[None]]) -> None:
    async with open_background() as nursery:
        nursery.start_soon(task)
        await block()


async def test_what_a_block_raises_comes_out_as_it_is_and_its_tasks_end() -> None:
    await beside(trio.sleep_forever, trio.lowlevel.checkpoint)
    with pytest.raises(ServiceError, match="passing"):
        await beside(trio.sleep_forever, fail)


async def test_a_block_and_a_task_that_both_fail_raise_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await beside(fail, fail_when_cancelled)
    assert set(errors_in(caught.value)) == {PASSING, FOREIGN}


@asynccontextmanager
async def resource(log: list[str], *, opening: float = 0.0) -> AsyncIterator[str]:
    await trio.sleep(opening)
    log.append("open")
    try:
        yield "it"
        await trio.sleep(0.01)  # an orderly end takes a moment
    finally:
        log.append("closed")


async def test_a_cancel_ends_the_block_before_what_it_uses() -> None:
    log: list[str] = []
    with trio.move_on_after(0.05):
        async with outliving(resource(log)) as it:
            assert it == "it"
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.05)
                log.append("block cleaned up")
    assert log == ["open", "block cleaned up", "closed"]


async def test_opening_can_be_cancelled() -> None:
    log: list[str] = []
    with trio.move_on_after(0.05) as scope:
        async with outliving(resource(log, opening=60.0)):
            raise AssertionError("it can't be open")
    assert scope.cancelled_caught
    assert log == []


async def test_a_resource_that_fails_ends_the_block() -> None:
    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield

    ended = trio.Event()

    async def use() -> None:
        async with outliving(failing()):
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

    with pytest.raises(ExceptionGroup) as caught:
        await use()
    assert leading_error(caught.value) is PASSING
    assert ended.is_set()
