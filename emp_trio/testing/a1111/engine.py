"""The fake A1111 at work: one lock, one state, and whatever runs (A1111 reference 10.1, 10.3, 10.4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
import trio

from emp_trio.testing.a1111.rules import http_exception
from emp_trio.testing.a1111.script import Model, Script, answer

_STEPS: Final = 4  # of an image, whatever the job says
_RANDOM_SEED: Final = 1234


class Work(msgspec.Struct, kw_only=True):
    """One generation.

    Attributes:
        step: counts the steps of all its images and passes.
        released: it is not held any more.
        answer: status and body.
        over: it has ended, and the answer is on its way.
    """

    task_id: str
    endpoint: str
    body: dict[str, Any]
    step: int = 0
    released: bool = False
    end: Literal["waiting", "running", "done", "interrupted", "failed"] = "waiting"
    model: str = ""
    seed: int = _RANDOM_SEED
    answer: tuple[int, Any] = (500, None)
    over: trio.Event = msgspec.field(default_factory=trio.Event)


class Engine:
    """One lock that is given in order, one state that tells of whatever runs, one flag that interrupts it.

    Args:
        tell: called whenever something has changed.

    Attributes:
        models: checkpoints by title; ``model`` is the title of the one at hand.
        work: every generation, oldest first.
        interrupts: for each interrupt the task that it hit, or None.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self.models: list[Model] = []
        self.model = ""
        self.work: list[Work] = []
        self.interrupts: list[str | None] = []
        self._tell = tell
        self._queue: deque[Work] = deque()  # its head has the lock; a trio.Lock would not keep the order of beginners
        self._running: Work | None = None
        self._task: str | None = None  # of what runs, or has failed last
        self._finished: deque[str] = deque(maxlen=16)
        self._interrupted = False
        self._began = 0
        self._news = trio.Event()

    def take(self, work: Work) -> None:
        """Work is asked for: it gets its place in the queue."""
        self.work.append(work)
        self._queue.append(work)
        self.tell()

    async def run(self, work: Work, script: Callable[[], Script]) -> None:
        """Do the work when its turn has come; nobody's leaving stops it."""
        while self._queue[0] is not work:
            await self._news.wait()
        self._began += 1
        self._interrupted = False
        self._running, self._task, work.end = work, work.task_id, "running"
        self.tell()
        try:
            await self._do(work, script())
        finally:
            self._running = None
            self._queue.popleft()
            self.tell()
        await trio.sleep(script().answer_delay)
        work.over.set()
        self.tell()

    def interrupt(self) -> None:
        """Stop whatever runs at its next step; the next to begin clears the flag."""
        self.interrupts.append(self._running.task_id if self._running is not None else None)
        self._interrupted = True
        self.tell()

    def tell(self) -> None:
        """Wake what is held, and whoever else listens."""
        self._news.set()
        self._news = trio.Event()
        self._tell()

    def progress(self) -> dict[str, Any]:
        """The answer of ``/sdapi/v1/progress``."""
        running = self._running
        return {
            "progress": 0.0 if running is None else _share(running),
            "eta_relative": 0.0 if running is None else -1.0,
            "current_image": None,
            "textinfo": None,
            "state": {
                "skipped": False,
                "interrupted": self._interrupted,
                "stopping_generation": False,
                "job": "" if running is None else f"scripts_{running.endpoint}",
                "job_count": 0 if running is None else -1 if not running.step else _passes(running.body),
                "job_timestamp": str(20261101000000 + self._began),
                "job_no": 0,
                "sampling_step": 0 if running is None else running.step % _STEPS,
                "sampling_steps": _STEPS,
            },
        }

    def task_progress(self, task_id: str) -> dict[str, Any]:
        """The answer of ``/internal/progress``."""
        waiting = self.pending()
        active, queued, running = task_id == self._task, task_id in waiting, self._running
        place = f"In queue: {waiting.index(task_id) + 1}/{len(waiting)}" if queued else "Waiting..."
        return {
            "active": active,
            "queued": queued,
            "completed": task_id in self._finished,
            "progress": _share(running) if active and running is not None else None,
            "eta": None,
            "live_preview": None,
            "id_live_preview": -1,
            "textinfo": place if not active else None,
        }

    def pending(self) -> list[str]:
        """Tasks that wait for the lock."""
        return [work.task_id for work in self.work if work.end == "waiting"]

    async def _do(self, work: Work, script: Script) -> None:
        body = work.body
        before = self.model
        model = work.model = self._load(body, script)
        work.seed = _RANDOM_SEED if body.get("seed", -1) == -1 else body["seed"]
        for _ in range(_STEPS * _passes(body)):
            await self._step(work, script)
            if self._interrupted:
                break
        interrupted = self._interrupted
        if script.failure is not None:
            work.end = "failed"
            work.answer = 500, http_exception("", error=script.failure.error, errors=script.failure.errors)
            return
        made = work.step // _STEPS * body.get("batch_size", 1)
        found = next(entry for entry in self.models if entry.title == model)
        work.answer = 200, answer(body, found, script, seed=work.seed, made=made, interrupted=interrupted)
        work.end = "interrupted" if interrupted else "done"
        self._finished.append(work.task_id)
        self._task = None
        if body.get("override_settings_restore_afterwards", True):
            self.model = before

    async def _step(self, work: Work, script: Script) -> None:
        while work.step == script.hold_at and not work.released and (script.deaf or not self._interrupted):
            await self._news.wait()
        await trio.sleep(script.seconds / _STEPS)
        if not self._interrupted:
            work.step += 1
            self.tell()

    def release(self, *works: Work) -> None:
        """Let what is held go on to its end."""
        for work in works:
            work.released = True
        self.tell()

    def _load(self, body: dict[str, Any], script: Script) -> str:
        """The model for a request; a name that nobody has is dropped without a word."""
        wanted = body.get("override_settings", {}).get("sd_model_checkpoint")
        known = [model.title for model in self.models if wanted in model.names]
        if known:
            self.model = known[0]
        return script.other_model or self.model


def _passes(body: dict[str, Any]) -> int:
    return int(body.get("n_iter", 1)) * (2 if body.get("enable_hr") else 1)


def _share(work: Work) -> float:
    """As the reference describes it: from 0.01, back to the start for a second pass, out of range for a moment."""
    if work.body.get("enable_hr"):
        return max(0.01, 1.1 * (work.step % _STEPS) / (_STEPS - 1))
    return max(0.01, work.step / (_STEPS * _passes(work.body)))
