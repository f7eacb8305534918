"""Dependencies shared by all parts of a machine."""

from __future__ import annotations

import msgspec

from emp_trio.queue.worker_queue import WorkerQueue
from emp_trio.secrets import Redactor
from emp_trio.worker.observer import Observers
from emp_trio.worker.settings import WorkerSettings


class MachineContext(msgspec.Struct, frozen=True, kw_only=True):
    """Settings, queue, redactor and observers of a machine."""

    settings: WorkerSettings
    queue: WorkerQueue
    redactor: Redactor
    observers: Observers
