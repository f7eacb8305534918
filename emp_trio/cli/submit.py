"""``emp-trio submit``."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from emp_trio.cli.connection import RedisOption, with_queue
from emp_trio.cli.json_argument import json_argument
from emp_trio.cli.output import FAILED, INTERRUPTED, OK, print_json, print_problem, shown
from emp_trio.errors import ConfigError, QueueError
from emp_trio.queue.ids import why_refused

if TYPE_CHECKING:
    from emp_trio.queue.client import JobInfo, Queue


async def submit(
    type: str,
    /,
    *,
    payload: Annotated[str, Parameter(allow_leading_hyphen=True)] = "{}",
    ctx: str = "{}",
    requirements: str = "{}",
    priority: int = 50,
    id: str | None = None,
    workflow: str = "",
    customer: str = "",
    max_attempts: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    durable: bool = False,
    wait: bool = False,
    timeout: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    json: bool = False,
    redis: RedisOption = None,
) -> int:
    """Submit a job to the queue.

    Prints the id of the job; with --wait, its progress (on stderr) and then its
    outcome. With --json, prints the job as a JSON object instead.

    For example:

        emp-trio submit openai_image --wait --payload '{"prompt": "a lighthouse"}'
        emp-trio submit comfyui --payload @workflow.json --priority 80

    Args:
        type: Job type.
        payload: Input of the job: a JSON object, @FILE, or - for standard input.
        ctx: Storage of the results: a JSON object or @FILE.
        requirements: Requirements on the worker: a JSON object or @FILE.
        priority: Priority, 1 to 100 by convention; higher runs sooner.
        id: Job id. Default: a new UUID.
        workflow: Id of the job's workflow.
        customer: Id of the customer, for workers reserved for customers.
        max_attempts: Maximum number of attempts.
        wait: Wait until the job has ended. Exit code 1 if it failed or was cancelled.
        durable: Wait until the job is on the disk of Redis, and on a replica if there is one.
        timeout: With --wait: maximum seconds to wait, then exit with code 1. The job continues.
        json: Print one JSON object.
    """
    if timeout is not None and not wait:
        raise ConfigError("--timeout limits the waiting of --wait, and --wait is not given")
    job_id = str(uuid.uuid4()) if id is None else id
    if (bad := why_refused(job_id)) is not None:
        raise ConfigError(f"--id can't be used: {bad}")
    body = json_argument("--payload", payload, stdin=True)
    context, needs = json_argument("--ctx", ctx), json_argument("--requirements", requirements)
    fate = f"job {job_id} was not queued"

    async def use(queue: Queue) -> int:
        nonlocal fate
        fate = f"job {job_id} may have been queued or not\n{_ways_on(job_id)}"
        await queue.submit(
            type,
            body,
            ctx=context,
            requirements=needs,
            priority=priority,
            job_id=job_id,
            customer_id=customer,
            workflow_id=workflow,
            max_attempts=max_attempts,
        )
        fate = f"job {job_id} goes on\n{_ways_on(job_id)}"
        if wait:
            return await _wait(queue, job_id, timeout, json)
        if json:
            _print_document(await _look(queue, job_id))
        else:
            print(job_id)
        return OK

    code = await with_queue(redis, use, durable=durable)
    if code == INTERRUPTED:
        print_problem(fate, label="interrupted")
    return code


async def _wait(queue: Queue, job_id: str, timeout: float | None, json: bool) -> int:
    import trio

    from emp_trio.cli.following import follow, open_screen
    from emp_trio.cli.job_view import outcome, print_rows

    with trio.move_on_after(math.inf if timeout is None else timeout) as scope, open_screen([job_id]) as screen:
        await follow(queue, [job_id], screen)
    job = await _look(queue, job_id)
    if json:
        _print_document(job)
    if scope.cancelled_caught:
        print_problem(f"job {job_id} has not ended within {timeout:g} s; it goes on\n{_ways_on(job_id)}")
        return FAILED
    if not json:
        print_rows(outcome(job))
    return OK if job.state == "completed" else FAILED


async def _look(queue: Queue, job_id: str) -> JobInfo:
    job = await queue.worker_queue.retry_until_accepted(lambda: queue.job(job_id))
    if job is None:
        raise QueueError(f"job {job_id} was queued and is not there any more: did somebody empty the Redis?")
    return job


def _print_document(job: JobInfo) -> None:
    import msgspec

    print_json(shown({name: value for name, value in msgspec.structs.asdict(job).items() if name != "payload"}))


def _ways_on(job_id: str) -> str:
    return f"  emp-trio watch {job_id}    follows it\n  emp-trio cancel {job_id}   ends it"
