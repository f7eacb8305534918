"""``emp-trio retry``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emp_trio.cli.connection import RedisOption, with_queue
from emp_trio.cli.output import FAILED, OK, print_problem
from emp_trio.printable import printable

if TYPE_CHECKING:
    from emp_trio.queue.client import Queue


async def retry(job_ids: list[str], /, *, redis: RedisOption = None) -> int:
    """Queue failed jobs again.

    Resets the number of attempts. Cancelled jobs count as failed. Exit code 1
    if a job has not failed or does not exist.

    For example:

        emp-trio retry 6f0d3f3e-52f1-4c5b-9d0c-0a51a4a0f7c4

    Args:
        job_ids: Job ids.
    """

    async def use(queue: Queue) -> int:
        code = OK
        for job_id in dict.fromkeys(job_ids):
            match await queue.retry(job_id):
                case "queued":
                    print(printable(f"{job_id} queued"))
                    continue
                case "missing":
                    print_problem(f"there is no job {job_id}")
                case _:
                    job = await queue.job(job_id)
                    state = f": it is {job.state}" if job else ""
                    print_problem(f"job {job_id} can't be retried, for it has not failed{state}")
            code = FAILED
        return code

    return await with_queue(redis, use)
