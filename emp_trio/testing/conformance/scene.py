"""A connector, its service, and what stands between them while it is put through its paces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import structlog
import trio

from emp_trio.assets.config import KeepSettings, StorageSettings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError
from emp_trio.jobs import Job, JobResult
from emp_trio.services.connector import Connector, open_connector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.conformance.checks import check_error, check_no_secret, check_result, secrets_in
from emp_trio.testing.storage import local_storage

CTX_SECRET: Final = "conformance-account-key"  # noqa: S105 - a bait
"""The credential in ``payload.ctx`` of every job; connectors have no business with it."""


def at(url: str, port: int) -> str:
    """``url``, on another port of this machine."""
    return urlunsplit(urlsplit(url)._replace(netloc=f"127.0.0.1:{port}"))


@asynccontextmanager
async def open_toolbox(folder: Path | None) -> AsyncIterator[ConnectorContext]:
    """A worker's connector_context that stores assets in a folder, and keeps what it can't store beside it.

    Args:
        folder: None for a worker that has no storage.
    """
    settings = StorageSettings()
    if folder is not None:
        settings = local_storage(folder, keep=KeepSettings(folder=folder.with_name(f"{folder.name}-kept")))
    async with open_asset_storage(settings) as saver:
        yield ConnectorContext(assets=saver)


class StuckAssets:
    """Assets whose upload, or whose CDN, never gets done; for the rest those that are given."""

    def __init__(self, assets: Any, stage: Any) -> None:
        self._assets = assets
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._assets, name)

    async def save(self, data: Any, job: Job, progress: Any, **options: Any) -> Any:
        """Wait for the end of the stage."""
        with progress.stage(self._stage):
            await trio.sleep_forever()


class Running:
    """An open connector.

    Attributes:
        connector: it.
        begun: counts what its service has begun so far.
        works: how much of that one attempt may begin.
        limit: seconds within which everything must end.
    """

    def __init__(self, connector: Connector, *, begun: Callable[[], int], works: int, limit: float) -> None:
        self.connector = connector
        self.begun = begun
        self.works = works
        self.limit = limit
        self._secrets = [*(secret.reveal() for secret in secrets_in(connector.settings)), CTX_SECRET]

    async def attempt(self, job: Job, context: FakeAttempt | None = None) -> JobResult | EmpTrioError:
        """Run one attempt; returns its result or its error.

        Raises:
            AssertionError: it took too long, raised something without a type, began too much in its service, or said a
                secret.
        """
        context = context or FakeAttempt()
        before = self.begun()
        outcome: JobResult | EmpTrioError
        with structlog.testing.capture_logs() as logs:
            try:
                with trio.fail_after(self.limit):
                    outcome = await run_job(self.connector, job, context)
            except trio.TooSlowError:
                raise AssertionError(f"the attempt at {job.id} did not end within {self.limit} s") from None
            except EmpTrioError as error:
                outcome = error
            except Exception as error:
                raise AssertionError(f"not an error of emp_trio.errors: {error!r}") from error
        if isinstance(outcome, EmpTrioError):
            check_error(outcome)
        else:
            check_result(outcome)
        began = self.begun() - before
        assert began <= self.works, f"one attempt began {began} works in the service"
        check_no_secret(
            self._secrets, outcome=outcome, progress=context.reports, checkpoint=context.checkpoint, logs=logs
        )
        return outcome


@asynccontextmanager
async def open_running(
    cls: type[Connector],
    settings: Any,
    connector_context: ConnectorContext,
    *,
    begun: Callable[[], int],
    works: int,
    limit: float,
) -> AsyncIterator[Running]:
    """Open a connector for the block, and see that no task without an owner is left when the block has ended well.

    Raises:
        AssertionError: closing took longer than ``limit`` seconds, or left a task.
    """
    tasks = _system_tasks()
    with trio.CancelScope() as closing:
        async with open_connector(cls, settings, connector_context) as connector:
            yield Running(connector, begun=begun, works=works, limit=limit)
            closing.deadline = trio.current_time() + limit
    assert not closing.cancelled_caught, f"the connector did not close within {limit} s"
    left = _system_tasks() - tasks
    assert not left, f"system tasks are left when the connector is closed: {[task.name for task in left]}"


def _system_tasks() -> set[trio.lowlevel.Task]:
    """Tasks that no nursery of the program owns."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return {child for nursery in root.child_nurseries for child in nursery.child_tasks}


async def until(met: Callable[[], bool], what: str, *, limit: float) -> None:
    """Wait until something is true. Raises AssertionError, saying ``what``, when it isn't within ``limit`` seconds."""
    with trio.move_on_after(limit):
        while not met():  # noqa: ASYNC110 - nobody has an event for it
            await trio.sleep(0.002)
        return
    raise AssertionError(f"not within {limit} s: {what}")


@asynccontextmanager
async def no_service() -> AsyncIterator[None]:
    """No service at all."""
    await trio.lowlevel.checkpoint()
    yield None


def short_attempt() -> FakeAttempt:
    """An attempt of a fifth of a second, but for its later stages."""
    return FakeAttempt(0.4, limits=StageLimits(upload=0.1, cdn=0.1, settle=0.05))
