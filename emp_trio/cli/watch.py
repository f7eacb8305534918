"""``emp-trio watch``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from emp_trio.cli.connection import RedisOption, with_queue
from emp_trio.cli.output import FAILED, INTERRUPTED, OK, print_json, print_problem, shown

if TYPE_CHECKING:
    from emp_trio.queue.client import Queue
    from emp_trio.queue.events import JobEvent


async def watch(job_ids: list[str], /, *, json: bool = False, redis: RedisOption = None) -> int:
    """Show the progress of jobs until they end.

    Prints progress on stderr, and the outcome of each job on stdout. Exit code 0
    if all jobs completed, else 1.

    For example:

        emp-trio watch 6f0d3f3e-52f1-4c5b-9d0c-0a51a4a0f7c4
        emp-trio watch job-1 job-2 --json | jq .progress

    Args:
        job_ids: Job ids.
        json: Print each event as one line of JSON. Its kind is queued, progress, completed, failed or missing.
    """

    async def use(queue: Queue) -> int:
        from emp_trio.cli.following import follow, open_screen

        with open_screen([] if json else job_ids) as screen:
            completed = await follow(queue, job_ids, screen, _print_event if json else None)
        if not json:
            await _print_outcomes(queue, job_ids)
        return OK if completed else FAILED

    code = await with_queue(redis, use)
    if code == INTERRUPTED:
        print_problem("the jobs go on", label="interrupted")
    return code


async def _print_outcomes(queue: Queue, job_ids: list[str]) -> None:
    from emp_trio.cli.job_view import outcome, print_rows

    for job_id in dict.fromkeys(job_ids):
        job = await queue.worker_queue.retry_until_accepted(partial(queue.job, job_id))
        if job is None:
            print_problem(f"there is no job {job_id}")
        else:
            print_rows(outcome(job))


def _print_event(event: JobEvent) -> None:
    import msgspec

    print_json(shown(msgspec.structs.asdict(event)))
