"""``emp-trio cancel``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emp_trio.cli.connection import RedisOption, with_queue
from emp_trio.cli.output import FAILED, OK, print_problem
from emp_trio.printable import printable

if TYPE_CHECKING:
    from emp_trio.queue.client import Queue


async def cancel(job_ids: list[str], /, *, reason: str = "cancelled by the user", redis: RedisOption = None) -> int:
    """Cancel waiting or running jobs.

    A waiting job is removed from the queue. A running job is stopped by its
    worker, and at the service if the service can cancel. Exit code 1 if a job
    has already ended or does not exist.

    For example:

        emp-trio cancel 6f0d3f3e-52f1-4c5b-9d0c-0a51a4a0f7c4
        emp-trio cancel job-1 job-2 --reason "wrong prompt"

    Args:
        job_ids: Job ids.
        reason: Reason stored with the jobs and shown to their users.
    """

    async def use(queue: Queue) -> int:
        from emp_trio.cli.job_view import state_of

        code = OK
        for job_id in dict.fromkeys(job_ids):
            match await queue.cancel(job_id, reason):
                case "cancelled":
                    print(printable(f"{job_id} cancelled"))
                    continue
                case "missing":
                    print_problem(f"there is no job {job_id}")
                case _:
                    job = await queue.job(job_id)
                    print_problem(f"job {job_id} had settled already" + (f": {state_of(job)}" if job else ""))
            code = FAILED
        return code

    return await with_queue(redis, use)
