"""The connectors of the worker processes here, loaded by their place through ``actors.json``."""

from __future__ import annotations

import os
import signal

import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.services.connector import Connector


class UnsteadyConnector(Connector):
    """Takes ``seconds``; the first ``fails`` attempts fail for a while, and one that is ``bad`` fails for good."""

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        await trio.sleep(job.payload["seconds"])
        if job.payload.get("bad"):
            raise InvalidJob("the job is bad")
        if job.retry_count < job.payload.get("fails", 0):
            raise ServiceError("busy", status=429, retry_after=0.2)
        return JobResult(success=True, data={"attempt": job.attempt})


class PoisonConnector(Connector):
    """Takes its whole process along."""

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        await trio.sleep(job.payload.get("seconds", 0.0))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("dead by now")
