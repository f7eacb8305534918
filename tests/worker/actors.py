"""Connectors that worker processes of the tests load by their place, through ``actors.json``."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import trio

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from emp_trio.services.connector import Connector


class StubbornConnector(Connector):
    """Goes on behind a shield, whatever it is told."""

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
        raise AssertionError("it never ends")


class DeadlyConnector(Connector):
    """Takes its whole process along, as a fault in a native library does."""

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
        raise AssertionError("dead by now")


class CarelessConnector(Connector):
    """Finishes after ``seconds`` however often it is cancelled."""

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        with trio.CancelScope(shield=True):
            await trio.sleep(job.payload["seconds"])
        return JobResult(success=True, data={"by": os.getpid()})


class BlockingConnector(Connector):
    """Blocks the loop for ``seconds``: ``how`` is ``sleep``, or what holds the interpreter's lock, ``regex`` or
    ``json``, or ``compute``, which gives way to other threads now and then."""

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        await trio.sleep(job.payload.get("after", 0.0))
        end = time.monotonic() + job.payload["seconds"]
        if job.payload["how"] == "child":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_block, "sleep", end)
        else:
            await _block(job.payload["how"], end)
        return JobResult(success=True, data={"by": os.getpid()})


async def _block(how: str, end: float) -> None:
    if how == "sleep":
        time.sleep(max(0.0, end - time.monotonic()))
    elif how == "regex":
        _match_for(end)
    elif how == "json":
        text = "[" + "1," * 3_000_000 + "1]"
        while time.monotonic() < end:
            json.loads(text)
    else:
        while time.monotonic() < end:
            sum(range(1000))


def _match_for(end: float) -> None:
    """Match one expression, twice as long each time, until one match has taken at least a third of the time."""
    length, began = 16, time.monotonic()
    while time.monotonic() < end:
        at = time.monotonic()
        re.match(r"(a+)+$", "a" * length + "b")
        if time.monotonic() - at < (end - began) / 3:
            length += 1
