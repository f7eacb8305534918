"""How an attempt ends while Ollama is at work, and what the next attempt makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.assets.config import KeepSettings, StorageSettings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, ConfigError, DeadlineExceeded, ServiceError
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.ollama import FakeOllama, Script
from emp_trio.testing.storage import local_storage
from tests.services.ollama.support import job, open_ollama
from tests.services.support import stored

TEXT = {"prompt": "hello"}
PULL = {"prompt": "hello", "model": "tinyllama"}


@pytest.mark.parametrize("stop_remote_work", [True, False])
@pytest.mark.parametrize(
    ("type", "payload", "script"),
    [
        ("text_generation", TEXT, Script(stall_after=2)),
        ("chat_completion", TEXT, Script(stall_after=2)),
        ("text_generation", TEXT, Script(load=3600)),
        ("text_generation", PULL, Script(stall_after=2)),
    ],
)
async def test_a_cancel_is_seen_by_ollama(
    ollama: FakeOllama,
    connector_context: ConnectorContext,
    type: str,
    payload: dict[str, Any],
    script: Script,
    stop_remote_work: bool,
) -> None:
    ollama.script = script
    async with open_ollama(ollama.base_url, connector_context, auto_pull="tinyllama") as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    run_job, connector, job(type, payload), FakeAttempt(stop_remote_work=stop_remote_work)
                )
                await ollama.until_true(lambda: bool(ollama.work) and ollama.work[0].lines >= (script.stall_after or 0))
                nursery.cancel_scope.cancel()
            await ollama.until_true(lambda: ollama.work[0].end == "dropped")
    assert len(ollama.work) == 1


@pytest.mark.parametrize("script", [Script(stall_after=2), Script(load=3600), Script(pause=0.05, text="word " * 999)])
async def test_a_deadline_ends_the_generation(
    ollama: FakeOllama, connector_context: ConnectorContext, script: Script
) -> None:
    ollama.script = script
    context = FakeAttempt(0.6, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with open_ollama(ollama.base_url, connector_context) as connector:
        with pytest.raises(DeadlineExceeded) as caught:
            await run_job(connector, job("text_generation", TEXT), context)
        with trio.fail_after(60):
            await ollama.until_true(lambda: ollama.work[0].end == "dropped")
    assert caught.value.stage == "service"


async def test_a_deadline_ends_the_wait_for_a_place(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.script = Script(load=3600)
    async with open_ollama(ollama.base_url, connector_context, limit=1) as connector, trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job("text_generation", TEXT))
        await ollama.until_true(lambda: bool(ollama.work))
        with pytest.raises(DeadlineExceeded):
            await run_job(connector, job("text_generation", TEXT), FakeAttempt(0.4))
        assert len(ollama.work) == 1
        nursery.cancel_scope.cancel()


async def test_no_more_jobs_run_at_once_than_are_allowed(
    ollama: FakeOllama, connector_context: ConnectorContext
) -> None:
    ollama.script = Script(pause=0.02)
    most = 0

    def watch() -> bool:
        nonlocal most
        most = max(most, sum(work.end == "running" for work in ollama.work))
        return sum(work.end == "done" for work in ollama.work) == 5

    async with open_ollama(ollama.base_url, connector_context, limit=2) as connector, trio.open_nursery() as nursery:
        for number in range(5):
            payload = TEXT | {"save_assets": False, "seed": number}
            nursery.start_soon(run_job, connector, job("text_generation", payload))
        await ollama.until_true(watch)
    assert most == 2


async def test_a_next_attempt_begins_anew(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    """A lost worker leaves nothing to adopt: Ollama has stopped when its client went away."""
    ollama.script = Script(stall_after=2)
    context = FakeAttempt(stop_remote_work=False)
    async with open_ollama(ollama.base_url, connector_context) as first, trio.open_nursery() as nursery:
        nursery.start_soon(run_job, first, job("text_generation", TEXT), context)
        await ollama.until_true(lambda: bool(ollama.work) and ollama.work[0].lines == 2)
        nursery.cancel_scope.cancel()
    assert context.checkpoint is None
    ollama.script = Script()
    async with open_ollama(ollama.base_url, connector_context) as second:
        result = await run_job(second, job("text_generation", TEXT, attempt=2))
    assert result.data["text"] == ollama.script.text
    assert [work.end for work in ollama.work] == ["dropped", "done"]


async def test_a_next_attempt_after_a_lost_stream(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.script = Script(cut_after=3)
    async with open_ollama(ollama.base_url, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job("text_generation", TEXT))
        assert caught.value.retry
        ollama.script = Script()
        result = await run_job(connector, job("text_generation", TEXT, attempt=2))
    assert result.data["text"] == ollama.script.text  # nothing of the first half is in it


@pytest.mark.parametrize("type", ["text_generation", "embeddings"])
async def test_an_upload_that_failed_is_no_reason_to_generate_again(
    ollama: FakeOllama, tmp_path: Path, type: str
) -> None:
    folder, keep = tmp_path / "assets", KeepSettings(folder=tmp_path / "kept")
    folder.write_text("not a folder")
    payload = TEXT if type == "text_generation" else {"input": "hello", "model": "nomic-embed-text"}
    settings = local_storage(folder, keep=keep)
    async with (
        open_asset_storage(settings) as saver,
        open_ollama(ollama.base_url, ConnectorContext(assets=saver), inline_embedding_bytes=10) as connector,
    ):
        with pytest.raises(AssetError) as caught:
            await run_job(connector, job(type, payload))
        assert caught.value.paid
        folder.unlink()
        result = await run_job(connector, job(type, payload, attempt=2))
    assert len(ollama.work) == 1
    assert len(result.output_files) == len(stored(folder)) + (type == "embeddings") == 1
    assert result.data["usage"]["input_tokens"] > 0
    assert result.data["asset_url"]


async def test_a_worker_without_storage_says_so_before_the_work(ollama: FakeOllama) -> None:
    async with (
        open_asset_storage(StorageSettings()) as saver,
        open_ollama(ollama.base_url, ConnectorContext(assets=saver)) as connector,
    ):
        with pytest.raises(ConfigError):
            await run_job(connector, job("text_generation", TEXT))
        assert ollama.work == []
        assert (await run_job(connector, job("text_generation", TEXT | {"save_assets": False}))).success
