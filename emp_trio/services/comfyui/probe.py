"""Evidence that a server works, beside that it answers: a worker thread may be dead behind a healthy HTTP (reference
4.6)."""

from __future__ import annotations

import uuid
from collections.abc import Set
from typing import Any, Final

import structlog
import trio

from emp_trio.errors import ServiceError
from emp_trio.services.comfyui.calls import Calls
from emp_trio.services.comfyui.history import QueueLook
from emp_trio.services.comfyui.settings import ComfyUISettings

log = structlog.get_logger(__name__)

_CANARY: Final[dict[str, Any]] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
_DEAD: Final = "takes prompts and does not run them: its worker thread has died, restart it"


class Probe:
    """Tries a server out at the start and whenever it is under suspicion, until it has shown that it works.

    Args:
        ours: prompts that are being followed, and so need no watching here.
    """

    def __init__(self, calls: Calls, settings: ComfyUISettings, ours: Set[str]) -> None:
        self._calls = calls
        self._settings = settings
        self._ours = ours
        self._unreachable = ""
        self._doubt = ""
        self._stuck: set[str] = set()
        self._head = ("", 0.0)
        self._tried = trio.Event()
        self._suspicion = trio.Event()
        self._suspicion.set()

    @property
    def trouble(self) -> str:
        """Why no jobs should be given to the server; empty where nothing is known against it."""
        return self._unreachable or self._doubt

    def suspect(self, prompt_id: str) -> None:
        """A prompt gave no sign of life, or could not be stopped."""
        self._stuck.add(prompt_id)
        self._suspicion.set()

    def watch(self, look: QueueLook) -> None:
        """Somebody waits in this queue."""
        self._judge_head(look)
        if self._doubt:
            self._suspicion.set()

    async def verdict(self) -> str:
        """The trouble, once the server has been tried out for the first time."""
        await self._tried.wait()
        return self.trouble

    async def run(self) -> None:
        """Try the server out as long as it is under suspicion; until cancelled."""
        while True:
            await self._suspicion.wait()
            try:
                cleared = await self._try()
                self._unreachable = ""
            except ServiceError as error:
                cleared, self._unreachable = False, error.message
            if cleared:
                self._doubt = ""
                self._stuck.clear()
                self._suspicion = trio.Event()
            self._tried.set()
            if not cleared:
                await trio.sleep(self._settings.canary_interval)

    async def _try(self) -> bool:
        """Whether the server has shown that it works."""
        look = await self._calls.queue()
        if look.running or look.pending:
            return self._judge_head(look)
        canary = str(uuid.uuid4())
        try:
            with trio.move_on_after(self._settings.canary_timeout):
                return await self._fly(canary)
            look = await self._calls.queue()
            if look.place(canary) == "running" or not look.running:
                self._doubt = f"ComfyUI {_DEAD}"
            return False
        finally:
            await self._clear_away(canary)

    async def _fly(self, canary: str) -> bool:
        """Send a canary and wait for its end."""
        body = {"prompt": _CANARY, "prompt_id": canary, "client_id": canary}
        try:
            await self._calls.submit(body)
        except ServiceError as error:
            if error.status == 400:  # a server without these classes can't be tried out in this way
                return True
            raise
        pause = 0.02
        while await self._calls.entry(canary) is None:
            await trio.sleep(pause)
            pause = min(1.0, 2 * pause)
        return True

    def _judge_head(self, look: QueueLook) -> bool:
        """Look at a server with work in hand: it can't be tried out, but its work must go on.

        Returns:
            whether it has gone on since the last look.
        """
        now = trio.current_time()
        head = look.running[0] if look.running else ""
        before, since = self._head
        if head != before:
            self._head = (head, now)
            if before and head:
                self._doubt = ""
                return True
        elif head in self._stuck:
            self._doubt = f"ComfyUI {_DEAD} (it can't be made to stop the prompt {head})"
        elif head not in self._ours and now - since >= self._settings.stall_timeout:
            self._doubt = (
                f"ComfyUI has been at the prompt {head or 'before the first'} for {now - since:.0f} s: restart it?"
            )
        return False

    async def _clear_away(self, canary: str) -> None:
        with trio.move_on_after(self._settings.cleanup_timeout, shield=True):
            try:
                await self._calls.delete(canary)
                await self._calls.forget(canary)
            except ServiceError as error:
                log.debug("canary.left", error=error.message)
