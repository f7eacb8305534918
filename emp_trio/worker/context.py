"""What every part of a machine is given."""

from __future__ import annotations

import msgspec

from emp_trio.queue.worker_queue import WorkerQueue
from emp_trio.secrets import Redactor
from emp_trio.worker.observer import Observers
from emp_trio.worker.settings import WorkerSettings


class MachineContext(msgspec.Struct, frozen=True, kw_only=True):
    """What every part of a machine is given: its settings, its calls of the queue, the redactor for what it publishes
    and logs, and who observes it."""

    settings: WorkerSettings
    queue: WorkerQueue
    redactor: Redactor
    observers: Observers
