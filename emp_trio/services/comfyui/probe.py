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

    Attributes:
        trouble: why no jobs should be given to it; empty where nothing is known against it.
    """

    def __init__(self, calls: Calls, settings: ComfyUISettings, ours: Set[str]) -> None:
        self.trouble = ""
        self._ours = ours
        self._calls = calls
        self._settings = settings
        self._stuck: set[str] = set()
        self._head = ("", 0.0)
        self._tried = trio.Event()
        self._suspicion = trio.Event()
        self._suspicion.set()

    def suspect(self, prompt_id: str) -> None:
        """A prompt gave no sign of life, or could not be stopped."""
        self._stuck.add(prompt_id)
        self._suspicion.set()

    def watch(self, look: QueueLook) -> None:
        """Somebody waits in this queue."""
        self._judge_head(look)
        if self.trouble:
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
            except ServiceError as error:  # unreachable: that is for the health check to say
                log.debug("canary.not_sent", error=error.message)
                cleared = False
            if cleared:
                self.trouble = ""
                self._stuck.clear()
                self._suspicion = trio.Event()
            self._tried.set()
            if not cleared:
                await trio.sleep(min(self._settings.canary_timeout, 5.0))

    async def _try(self) -> bool:
        """Whether the server has shown that it works."""
        look = await self._calls.queue()
        if look.running or look.pending:
            self._judge_head(look)
            return False
        self.trouble = ""
        canary = str(uuid.uuid4())
        try:
            with trio.move_on_after(self._settings.canary_timeout):
                return await self._fly(canary)
            look = await self._calls.queue()
            if look.place(canary) == "running" or not look.running:
                self._stuck.add(canary)
                self.trouble = f"ComfyUI {_DEAD}"
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

    def _judge_head(self, look: QueueLook) -> None:
        """A server with work in hand can't be tried out; but the work must go on."""
        now = trio.current_time()
        head = look.running[0] if look.running else look.pending[0]
        if head != self._head[0]:
            self._head = (head, now)
            self.trouble = ""
        if head in self._stuck:
            self.trouble = f"ComfyUI {_DEAD} (it can't be made to stop the prompt {head})"
        elif head not in self._ours and now - self._head[1] >= self._settings.stall_timeout:
            self.trouble = f"ComfyUI has been at the prompt {head} for {now - self._head[1]:.0f} s, and may be dead"

    async def _clear_away(self, canary: str) -> None:
        with trio.move_on_after(self._settings.cleanup_timeout, shield=True):
            try:
                await self._calls.delete(canary)
                await self._calls.forget(canary)
            except ServiceError as error:
                log.debug("canary.left", error=error.message)
