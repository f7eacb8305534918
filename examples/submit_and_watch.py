"""Put a job into the queue from a Trio program, and follow it to its end.

emp-trio worker --embedded --workers mock:2          # in one terminal; prints the address of its queue
python examples/submit_and_watch.py redis://...      # in another one
"""

# ruff: noqa: T201  # printing is what it is for

from __future__ import annotations

import sys

import trio

from emp_trio.queue.client import open_queue


async def main(url: str) -> None:
    """Submit a job that any ``mock`` worker runs, and print what happens to it."""
    async with open_queue(url) as queue:
        job_id = await queue.submit("mock", {"delay_ms": 300, "test_data": "hello"})
        async with queue.watch(job_id) as events:
            async for event in events:
                print(f"{event.kind} {event.progress:.0f} %")
        job = await queue.job(job_id)
        assert job is not None
        print(job.result["data"]["test_data"] if job.result else job.error)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
