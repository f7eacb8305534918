"""Nothing is paid twice without being said, and never a third time: uploads that fail, calls that may have run, and the
way from one interface to the other."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import trio

from emp_trio.assets.config import KeepSettings, StorageSettings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.assets.stores.providers.local.provider import LocalRoot
from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, DeadlineExceeded, Refused, ServiceError
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.gemini import FakeGemini, Script
from emp_trio.testing.png import make_png
from tests.services.gemini.support import LONG, forms, open_gemini
from tests.services.support import job, stored

PNG = base64.b64encode(make_png()).decode()
CAT = {"prompt": "a cat"}
NO_INTERACTIONS: dict[str, Any] = {"status": 404, "body": b"<html>The requested URL was not found.</html>", "times": 9}


# An upload that fails.


class Broken:
    """A connector_context's assets whose store is away, and which keeps what could not be saved in memory."""

    def __init__(self) -> None:
        self.kept_here: Any = None

    def check(self, job: Any) -> None: ...

    def inline(self, file: Any) -> None: ...

    async def save(self, *args: Any, **options: Any) -> Any:
        raise AssetError("storage is away")

    async def kept(self, job: Any) -> Any:
        return None

    async def keep(self, generated: Any, job: Any) -> tuple[bool, str]:
        self.kept_here = generated
        return True, "It is kept in memory."

    async def forget(self, job: Any) -> None: ...


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[ConnectorContext]:
    """A context with a folder for what could not be uploaded; its store is broken while a file is in its way."""
    storage = StorageSettings(
        provider="local",
        accounts={"local": LocalRoot(path=tmp_path / "assets")},
        keep=KeepSettings(folder=tmp_path / "kept"),
    )
    async with open_asset_storage(storage) as saver:
        yield ConnectorContext(assets=saver)


@forms
async def test_an_upload_that_failed_is_made_up_for_by_the_next_attempt_and_not_paid_again(
    gemini: FakeGemini, keeping: ConnectorContext, tmp_path: Path, api: str
) -> None:
    gemini.script = Script(images=2, text="Here.")
    (tmp_path / "assets").write_text("in the way")
    limits = StageLimits(upload=0.2)
    context = FakeAttempt(limits=limits)
    async with open_gemini(gemini, keeping, api=api) as connector:
        with pytest.raises((AssetError, DeadlineExceeded), match="kept"):
            await run_job(connector, job(CAT), context)
        (tmp_path / "assets").unlink()
        result = await run_job(connector, job(CAT, attempt=2, checkpoint=context.checkpoint))
    assert len(stored(tmp_path / "assets")) == len(result.output_files) == 2
    assert (result.data["text"], result.data["approach"]) == ("Here.", api)
    assert result.raw_request_payload["model"] == "gemini-nano-banana-2.1"
    assert (gemini.count("create") + gemini.count("generate"), gemini.billed) == (1, 1)


async def test_facts_that_are_kept_are_plain_and_hold_no_secret(gemini: FakeGemini) -> None:
    assets = Broken()
    async with open_gemini(gemini, ConnectorContext(assets=assets), api="generate_content") as connector:
        with pytest.raises(AssetError):
            await run_job(connector, job(CAT))
    text = msgspec.json.encode(assets.kept_here.data).decode()
    assert gemini.api_key.reveal() not in text
    assert "iVBOR" not in text


# generateContent has no id: what may have run is repeated once, which is said, and then no more.


async def test_a_crash_in_the_call_is_counted(gemini: FakeGemini, connector_context: ConnectorContext) -> None:
    gemini.script = LONG
    context = FakeAttempt(stop_remote_work=False)
    async with open_gemini(gemini, connector_context, api="generate_content") as connector:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(CAT), context)
            await gemini.until("generate")
            nursery.cancel_scope.cancel()
        assert context.checkpoint == {"calls": 1}
        gemini.script = Script()
        result = await run_job(connector, job(CAT, attempt=2, checkpoint=context.checkpoint))
        assert result.metadata["maybe_billed_before"] == 1
        before = len(gemini.requests)
        with pytest.raises(ServiceError, match="asked 2 times") as caught:
            await run_job(connector, job(CAT, attempt=3, checkpoint={"calls": 2}))
    assert not caught.value.retry
    assert len(gemini.requests) == before


@forms
@pytest.mark.parametrize(("status", "word"), [(500, "INTERNAL"), (502, "BAD"), (504, "DEADLINE_EXCEEDED")])
async def test_a_call_that_may_have_run_is_repeated_once_and_that_is_said(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str, status: int, word: str
) -> None:
    route: Any = "create" if api == "interactions" else "generate"
    gemini.inject(route, status=status, word=word, after=True, times=2)
    async with open_gemini(gemini, connector_context, api=api) as connector:
        first, second = FakeAttempt(), FakeAttempt()
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT), first)
        assert (caught.value.retry, caught.value.maybe_started, first.checkpoint) == (True, True, {"calls": 1})
        with pytest.raises(ServiceError, match="not asked again") as caught:
            await run_job(connector, job(CAT, attempt=2, checkpoint=first.checkpoint), second)
        assert (caught.value.retry, second.checkpoint) == (False, {"calls": 2})
        assert gemini.count(route) == 2
        result = await run_job(connector, job(CAT, attempt=2, checkpoint=first.checkpoint))
    assert result.metadata["maybe_billed_before"] == 1


@forms
async def test_an_answer_that_does_not_come_may_have_run(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    route: Any = "create" if api == "interactions" else "generate"
    gemini.inject(route, delay=3600, after=True, status=200)
    context = FakeAttempt()
    async with open_gemini(gemini, connector_context, api=api, http={"read_timeout": 0.2}) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT), context)
    assert (caught.value.type, caught.value.retry, context.checkpoint) == ("timeout", True, {"calls": 1})
    assert gemini.count(route) == 1


@forms
async def test_a_call_that_has_not_run_does_not_count(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    route: Any = "create" if api == "interactions" else "generate"
    gemini.inject(route, status=429, word="RESOURCE_EXHAUSTED", headers={"retry-after": "600"})
    context = FakeAttempt()
    async with open_gemini(gemini, connector_context, api=api) as connector:
        with pytest.raises(ServiceError):
            await run_job(connector, job(CAT), context)
    assert context.checkpoint in (None, {"calls": 0})


@forms
@pytest.mark.parametrize(
    "script",
    [
        Script(images=0),
        Script(finish_reason="NO_IMAGE", status="failed", images=0),
        Script(data="!!!"),
        Script(data="PGh0bWw+"),
    ],
)
async def test_a_generation_without_a_image_is_made_once_more(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str, script: Script
) -> None:
    gemini.script = script
    context = FakeAttempt()
    async with open_gemini(gemini, connector_context, api=api) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT), context)
        assert (caught.value.retry, context.checkpoint) == (True, {"calls": 1})
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT, attempt=2, checkpoint=context.checkpoint))
    assert caught.value.retry is False
    assert gemini.billed == 2


# A server without interactions.


async def test_a_server_without_interactions_is_asked_the_other_way(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    gemini.inject("create", **NO_INTERACTIONS)
    async with open_gemini(gemini, connector_context) as connector:
        result = await run_job(connector, job(CAT | {"image": PNG}))
    sent = gemini.requests[-1].body["contents"][0]["parts"][1]
    assert sent == {"inlineData": {"mimeType": "image/png", "data": PNG}}
    assert result.data["approach"] == "generate_content"
    assert result.metadata["warnings"] == ["generateContent is used: this server has no interactions"]
    assert (gemini.count("create"), gemini.count("generate"), gemini.billed) == (1, 1, 1)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "INVALID_ARGUMENT"),
        (400, "FAILED_PRECONDITION"),
        (401, "UNAUTHENTICATED"),
        (402, "FAILED_PRECONDITION"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
async def test_no_other_failure_falls_through(
    gemini: FakeGemini, connector_context: ConnectorContext, status: int, word: str
) -> None:
    gemini.inject("create", status=status, word=word, times=9)
    async with open_gemini(gemini, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT))
    assert caught.value.status == status
    assert gemini.count("generate") == 0


@pytest.mark.parametrize("script", [Script(images=0, text="No."), Script(status="failed"), Script(images=0)])
async def test_nor_does_an_interaction_that_gives_no_image(
    gemini: FakeGemini, connector_context: ConnectorContext, script: Script
) -> None:
    gemini.script = script
    async with open_gemini(gemini, connector_context) as connector:
        with pytest.raises(ServiceError):
            await run_job(connector, job(CAT))
    assert (gemini.count("create"), gemini.count("generate"), gemini.billed) == (1, 0, 1)


@pytest.mark.parametrize(
    ("script", "code", "billed"),
    [
        (Script(block_reason="PROHIBITED_CONTENT"), "PROHIBITED_CONTENT", 0),
        (Script(finish_reason="IMAGE_SAFETY", images=0, finish_message="It shows a person."), "IMAGE_SAFETY", 1),
        (Script(images=0, text="I would rather not."), "no_image", 1),
    ],
)
async def test_a_refusal_is_final_and_asked_for_once(
    gemini: FakeGemini, connector_context: ConnectorContext, script: Script, code: str, billed: int
) -> None:
    gemini.script = script
    async with open_gemini(gemini, connector_context, api="generate_content") as connector:
        with pytest.raises(Refused) as caught:
            await run_job(connector, job(CAT))
    assert (caught.value.code, caught.value.retry) == (code, False)
    assert (script.finish_message or script.text or code) in caught.value.message
    assert (gemini.count("generate"), gemini.billed) == (1, billed)


async def test_a_deeply_nested_request_is_not_lost_when_it_is_paid(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    setting: Any = {}
    for _ in range(400):
        setting = {"thinkingBudget": setting}
    async with open_gemini(gemini, connector_context) as connector:
        result = await run_job(connector, job({"prompt": "a cat", "thinkingConfig": setting}), FakeAttempt())
    assert "<nested too deeply>" in str(result.raw_request_payload)
    assert len(gemini.generations) == 1


async def test_an_interaction_that_has_failed_is_not_looked_at_again(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    gemini.script = Script(status="failed", errors=[{"code": "INTERNAL", "message": "oops"}], seconds=3600)
    looks = 0
    async with open_gemini(gemini, connector_context) as connector, trio.open_nursery() as nursery:

        async def end() -> None:
            nonlocal looks
            await gemini.until("retrieve", 2)
            gemini.finish_all()
            looks = gemini.count("retrieve")

        nursery.start_soon(end)
        with pytest.raises(ServiceError, match="oops") as caught:
            await run_job(connector, job(CAT), FakeAttempt())
    assert caught.value.retry
    assert gemini.count("create") == 1
    assert gemini.count("retrieve") <= looks + 1


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "incomplete", "budget_exceeded"])
async def test_an_answer_to_the_very_first_call_is_the_answer(
    gemini: FakeGemini, connector_context: ConnectorContext, status: Literal["completed", "failed"]
) -> None:
    """As of servers that know no background; they may have nothing to ask for afterwards."""
    gemini.script = Script(status=status, seconds=0)
    async with open_gemini(gemini, connector_context) as connector:
        try:
            await run_job(connector, job(CAT), FakeAttempt())
        except ServiceError:
            assert status != "completed"
    assert (gemini.count("create"), gemini.count("retrieve")) == (1, 0)
