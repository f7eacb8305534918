"""Images of unfinished work as previews: saved as assets while a job runs, their addresses told as progress."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeVar

import msgspec
import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import Stage
from emp_trio.jobs import Job, SavedAsset
from emp_trio.protocols.saves_assets import AssetSaver

T = TypeVar("T")

log = structlog.get_logger(__name__)

_FIRST: Final = 1_000_000  # outputs are counted from 0: previews must not take their names


class PreviewSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is done with images of unfinished work.

    Attributes:
        previews: whether they are saved.
        preview_interval: least seconds between two of them.
        preview_max_bytes: larger ones are not saved.
        preview_timeout: seconds that saving one may take.
    """

    previews: bool = False
    preview_interval: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    preview_max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 2 * 2**20
    preview_timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0


class Previews:
    """The image to be saved next, and the task that saves it; made by :func:`with_previews`.

    Attributes:
        url: of the latest preview that was saved. Reports are coalesced: who reports often says it again.
    """

    def __init__(self, saver: AssetSaver, job: Job, context: AttemptContext, settings: PreviewSettings) -> None:
        self._saver = saver
        self._job = job
        self._progress = context
        self._settings = settings
        self.url = ""
        self._taken = 0
        self._latest: bytes | str | None = None
        self._media_type: str | None = None
        self._news = trio.Event()

    def take(self, image: bytes | str, media_type: str | None = None) -> None:
        """Remember an image in place of an earlier one that is still waiting. Never blocks.

        Args:
            image: bytes, or base64.
            media_type: what the service says it is.
        """
        size = len(image) if isinstance(image, bytes) else len(image) * 3 // 4
        if self._settings.previews and size <= self._settings.preview_max_bytes:
            self._taken += 1
            self._latest, self._media_type = image, media_type
            self._news.set()

    async def run(self) -> None:
        """Save what comes, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await self._save(self._latest, self._taken)
            await trio.sleep(self._settings.preview_interval)

    async def _save(self, image: bytes | str | None, number: int) -> None:
        index = _FIRST * self._job.attempt + number  # what another attempt has shown may be in a cache
        aside = _Aside(self._progress)
        saved: SavedAsset | None = None
        why = f"it took more than {self._settings.preview_timeout:g} s"
        with trio.move_on_after(self._settings.preview_timeout):
            try:
                saved = await self._saver.save(image, self._job, aside, media_type=self._media_type, index=index)
            except Exception as error:  # noqa: BLE001 - whatever it is, the job can do without this preview
                why = str(error)
        if saved is None:
            log.warning("preview.not_saved", number=number, error=why)
        else:
            self.url = saved.cdn_url
            self._progress.report(0, f"preview {number}: {saved.cdn_url}")


class _Aside:
    """The reporter of an upload that is no part of the attempt: it stops none of the attempt's clocks."""

    def __init__(self, context: AttemptContext) -> None:
        self._progress = context

    @property
    def stop_remote_work(self) -> bool:
        return self._progress.stop_remote_work

    def report(self, value: float, message: str = "", *, step: str = "", total_steps: int = 0) -> None:
        """What the upload has to say is of no interest."""

    async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        raise AssertionError("an upload has nothing to remember")

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        yield


async def with_previews(
    saver: AssetSaver,
    job: Job,
    context: AttemptContext,
    settings: PreviewSettings,
    make: Callable[[Previews], Awaitable[T]],
) -> T:
    """Await ``make(previews)``; meanwhile, where previews are on, the latest image given to ``previews.take`` is
    saved from time to time, beside the job's outputs, and its address reported.

    A preview that can't be saved, or not in time, is logged and costs the job nothing. One that is being saved at the
    end, or when the attempt is cancelled, is given up.

    Raises:
        Exception: whatever ``make`` raises.
    """
    previews = Previews(saver, job, context, settings)
    if not settings.previews:
        return await make(previews)
    made: list[T] = []
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(previews.run)
        try:
            made.append(await make(previews))
        except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery, so that it comes alone
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return made[0]
