"""Connectors that worker processes of the tests load by their place, through ``actors.json``."""

from __future__ import annotations

import os
import signal
import time

import trio

from emp_trio.jobs import Job, JobResult
from emp_trio.progress import ProgressReporter
from emp_trio.services.connector import Connector


class StubbornConnector(Connector):
    """Goes on behind a shield, whatever it is told."""

    async def run(self, job: Job, progress: ProgressReporter) -> JobResult:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
        raise AssertionError("it never ends")


class DeadlyConnector(Connector):
    """Takes its whole process along, as a fault in a native library does."""

    async def run(self, job: Job, progress: ProgressReporter) -> JobResult:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
        raise AssertionError("dead by now")


class CarelessConnector(Connector):
    """Finishes after ``seconds`` however often it is cancelled."""

    async def run(self, job: Job, progress: ProgressReporter) -> JobResult:
        with trio.CancelScope(shield=True):
            await trio.sleep(job.payload["seconds"])
        return JobResult(success=True, data={"by": os.getpid()})
