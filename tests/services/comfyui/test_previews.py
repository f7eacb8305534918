"""Previews of ComfyUI: saved beside the outputs where that is wanted, and never to the harm of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.comfyui import FakeComfyUI
from tests.services.comfyui.support import ID, open_comfyui, running, sleeping
from tests.services.support import job, stored

ON = {"previews": True, "preview_interval": 0.01}


def shown(context: FakeAttempt) -> list[str]:
    """What was reported of previews as they were saved."""
    return [report.message for report in context.reports if report.message.startswith("preview ")]


def with_metadata(prompt_id: str, image: bytes) -> bytes:
    """A preview frame that says whose it is (3.3)."""
    about = msgspec.json.encode({"node_id": "1", "prompt_id": prompt_id, "image_type": "image/jpeg"})
    return b"\0\0\0\x04" + len(about).to_bytes(4, "big") + about + image


class Storage:
    """A connector_context's storage, of which previews get something else: an error, or nothing at all, ever."""

    def __init__(self, connector_context: ConnectorContext, error: Exception | None) -> None:
        self.asked = 0
        self._assets = connector_context.assets
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._assets, name)

    async def save(self, *args: Any, index: int = 0, **options: Any) -> Any:
        if index < 1_000_000:
            return await self._assets.save(*args, index=index, **options)
        self.asked += 1
        if self._error is None:
            await trio.sleep_forever()
        raise self._error or AssertionError


async def test_nothing_is_saved_unless_it_is_wanted(
    fake: FakeComfyUI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    context = FakeAttempt()
    async with open_comfyui(fake, connector_context) as connector:
        await run_job(connector, job({"workflow": sleeping(0.2, 10, preview=True)}), context)
    assert shown(context) == []
    assert set(stored(tmp_path / "assets")) == {"job-1_0.png"}


async def test_previews_are_saved_beside_the_outputs_and_told(
    fake: FakeComfyUI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    context = FakeAttempt()
    async with open_comfyui(fake, connector_context, preview=ON) as connector:
        result = await run_job(connector, job({"workflow": sleeping(0.6, 10, preview=True)}), context)
    files = stored(tmp_path / "assets")
    told = [message.rpartition("/")[2] for message in shown(context)]
    assert len(told) > 1
    assert all(name in files and name.endswith(".jpg") for name in told)  # the last one may be stored and not be told
    later = [report for report in context.reports if report.message.startswith("running node 1, preview: ")]
    assert later, "a report that comes soon after takes the place of the preview's own: it has to name it again"
    assert [file.filename for file in result.output_files] == ["job-1_0.png"]
    assert files["job-1_0.png"].startswith(b"\x89PNG")
    assert all(name.startswith("job-1_10000") for name in files if name != "job-1_0.png")


async def test_previews_come_no_more_often_than_the_interval_says(
    fake: FakeComfyUI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    preview = {"previews": True, "preview_interval": 3600.0}
    async with open_comfyui(fake, connector_context, preview=preview) as connector:
        await run_job(connector, job({"workflow": sleeping(0.5, 20, preview=True)}))
    assert len(stored(tmp_path / "assets")) == 2


async def test_a_preview_above_the_limit_is_not_saved(
    fake: FakeComfyUI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    async with open_comfyui(fake, connector_context, preview=ON | {"preview_max_bytes": 100}) as connector:
        await run_job(connector, job({"workflow": sleeping(0.3, 10, preview=True)}))
    assert set(stored(tmp_path / "assets")) == {"job-1_0.png"}


async def test_the_previews_of_another_attempt_have_names_of_their_own(
    fake: FakeComfyUI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    for attempt in (1, 2):
        async with open_comfyui(fake, connector_context, preview=ON | {"preview_interval": 3600.0}) as connector:
            graph = sleeping(0.3, 10, preview=True, salt=attempt)
            await run_job(connector, job({"workflow": graph}, id="again", attempt=attempt))
            await fake.restart()
    names = {name.partition(".")[0] for name in stored(tmp_path / "assets")}
    assert names == {"again_0", "again_1000001", "again_2000001"}


@pytest.mark.parametrize("error", [AssetError("storage is away"), ValueError("a defect"), None], ids=repr)
async def test_a_store_that_fails_or_hangs_costs_the_job_nothing(
    fake: FakeComfyUI, connector_context: ConnectorContext, tmp_path: Path, error: Exception | None
) -> None:
    storage = Storage(connector_context, error)
    context = FakeAttempt()
    lent = msgspec.structs.replace(connector_context, assets=storage)
    async with open_comfyui(fake, lent, preview=ON | {"preview_timeout": 0.05}) as connector:
        with trio.fail_after(60):
            result = await run_job(connector, job({"workflow": sleeping(0.5, 20, preview=True)}), context)
    assert result.success
    assert storage.asked > 1
    assert shown(context) == []
    assert context.reports[-1].value == 100
    assert set(stored(tmp_path / "assets")) == {"job-1_0.png"}


async def test_a_preview_belongs_to_the_prompt_it_names_or_to_the_one_that_was_named_last(
    fake: FakeComfyUI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    """3.3, 4.9: those of strangers come over the same socket."""
    plain, jpeg = b"\0\0\0\x01\0\0\0\x01", b"\xff\xd8\xff\xe0\0\x10JFIF\0"
    step = {"value": 1, "max": 2, "node": "1"}
    async with open_comfyui(fake, connector_context, preview=ON) as connector, trio.open_nursery() as nursery:
        context = FakeAttempt()
        nursery.start_soon(run_job, connector, job({"workflow": sleeping(3600.0, 1000)}), context)
        await running(fake)
        fake.say(with_metadata("a-stranger", jpeg + b"stranger"))
        fake.say({"type": "progress", "data": step | {"prompt_id": "a-stranger"}})
        fake.say(plain + jpeg + b"stranger too")
        fake.say(with_metadata(ID, jpeg + b"named"))
        await until(context, 1)
        fake.say({"type": "progress", "data": step | {"prompt_id": ID}})
        fake.say(plain + jpeg + b"unnamed")
        await until(context, 2)
        fake.say({"type": "executing", "data": {"prompt_id": ID, "node": None}})
        fake.say(plain + jpeg + b"of the next prompt")
        fake.say({"type": "progress", "data": step | {"prompt_id": ID}})
        await fake.until(lambda: fake.process.unsent == 0)
        await fake.drop_sockets(close_frame=True)
        await fake.until(lambda: fake.process.opened == 2)
        fake.say(plain + jpeg + b"somebody's")  # on this socket nobody was named yet
        fake.say(with_metadata(ID, jpeg + b"last"))
        await until(context, 3)
        assert shown(context)[-1].startswith("preview 3:")
        nursery.cancel_scope.cancel()
    ends = {content.removeprefix(jpeg) for content in stored(tmp_path / "assets").values()}
    assert ends == {b"named", b"unnamed", b"last"}


async def until(context: FakeAttempt, count: int) -> None:
    """Wait until so many previews were told."""
    while len(shown(context)) < count:
        await trio.sleep(0.01)
