"""One socket for all jobs of a connector: each message goes to its job, and a lost socket is opened again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Generic, Protocol, TypeVar

import structlog
import trio

from emp_trio.errors import EmpTrioError, ServiceError
from emp_trio.offload import off_loop
from emp_trio.protocols.websocket import WebSocketSession
from emp_trio.retry import backoff

D = TypeVar("D")
E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)

log = structlog.get_logger(__name__)


class Receiver(Protocol[E_contra]):
    """Receives the messages of one job. Neither call may block."""

    def take(self, event: E_contra) -> None:
        """Handle a message for this job."""

    def lost(self, error: ServiceError) -> None:
        """Handle the loss of the socket."""


class SharedSocket(Generic[D, E]):
    """A socket that is kept open, and a table of the jobs that wait for its messages.

    Args:
        open_socket: opens the socket.
        decode: decodes a message. Pure: a large one is decoded in a thread.
        route: turns a decoded message into (id of its job, event); None for an id or an event to be dropped.
        delay: seconds before the first reconnect, doubled for each further one, less a random half.
        cap: the longest such pause.

    Its owner runs :meth:`keep_open` in a nursery of its own.
    """

    def __init__(
        self,
        open_socket: Callable[[], AbstractAsyncContextManager[WebSocketSession]],
        decode: Callable[[str | bytes], D],
        route: Callable[[D], tuple[str | None, E | None]],
        *,
        delay: float,
        cap: float,
    ) -> None:
        self._open_socket = open_socket
        self._decode = decode
        self._route = route
        self._delay = delay
        self._cap = cap
        self._socket: WebSocketSession | None = None
        self._opened = trio.Event()
        self._receivers: dict[str, Receiver[E]] = {}
        self._error: EmpTrioError | None = None
        self._reading = trio.CancelScope()

    async def keep_open(self) -> None:
        """Hold the socket open until :meth:`close` or a cancel; a lost one is reported to every job at once."""
        failed = 0
        while True:
            try:
                async with self._open_socket() as socket:
                    failed = 0
                    with trio.CancelScope() as self._reading:
                        error = await self._read(socket)
                    if self._reading.cancel_called:  # though the socket may have been lost in the same moment
                        return
                    self._fail_all(error.message)  # before the socket's own goodbye, which may take a while
            except EmpTrioError as refused:
                error = refused
            self._error = error
            failed += 1
            pause = backoff(failed, base=self._delay, cap=self._cap, jitter=0.5, random=random.random())
            log.warning("socket.lost", error=error.message, reconnect_in=round(pause, 2))
            await trio.sleep(pause)

    async def _read(self, socket: WebSocketSession) -> EmpTrioError:
        """Hand over messages for as long as the socket lives, and say why it ended."""
        self._socket = socket
        self._opened.set()
        try:
            async for message in socket.messages():
                self._hand_over(await off_loop(len(message), self._decode, message))
        except EmpTrioError as error:
            return error
        finally:
            self._socket = None
            self._opened = trio.Event()
        return ServiceError("the service closed the socket", type="network_error", reason="connection_failed")

    def close(self) -> bool:
        """Let :meth:`keep_open` close the socket in good order and return; False where there is no open one."""
        self._reading.cancel()
        return self._socket is not None

    async def socket(self, wait: float) -> WebSocketSession:
        """The open socket.

        Args:
            wait: seconds to wait for it.

        Raises:
            ServiceError: there is none; says why the latest one ended. Nothing was sent.
        """
        with trio.move_on_after(wait):
            while self._socket is None:
                await self._opened.wait()
        if self._socket is None:
            why = self._error.message if self._error is not None else "the handshake did not finish"
            raise ServiceError(
                f"no socket after waiting {wait:.3g} s: {why}", type="network_error", reason="connection_failed"
            )
        return self._socket

    @property
    def trouble(self) -> str:
        """Why the socket is not open; empty while it is."""
        if self._socket is not None:
            return ""
        return self._error.message if self._error is not None else "not connected yet"

    @contextmanager
    def receiving(self, id: str, receiver: Receiver[E]) -> Iterator[None]:
        """Hand messages of the job ``id`` to ``receiver`` inside the block."""
        if id in self._receivers:
            raise ServiceError(f"the job {id} is already running on this socket", retry=False)
        self._receivers[id] = receiver
        try:
            yield
        finally:
            del self._receivers[id]

    def _hand_over(self, message: D) -> None:
        job_id, event = self._route(message)
        if event is None:
            return
        receiver = self._receivers.get(job_id) if job_id is not None else None
        if receiver is None:
            log.debug("socket.stray_message", job=job_id)
        else:
            receiver.take(event)

    def _fail_all(self, why: str) -> None:
        for receiver in list(self._receivers.values()):
            receiver.lost(
                ServiceError(
                    f"the socket was lost while the job was running: {why}",
                    type="network_error",
                    reason="connection_failed",
                    maybe_started=True,
                )
            )
