"""emp-trio: the worker command with the fleet's keys, messages, records and leases; jobs settled after the connector."""

import sys

import trio

from common import REQUEST, HTTP_PORT, URL, drive_async, mark
from emp_trio.jobs import Job, JobResult
from emp_trio.attempt import AttemptContext
from emp_trio.queue.client import open_queue
from emp_trio.services.connector import Connector

DONE = JobResult(success=True, data={"ok": True})


class NoopConnector(Connector):
    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        mark()
        return DONE


class HttpConnector(Connector):
    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        async with await trio.open_tcp_stream("127.0.0.1", HTTP_PORT) as stream:
            await stream.send_all(REQUEST)
            async for _ in stream:
                pass
        mark()
        return DONE


async def main() -> None:
    async with open_queue(URL) as queue:
        await drive_async(sys.argv, queue.submit, trio.sleep)


if __name__ == "__main__":
    trio.run(main)
