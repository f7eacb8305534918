"""One slot running one job: its connector in a nursery of its own, and an outcome made of whatever happens there."""

from __future__ import annotations

import random
import time
from functools import partial

import msgspec
import structlog
import trio

from emp_trio.errors import EmpTrioError, NotStarted, leading_error
from emp_trio.jobs import JobResult
from emp_trio.offload import off_loop, weight
from emp_trio.queue.settlement import Identity, Settlement, released
from emp_trio.secrets import Redactor
from emp_trio.services.connector import Connector
from emp_trio.worker import outcome
from emp_trio.worker.attempt import Attempt
from emp_trio.worker.circuit import verdict

log = structlog.get_logger("emp_trio.slot")


async def run_attempt(attempt: Attempt, connector: Connector, who: Identity, redactor: Redactor) -> Settlement | None:
    """Run one attempt to its end.

    Args:
        attempt: the attempt; it runs in a nursery of its own, whose scope is cancelled when the lease ends.
        who: slot and machine.
        redactor: takes secrets out of what is published.

    Returns:
        the settlement, or None where there is nothing to settle: the lease is lost or the job was cancelled.

    Raises:
        trio.Cancelled: the machine itself is being cancelled; the caller hands the job back.
    """
    began = trio.current_time()
    returned: list[object] = []
    raised: BaseException | None = None
    attempt.running = True
    try:
        async with trio.open_nursery() as nursery:
            attempt.enter(nursery.cancel_scope)
            try:
                with attempt.stages.service():
                    returned.append(await connector.run(attempt.job, attempt))
            except BaseException as error:  # noqa: BLE001 - what a connector raises, SystemExit too, is its job's failure
                raised = _without_cancelled(error)
                await trio.lowlevel.checkpoint_if_cancelled()  # a cancellation, ours or the machine's, goes on
    finally:
        attempt.running = False
    ending, now = attempt.ending, time.time()
    if ending is not None and not (returned and isinstance(returned[0], JobResult)):
        if raised is not None:
            log.warning("connector.error", error=type(raised).__name__, while_ending=ending, exc_info=raised)
        return released() if ending == "drain" else None
    if raised is None:
        try:
            took = trio.current_time() - began
            size = weight(returned[0])
            store = partial(
                outcome.succeeded, attempt.job, returned[0], who, redactor=redactor, took=took, now=now, size=size
            )
            settlement = await off_loop(size, store)
            attempt.verdict = "good"
            return msgspec.structs.replace(settlement, last_words=attempt.last_words)
        except Exception as error:  # noqa: BLE001 - a result that can't be used is an error of the connector
            raised = error
    settlement = outcome.failed(attempt.job, raised, who, redactor=redactor, now=now, random=random.random())
    if isinstance(leading_error(raised), NotStarted):
        attempt.verdict = "unready"
        log.warning("job.not_started", why=outcome.described(raised, redactor).message)
    if settlement.failure is not None:
        attempt.verdict = verdict(leading_error(raised), settlement.failure)
    if not isinstance(raised, EmpTrioError) and settlement.failure is not None:
        log.warning("connector.error", error=settlement.failure.message, exc_info=raised)
    return settlement


def _without_cancelled(error: BaseException) -> BaseException | None:
    """What is left of an error without the cancellations in it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error
