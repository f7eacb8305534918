"""Test that a server executes prompts, not only that it responds (ComfyUI reference 4.6).

A server without work is tried out with a tiny prompt of our own: at the start, and after any doubt. One that has work
in hand can't be tried out; it is watched instead (:mod:`emp_trio.services.comfyui.pulse`).
"""

from __future__ import annotations

import uuid
from typing import Any, Final

import structlog
import trio

from emp_trio.errors import ServiceError
from emp_trio.services.comfyui.calls import Calls
from emp_trio.services.comfyui.history import QueueLook
from emp_trio.services.comfyui.pulse import Pulse, Vitals
from emp_trio.services.comfyui.settings import ComfyUISettings

log = structlog.get_logger(__name__)

_CANARY: Final[dict[str, Any]] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
_DEAD: Final = "takes prompts and does not run them: its worker thread has died, restart it"
_LOOKS: Final = 4  # within the time that a server may give no sign of life


class Probe:
    """Tries a server out at the start and whenever it is under suspicion, and watches it while it has work in hand."""

    def __init__(self, calls: Calls, settings: ComfyUISettings) -> None:
        self._calls = calls
        self._settings = settings
        self._unreachable = ""
        self._failed = ""  # to run a canary
        self._stubborn = ""  # a prompt that runs on after it was to be stopped
        self._stuck: set[str] = set()
        self._pulse = Pulse(settings.stall_timeout, now=trio.current_time())
        self._heard = False  # since the last look
        self._proved = False  # that it works, since the last suspicion
        self._tried = trio.Event()
        self._stirred = trio.Event()
        self._changed = trio.Event()
        self._told = ""

    @property
    def doubt(self) -> str:
        """Why the server is taken for one that does no work; empty where nothing is known against it."""
        return self._failed or self._pulse.doubt

    @property
    def suspicion(self) -> str:
        """Why the server gets no jobs although it answers: the doubt, or that it can't be made to stop a prompt, which
        may come to its end all the same."""
        return self.doubt or self._stubborn

    @property
    def trouble(self) -> str:
        """Why no jobs should be given to the server: the suspicion, or that it can't be reached."""
        return self._unreachable or self.suspicion

    def suspect(self, prompt_id: str) -> None:
        """A prompt gave no sign of life, or could not be stopped."""
        self._stuck.add(prompt_id)
        self._proved = False
        self._stirred.set()

    def heard(self) -> None:
        """A message about a prompt, whoever's it is."""
        self._heard = True
        if self.suspicion and not self._stuck:
            self._pulse.heard(trio.current_time())
            self._clear()

    def watch(self, look: QueueLook) -> None:
        """Somebody has looked at the queue anyway."""
        before = self.suspicion
        self._judge(Vitals(running=frozenset(look.running), waiting=len(look.pending)))
        if self.suspicion != before:
            self._stirred.set()

    async def verdict(self) -> str:
        """The trouble, once the server has been tried out for the first time."""
        await self._tried.wait()
        return self.trouble

    async def changes(self) -> None:
        """Come back when a doubt has come up or was cleared since the last call."""
        await self._changed.wait()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Try the server out, and watch it; until cancelled."""
        while True:
            self._stirred = trio.Event()
            try:
                await self._look()
                self._unreachable = ""
            except ServiceError as error:
                self._unreachable = error.message
            self._tell()
            self._tried.set()
            quiet = self._settings.stall_timeout / _LOOKS
            with trio.move_on_after(min(quiet, self._settings.canary_interval) if self.trouble else quiet):
                await self._stirred.wait()

    async def _look(self) -> None:
        heard, self._heard = self._heard, False
        if heard and not self._stuck:
            self._pulse.heard(trio.current_time())
            self._clear()
        if self._proved and (heard or not await self._calls.remaining()):
            return
        look = await self._calls.queue()
        vitals = Vitals(running=frozenset(look.running), waiting=len(look.pending))
        if not vitals.idle:
            vitals = await self._calls.vitals(look)
        self._judge(vitals)
        if vitals.idle and not self._proved and await self._try():
            self._pulse.heard(trio.current_time())
            self._clear()

    def _judge(self, vitals: Vitals) -> None:
        sign = self._pulse.seen(vitals, trio.current_time())
        if stuck := self._stuck & vitals.running:
            self._stubborn = f"ComfyUI {_DEAD} (it can't be made to stop the prompt {min(stuck)})"
        elif sign:
            self._clear(proved=self._proved or not vitals.idle)
        if self.suspicion:
            self._proved = False
        self._tell()

    def _clear(self, *, proved: bool = True) -> None:
        """The server has shown a sign of life; what it does next is seen, or tried out where it has nothing to do."""
        self._failed, self._stubborn, self._proved = "", "", proved
        self._stuck.clear()
        self._tell()

    def _tell(self) -> None:
        """Log a doubt that has come up or was cleared, and wake whoever waits for it."""
        doubt = self.suspicion
        if bool(doubt) != bool(self._told):
            if doubt:
                log.warning("comfyui.suspect", why=doubt)
            else:
                log.info("comfyui.trusted", was=self._told)
            self._changed.set()
        self._told = doubt

    async def _try(self) -> bool:
        """Whether an idle server has shown that it works."""
        canary = str(uuid.uuid4())
        try:
            with trio.move_on_after(self._settings.canary_timeout):
                return await self._fly(canary)
            look = await self._calls.queue()
            if look.state_of(canary) == "running":
                self._stuck.add(canary)
            if look.state_of(canary) == "running" or not look.running:
                self._failed = f"ComfyUI {_DEAD}"
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

    async def _clear_away(self, canary: str) -> None:
        with trio.move_on_after(self._settings.cleanup_timeout, shield=True):
            try:
                await self._calls.delete(canary)
                await self._calls.forget(canary)
            except ServiceError as error:
                log.debug("canary.left", error=error.message)
