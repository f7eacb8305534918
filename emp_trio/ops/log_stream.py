"""Write log lines from a thread, so that a slow or missing reader never blocks the event loop.

A pipe buffers 64 KiB; once it is full, a direct write would block the event loop, and with it lease renewal and every
job. Lines wait in a bounded queue instead; lines that do not fit are dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TextIO

MOST: Final = 4 * 2**20
"""Maximum bytes queued for a slow reader."""
_BATCH: Final = 64 * 2**10  # maximum bytes per write
_LAST: Final = 1.0  # seconds to write the queued lines when the process ends


class LogStream:
    """A stream for log lines that never blocks its callers.

    Args:
        stream: stream with a file descriptor, which is written to directly.
        on_dropped: called by the writing thread with the number of dropped lines, once there is room again.
        most: maximum bytes queued.
    """

    def __init__(self, stream: TextIO, on_dropped: Callable[[int], None], *, most: int = MOST) -> None:
        self._most = most
        self._fd = stream.fileno()
        self._encoding = stream.encoding or "utf-8"
        self._on_dropped = on_dropped
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._writing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Queue a line, or drop it if the queue is full."""
        data = self._encoded(line)
        with self._changed:
            if self._size + len(data) > self._most:
                self._dropped += 1
                return
            self._lines.append(data)
            self._size += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="emp-trio-log", daemon=True)
                self._thread.start()
                atexit.register(self.flush)
            self._changed.notify_all()

    def flush(self, limit: float = _LAST) -> None:
        """Block until all lines are written, for at most ``limit`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._writing, limit)

    def _encoded(self, line: str) -> bytes:
        try:
            return line.encode(self._encoding)
        except UnicodeEncodeError:  # a terminal that is not UTF-8
            return line.encode("ascii", "backslashreplace")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                self._writing = True
                batch = self._batch()
            self._write(batch)
            with self._changed:
                self._size -= len(batch)
                dropped = self._dropped if self._size < self._most / 2 else 0
                self._dropped -= dropped
            if dropped:
                self._on_dropped(dropped)

    def _batch(self) -> bytes:
        taken = [self._lines.popleft()]
        size = len(taken[0])
        while self._lines and size + len(self._lines[0]) <= _BATCH:
            taken.append(self._lines.popleft())
            size += len(taken[-1])
        return b"".join(taken)

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another process that shares the stream made it non-blocking
                select.select([], [self._fd], [])
            except OSError:  # the reader is gone, and there is no other place to report it
                return
