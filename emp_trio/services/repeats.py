"""How often a generation may have been paid for: what may have run is repeated once per job, and not again (OpenAI
reference 3.5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from emp_trio.errors import ServiceError
from emp_trio.jobs import Job
from emp_trio.progress import ProgressReporter

CALLS: Final = "calls"
"""Name of the count in a checkpoint."""
_MOST: Final = 2


def calls_before(job: Job) -> int:
    """Generations that earlier attempts have asked for and that may have run, without anything to show for them."""
    found = (job.checkpoint or {}).get(CALLS)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


@asynccontextmanager
async def counted(job: Job, progress: ProgressReporter, *, ahead: bool) -> AsyncIterator[None]:
    """Count the generation that the block asks for, in the job's checkpoint.

    Args:
        ahead: count it before it is asked for, where nothing else would tell the next attempt of a crash. It is taken
            back when the block's error says that nothing has run.

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
    if ahead:
        await progress.remember({CALLS: before + 1})
    try:
        yield
    except ServiceError as error:
        if error.maybe_started:
            if before and error.retry:
                error.retry = False
                error.message += " (the second time that it may have run: it is not asked again)"
                error.args = (error.message,)
            if not ahead:
                await progress.remember({CALLS: before + 1})
        elif ahead:
            await progress.remember({CALLS: before})
        raise
