"""Shutdown by signals: the first SIGTERM, SIGHUP or SIGINT drains, the second requeues all jobs at once."""

from __future__ import annotations

import signal

import structlog
import trio

log = structlog.get_logger("emp_trio.machine")


class Shutdown:
    """State of the shutdown. The first signal sets ``begun``, the second ``now``."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.now = trio.Event()
        self.reason = ""

    def stop(self, reason: str) -> None:
        """Drain; a second call stops at once."""
        if not self.begun.is_set():
            self.reason = reason
            self.begun.set()
        else:
            self.now.set()

    async def watch_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Call :meth:`stop` for the first two signals. Runs until cancelled.

        A third signal has its default effect, so that a connector that never ends can't keep the process alive.
        """
        hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # ignored under nohup
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *hang_up) as signals:
            task_status.started()
            async for number in signals:
                name = signal.Signals(number).name
                log.info("signal", signal=name, meaning="stop now" if self.begun.is_set() else "drain")
                self.stop(name)
                if self.now.is_set():
                    return
