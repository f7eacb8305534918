"""The one worker thread of the fake ComfyUI, with its queue and history (ComfyUI reference 1, 2.2)."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping
from typing import Any

import trio

from emp_trio.testing.comfyui.behavior import Behavior, Item, Say
from emp_trio.testing.comfyui.disk import Disk
from emp_trio.testing.comfyui.execution import Execution
from emp_trio.testing.comfyui.state import ServerState


class Engine(ServerState):
    """Lives as long as the server's process; made by it.

    Attributes:
        pending, running: prompts that wait, next first, and the one that runs.
        history: entries by prompt id.
        dead: the worker thread has died: nothing that waits is run any more.
    """

    def __init__(self, disk: Disk, behavior: Behavior, executions: Counter[str], say: Say) -> None:
        super().__init__(disk, behavior, executions, say)
        self.pending: list[Item] = []
        self.running: Item | None = None
        self.history: dict[str, dict[str, Any]] = {}
        self._counter = 0
        self.dead = False
        self._changed = trio.Event()

    @property
    def remaining(self) -> int:
        """Prompts that wait or run."""
        return len(self.pending) + (self.running is not None)

    def put(self, body: Mapping[str, Any], prompt_id: str, outputs: tuple[str, ...]) -> Item:
        """Queue a prompt."""
        number: float = body["number"] if "number" in body else -self._counter if body.get("front") else self._counter
        self._counter += 1
        extra = dict(body.get("extra_data") or {})
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        item = Item(number=number, prompt_id=prompt_id, graph=body["prompt"], extra_data=extra, outputs=list(outputs))
        bisect.insort(self.pending, item, key=lambda waiting: (waiting.number, waiting.prompt_id))
        self.tell_status()
        self._wake()
        return item

    def delete(self, ids: list[str]) -> None:
        """Drop pending prompts, without a trace (2.2)."""
        before = len(self.pending)
        self.pending = [item for item in self.pending if item.prompt_id not in ids]
        if len(self.pending) != before:
            self.tell_status()
            self._wake()

    def interrupt(self, prompt_id: str | None) -> None:
        """Interrupt the running prompt, if it is the one named, or none is named."""
        named = prompt_id is not None and not self.behavior.old_interrupts
        if self.running is None or (named and self.running.prompt_id != prompt_id):
            return
        self.interrupted = not self.behavior.ignore_interrupts

    def free(self) -> None:
        """Drop the cache."""
        self.cache.clear()

    def tell_status(self) -> None:
        """Tell everybody how long the queue is."""
        self.say(None, {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": self.remaining}}}})

    async def ended(self, item: Item) -> None:
        """Wait until a prompt neither waits nor runs."""
        while item in self.pending or self.running is item:
            await self._changed.wait()

    async def work(self) -> None:
        """Run prompts one after the other until cancelled."""
        while True:
            while not self.pending or self.dead:
                await self._changed.wait()
            item = self.running = self.pending.pop(0)
            self.interrupted = False
            self.tell_status()
            self._wake()
            entry = await Execution(self, item).run()
            self.history[item.prompt_id] = entry
            self.running = self.node = None
            self.tell_status()
            if (sid := item.extra_data.get("client_id")) is not None:
                self.say(sid, {"type": "executing", "data": {"node": None, "prompt_id": item.prompt_id}})
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
