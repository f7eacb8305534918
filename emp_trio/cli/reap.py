"""``emp-trio reap``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emp_trio.cli.connection import RedisOption, with_queue
from emp_trio.cli.output import FAILED, OK, print_json, print_problem
from emp_trio.printable import printable

if TYPE_CHECKING:
    from emp_trio.queue.client import Queue
    from emp_trio.queue.reaping import Cleaned


async def reap(*, json: bool = False, redis: RedisOption = None) -> int:
    """Requeue the jobs of killed workers when no worker is left.

    Does once what every emp-trio worker does regularly: requeues jobs whose
    lease has expired, and delayed jobs that are due. If no emp-trio worker is
    left, requeues all delayed jobs, and waits up to 30 seconds for leases to
    expire. Takes up to 10 seconds to detect that a worker was killed just now.

    Needed only if the last emp-trio worker was killed and none will be started
    again; a worker does this itself when it stops. Exit code 1 if leased or
    delayed jobs remain and no worker is alive to requeue them.

    For example:

        emp-trio reap
        emp-trio reap --json

    Args:
        json: Print one JSON object.
    """

    async def use(queue: Queue) -> int:
        cleaned = await queue.reap()
        if json:
            print_json(cleaned)
        else:
            for line in _lines(cleaned):
                print(printable(line))
        if cleaned.left and not cleaned.broken:
            print_problem(
                f"{cleaned.leased} leases run for another {cleaned.lease_ends:.0f} s, {cleaned.delayed} jobs "
                "are delayed, and no worker is there to put them back: call this again then"
            )
        return FAILED if cleaned.left else OK

    return await with_queue(redis, use)


def _lines(cleaned: Cleaned) -> list[str]:
    lines = [f"{job_id} queued: its lease ran out" for job_id in cleaned.requeued]
    lines += [f"{job_id} queued: it was delayed" for job_id in cleaned.delayed_back]
    lines += [f"{job_id} failed: {reason}" for job_id, reason in cleaned.failed]
    lines += [f"{key} can't be handled: {reason}" for key, reason in cleaned.broken]
    if cleaned.watched:
        lines.append(f"{cleaned.leased} leased and {cleaned.delayed} delayed jobs are looked after by workers")
    return lines or ["nothing was left behind"]
