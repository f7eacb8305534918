"""Dependencies that every part of a machine is given."""

from __future__ import annotations

import msgspec

from emp_trio.queue.worker_queue import WorkerQueue
from emp_trio.secrets import Redactor
from emp_trio.worker.observer import Observers
from emp_trio.worker.settings import WorkerSettings


class MachineContext(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the machine, its calls of the queue, the redactor for what it publishes and logs, and its
    observers."""

    settings: WorkerSettings
    queue: WorkerQueue
    redactor: Redactor
    observers: Observers
