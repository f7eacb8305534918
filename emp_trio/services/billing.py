"""Limit repeats of work that may have been billed: at most one per job (OpenAI reference 3.5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import EmpTrioError, ServiceError
from emp_trio.jobs import Job
from emp_trio.protocols.http.request import Sending

log = structlog.get_logger(__name__)

CALLS: Final = "calls"
"""Name of the count in a checkpoint."""
_MOST: Final = 2
_TAKE_BACK: Final = 2.0  # seconds that a cancelled attempt may take for it


def calls_before(job: Job) -> int:
    """Generations that earlier attempts have asked for and that may have run, without anything to show for them."""
    found = (job.checkpoint or {}).get(CALLS)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


@asynccontextmanager
async def counted(job: Job, context: AttemptContext, *, ahead: bool) -> AsyncIterator[Sending]:
    """Count the generation that the block asks for, in the job's checkpoint.

    Args:
        ahead: count it before it is asked for, where nothing else would tell the next attempt of a crash. It is taken
            back when the block's error says that nothing has run, or, after a cancel, the call does.

    Yields:
        what the block's call is to be given as ``sending``.

    Raises:
        ServiceError: two have been asked for already; or the error of the block, which is not worth another attempt
            where this was the second that may have run.
    """
    before = calls_before(job)
    if before >= _MOST:
        raise ServiceError(
            f"the service has been asked {before} times for this job's generation, any of which may have run and be "
            "billed, and none of which gave an answer; it is not asked again",
            type="response_error",
            reason="missing_expected_data",
            retry=False,
        )
    sending = Sending()
    try:
        if ahead:
            sending.may_have_run = False
            await context.save_checkpoint({CALLS: before + 1})
            sending.may_have_run = True
        yield sending
    except ServiceError as error:
        if error.maybe_started:
            if before and error.retry:
                error.retry = False
                error.message += " (the second time that it may have run: it is not asked again)"
                error.args = (error.message,)
            if not ahead:
                await context.save_checkpoint({CALLS: before + 1})
        elif ahead:
            await context.save_checkpoint({CALLS: before})
        raise
    except BaseException as error:
        cancelled = not isinstance(error, Exception)  # Cancelled, or a group of nothing else
        if cancelled and ahead and not sending.may_have_run:
            await _take_back(context, before)
        raise


async def _take_back(context: AttemptContext, before: int) -> None:
    """A drain among calls that wait for their turn must not use up what they may ask for."""
    with trio.move_on_after(_TAKE_BACK, shield=True):
        try:
            await context.save_checkpoint({CALLS: before})
        except EmpTrioError as error:
            log.warning("count.not_taken_back", error=error.message)
