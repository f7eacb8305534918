"""Lines on a stream whose reader may be slow or gone: written by a thread, so that nobody who logs ever waits.

A pipe that nobody reads holds 64 KiB; the write that fills it would stop the event loop, and with it the renewal of
leases and every job. Lines wait in a bounded queue instead. What finds it full is dropped, and counted.
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
"""Bytes that wait for a slow reader at most."""
_BATCH: Final = 64 * 2**10  # bytes of one write
_LAST: Final = 1.0  # seconds that what waits at the end of the process has to be written


class LogStream:
    """A stream for log lines, which never blocks.

    Args:
        stream: what has a file descriptor; it is written to directly.
        on_dropped: told, by the writing thread and once there is room again, how many lines were dropped.
        most: bytes that wait at most.
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
        """Have a line written, or drop it where too much waits already."""
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
        """Wait until all is written, for ``limit`` seconds at most."""
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
            except BlockingIOError:  # somebody who shares it has made it non-blocking
                select.select([], [self._fd], [])
            except OSError:  # the reader is gone: there is nowhere to say so
                return
