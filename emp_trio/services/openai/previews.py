"""Partial pictures as previews: saved as assets while the picture is made, their addresses told as progress."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Protocol, TypeVar

import msgspec
import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.jobs import Job, SavedAsset
from emp_trio.progress import ProgressReporter
from emp_trio.services.openai.events import ResponseStream
from emp_trio.services.openai.stream import OnPartial

T = TypeVar("T")

log = structlog.get_logger(__name__)

_FIRST: Final = 100  # outputs are counted from 0: previews must not take their names


class PreviewSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is done with partial pictures, which only the streaming approach brings.

    Attributes:
        partial_images: how many are asked for; each costs 100 output tokens (OpenAI reference 7).
        previews: whether they are saved. Otherwise they are only counted.
        preview_interval: least seconds between two of them.
        preview_max_bytes: larger ones are not saved.
    """

    partial_images: Annotated[int, msgspec.Meta(ge=0, le=3)] = 2
    previews: bool = False
    preview_interval: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    preview_max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 2 * 2**20


class _SavesAssets(Protocol):
    @property
    def save_asset(self) -> Callable[..., Awaitable[SavedAsset]]: ...


async def with_previews(
    saver: _SavesAssets,
    job: Job,
    progress: ProgressReporter,
    settings: PreviewSettings,
    make: Callable[[OnPartial], Awaitable[T]],
) -> T:
    """Await ``make(on_partial)``; meanwhile, where previews are on, the latest partial picture is saved from time to
    time.

    A preview that can't be saved is logged and costs the job nothing. One that is being saved at the end is given up.

    Raises:
        Exception: whatever ``make`` raises.
    """
    show = _Show(saver, job, progress, settings)
    made: list[T] = []
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show.run)
        try:
            made.append(await make(show.take))
        except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery, so that it comes alone
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return made[0]


class _Show:
    """The partial picture to be saved next, and the task that saves it."""

    def __init__(self, saver: _SavesAssets, job: Job, progress: ProgressReporter, settings: PreviewSettings) -> None:
        self._saver = saver
        self._job = job
        self._progress = progress
        self._settings = settings
        self._latest: ResponseStream | None = None
        self._news = trio.Event()

    def take(self, state: ResponseStream) -> None:
        """Remember a partial picture in place of an earlier one that is still waiting."""
        if (
            self._settings.previews
            and state.partial is not None
            and len(state.partial) * 3 // 4 <= self._settings.preview_max_bytes
        ):
            self._latest = state
            self._news.set()

    async def run(self) -> None:
        """Save what comes, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            if self._latest is not None:
                await self._save(self._latest)
            await trio.sleep(self._settings.preview_interval)

    async def _save(self, state: ResponseStream) -> None:
        index = _FIRST + state.partials - 1
        try:
            saved = await self._saver.save_asset(state.partial, self._job, self._progress, index=index)
        except EmpTrioError as error:
            log.warning("preview.not_saved", number=state.partials, error=error.message)
            return
        self._progress.report(0, f"preview {state.partials}: {saved.cdn_url}")
