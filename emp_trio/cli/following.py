"""Follow jobs to their ends: progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn, Protocol

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from emp_trio.cli.output import console, shown
from emp_trio.printable import printable
from emp_trio.queue.client import Queue
from emp_trio.queue.events import JobEvent

_TICK: Final = 0.1  # seconds between redraws of the bars
_LINE_EVERY: Final = 1.0  # minimum seconds between progress lines of a job
_WIDE: Final = 100  # columns of a terminal from which bars are longer
_WORDS: Final = {"progress": "running", "missing": "no such job"}


class Screen(Protocol):
    """Display for the progress of jobs."""

    def show(self, event: JobEvent) -> None:
        """Show an event of a job."""

    def say(self, text: str) -> None:
        """Show a message that belongs to no job."""

    def tick(self) -> None:
        """Redraw; called about ten times a second."""


async def follow(
    queue: Queue, job_ids: Sequence[str], screen: Screen, show: Callable[[JobEvent], None] | None = None
) -> bool:
    """Follow jobs until all of them have ended. Wait for Redis if the connection is lost.

    Args:
        job_ids: ids of the jobs; duplicates count once.
        screen: shows the progress.
        show: receives the events instead of the screen.

    Returns:
        whether all jobs completed.

    Raises:
        QueueError: Redis rejects a command.

    Cancellation does not affect the jobs.
    """
    kinds: dict[str, str] = {}
    failure: Exception | None = None
    running = set(job_ids)

    async def follow_one(job_id: str) -> None:
        nonlocal failure
        try:
            async with queue.watch(job_id) as events:
                async for event in events:
                    (show or screen.show)(event)
                    kinds[job_id] = event.kind
        except Exception as error:  # noqa: BLE001 - raised below, outside the nursery's exception group
            failure = error
        running.remove(job_id)
        if failure is not None or not running:
            nursery.cancel_scope.cancel(reason="there is nothing more to follow")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep, screen, queue)
        for job_id in dict.fromkeys(job_ids):
            nursery.start_soon(follow_one, job_id)
    if failure is not None:
        raise failure
    return all(kind == "completed" for kind in kinds.values())


async def _keep(screen: Screen, queue: Queue) -> NoReturn:
    """Redraw the screen periodically, and report lost and restored connections on it."""
    connected = True
    while True:
        if queue.port.connected is not connected:
            connected = queue.port.connected
            screen.say("connected to Redis again" if connected else "no connection to Redis; waiting for it")
        screen.tick()
        await trio.sleep(_TICK)


@contextmanager
def open_screen(job_ids: Sequence[str]) -> Iterator[Screen]:
    """Open the display for stderr: bars on a terminal that can redraw them, else lines.

    Args:
        job_ids: ids of the jobs; each gets a bar.
    """
    stderr = console(stderr=True)
    if not stderr.is_terminal or stderr.is_dumb_terminal:
        yield _Lines(stderr)
        return
    stderr.soft_wrap = False  # a wrapped bar can't be redrawn in place
    bars = _Bars(stderr, job_ids)
    with bars.progress:
        yield bars


class _Bars:
    """One progress bar per job, redrawn by :meth:`tick`, without rich's own thread."""

    def __init__(self, stderr: Console, job_ids: Sequence[str]) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24 if stderr.width >= _WIDE else 12),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn(
                "{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=stderr,
            expand=True,  # only the last column takes the remaining width
            auto_refresh=False,
            redirect_stdout=False,  # stdout has the results and may be a pipe
            redirect_stderr=False,
        )
        self._tasks = {
            job_id: self.progress.add_task(printable(job_id), total=100, note="") for job_id in dict.fromkeys(job_ids)
        }

    def show(self, event: JobEvent) -> None:
        task = self._tasks[event.job_id]
        message = shown(event.message)
        note = message if event.kind == "progress" and event.message else _WORDS.get(event.kind, event.kind)
        done = 100 if event.kind == "completed" else event.progress
        self.progress.update(task, completed=done, note=printable(note))
        if event.last:
            self.progress.stop_task(task)

    def say(self, text: str) -> None:
        self.progress.console.print(text, style="yellow")

    def tick(self) -> None:
        self.progress.refresh()


class _Lines:
    """One line per change of state, and at most one per second for progress: the newest, when its second comes."""

    def __init__(self, stderr: Console) -> None:
        self._stderr = stderr
        self._last: dict[str, tuple[str, float]] = {}
        self._held_back: dict[str, JobEvent] = {}

    def show(self, event: JobEvent) -> None:
        kind, printed_at = self._last.get(event.job_id, ("", 0.0))
        now = trio.current_time()
        if event.kind == kind and now < printed_at + _LINE_EVERY:
            self._held_back[event.job_id] = event
            return
        self._held_back.pop(event.job_id, None)
        self._last[event.job_id] = (event.kind, now)
        line = f"{event.job_id} {_WORDS.get(event.kind, event.kind)}"
        if event.kind == "progress":
            line += f" {event.progress:.0f} %" + (f" {shown(event.message)}" if event.message else "")
        self.say(printable(line))

    def say(self, text: str) -> None:
        self._stderr.print(text)

    def tick(self) -> None:
        """Print the progress lines whose second has come."""
        for event in list(self._held_back.values()):
            self.show(event)
