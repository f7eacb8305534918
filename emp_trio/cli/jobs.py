"""``emp-trio jobs``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from emp_trio.cli.connection import RedisOption, with_queue
from emp_trio.cli.output import FAILED, OK, print_json, print_problem, print_table, shown
from emp_trio.errors import ConfigError

if TYPE_CHECKING:
    from emp_trio.queue.client import JobInfo, Queue

State = Literal["pending", "delayed", "active", "completed", "failed"]  # same as the client's, which is imported late


async def jobs(
    job_id: str | None = None,
    /,
    *,
    state: State | None = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 50,
    json: bool = False,
    redis: RedisOption = None,
) -> int:
    """List jobs, or show one job.

    The list is ordered by state: active, delayed, pending, failed, completed.
    With an id, shows all fields of that job.

    For example:

        emp-trio jobs --state failed
        emp-trio jobs 6f0d3f3e-52f1-4c5b-9d0c-0a51a4a0f7c4 --json

    Args:
        job_id: Id of the job to show.
        state: List only jobs in this state.
        limit: Maximum number of jobs listed per state.
        json: Print a JSON array of jobs, or the job as a JSON object.
    """
    if job_id is not None and state is not None:
        raise ConfigError("--state is for the list of jobs; give it or the id of one job")

    async def use(queue: Queue) -> int:
        return await (_list(queue, state, limit, json) if job_id is None else _show(queue, job_id, json))

    return await with_queue(redis, use)


async def _list(queue: Queue, state: State | None, limit: int, json: bool) -> int:
    from emp_trio.cli.job_view import age, state_of

    listed = await queue.jobs(state, limit=limit)
    if json:
        print_json([shown(_listed(job)) for job in listed])
        return OK
    now = time.time()
    print_table(
        ("job", "type", "state", "done", "age", "note"),
        (
            (
                job.id,
                job.type,
                state_of(job),
                "" if job.progress is None else f"{job.progress:.0f} %",
                age(job.created_at, now),
                job.error or " · ".join(filter(None, (job.message, job.worker_id))),
            )
            for job in listed
        ),
        cut=True,
    )
    return OK


def _listed(job: JobInfo) -> dict[str, Any]:
    """Return a listed job without payload and result: they are not read for the list, and null would mean none."""
    import msgspec

    return {k: v for k, v in msgspec.structs.asdict(job).items() if k not in ("payload", "result")}


async def _show(queue: Queue, job_id: str, json: bool) -> int:
    import msgspec

    from emp_trio.cli.job_view import details, print_rows

    job = await queue.job(job_id)
    if job is None:
        print_problem(f"there is no job {job_id}")
        return FAILED
    if json:
        print_json(shown(msgspec.structs.asdict(job)))
    else:
        print_rows(details(job))
    return OK
