"""``emp-trio workers``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from emp_trio.cli.connection import RedisOption, with_queue
from emp_trio.cli.output import OK, print_json, print_table, shown
from emp_trio.printable import printable

if TYPE_CHECKING:
    from emp_trio.queue.client import Queue
    from emp_trio.queue.job_info import WorkerInfo


async def workers(*, json: bool = False, redis: RedisOption = None) -> int:
    """List the workers of the fleet with their state and job.

    Each slot of a machine is one worker. A worker without a heartbeat for a
    minute is shown as gone. Connectors that take no jobs are listed below with
    the reason.

    For example:

        emp-trio workers
        emp-trio workers --json

    Args:
        json: Print a JSON array.
    """

    async def use(queue: Queue) -> int:
        import msgspec

        from emp_trio.cli.job_view import age

        listed = await queue.workers()
        if json:
            print_json([shown(msgspec.structs.asdict(worker)) for worker in listed])
            return OK
        now = time.time()
        print_table(
            ("worker", "machine", "status", "job", "seen", "services"),
            (
                (
                    worker.worker_id,
                    worker.machine_id,
                    worker.status if worker.alive else "gone",
                    worker.current_job_id or "",
                    age(worker.last_heartbeat, now),
                    ", ".join(worker.services),
                )
                for worker in listed
            ),
            cut=True,
        )
        for (machine_id, connector), reason in _troubles(listed).items():
            print(printable(f"{machine_id}: {connector} takes no jobs: {reason}"))
        return OK

    return await with_queue(redis, use)


def _troubles(workers: list[WorkerInfo]) -> dict[tuple[str, str], str]:
    """Return the reasons why connectors take no jobs, by machine and connector."""
    return {
        (worker.machine_id, connector): reason
        for worker in workers
        if worker.alive
        for connector, reason in worker.troubles.items()
    }
