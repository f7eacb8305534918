"""A real server for tests of programs that use emp-trio: started and stopped without Trio, nothing kept."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emp_trio.queue.embedded import LOOPBACK, PROBE, free_port, is_ready, log_tail, server_command


@contextmanager
def valkey_server(
    *extra: str, password: str = "", start_limit: float = 20.0, stop_limit: float = 10.0
) -> Iterator[str]:
    """Run a server on a free loopback port for as long as the block runs; it ends with this process in any case.

    Args:
        extra: further arguments for the server, such as ``"--maxmemory", "10mb"``.
        password: what the default user must give; empty for none.
        start_limit: seconds until it must answer.
        stop_limit: seconds for its orderly stop, before it is killed.

    Yields:
        its ``redis://`` URL, with the password where there is one.

    Raises:
        RuntimeError: the server did not start; with the last lines it logged.
    """
    with (
        tempfile.TemporaryDirectory(prefix="emp-trio-test-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as log,
    ):
        port = free_port()
        if password:
            extra = (*extra, "--requirepass", password)
        with subprocess.Popen(  # our own command line
            server_command(Path(folder), port, keep=False, extra=extra),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                pid = int(process.stdout.readline() or -1)
                deadline = time.monotonic() + start_limit
                while not is_ready(_ask(port, password), pid):
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"the test server did not start: {log_tail(log)}")
                    time.sleep(0.005)
                yield f"redis://{f':{password}@' if password else ''}{LOOPBACK}:{port}"
            finally:
                process.stdin.close()
                process.wait(stop_limit)


def _ask(port: int, password: str) -> bytes:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            if password:
                connection.sendall(f"AUTH {password}\r\n".encode())
                connection.recv(64)
            connection.sendall(PROBE)
            answer = b""
            while b"\nprocess_id:" not in answer or not answer.endswith(b"\r\n"):
                more = connection.recv(65536)
                if not more:
                    break
                answer += more
            return answer
    except OSError:
        return b""
