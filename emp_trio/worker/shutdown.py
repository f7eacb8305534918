"""Stopping: the first SIGTERM, SIGHUP or SIGINT drains, the second hands everything back now."""

from __future__ import annotations

import signal

import structlog
import trio

log = structlog.get_logger("emp_trio.machine")


class Shutdown:
    """Whether the machine is to stop. ``begun`` is set by the first signal, ``now`` by the second."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.now = trio.Event()
        self.reason = ""

    def stop(self, reason: str) -> None:
        """One call drains, a second one stops at once."""
        if not self.begun.is_set():
            self.reason = reason
            self.begun.set()
        else:
            self.now.set()

    async def watch_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Turn signals into :meth:`stop`, until cancelled; a third one does what it does to any other program, so that
        a connector which never ends can't keep the process alive."""
        hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # nohup wants it ignored
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *hang_up) as signals:
            task_status.started()
            async for number in signals:
                name = signal.Signals(number).name
                log.info("signal", signal=name, meaning="stop now" if self.begun.is_set() else "drain")
                self.stop(name)
                if self.now.is_set():
                    return
