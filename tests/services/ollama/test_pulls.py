"""Downloads of models: for a job that needs one, and as a job of their own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.services.ollama.pulls import PullProgress
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.ollama import FakeOllama, Script
from tests.services.ollama.support import job, open_ollama

ALLOWED = "mistral, tinyllama ,"
PROMPT = {"prompt": "hello", "model": "tinyllama"}


@pytest.mark.parametrize("type", ["text_generation", "chat_completion"])
async def test_a_missing_model_that_may_be_pulled_is(
    ollama: FakeOllama, connector_context: ConnectorContext, type: str
) -> None:
    context = FakeAttempt()
    async with open_ollama(ollama.base_url, connector_context, auto_pull=ALLOWED) as connector:
        result = await run_job(connector, job(type, PROMPT), context)
    assert result.data["model_used"] == "tinyllama"
    route = "chat" if type == "chat_completion" else "generate"
    assert [request.route for request in ollama.requests] == [route, "pull", route]
    assert ollama.requests[1].body == {"model": "tinyllama", "stream": True}
    values = [report.value for report in context.reports]
    assert values == sorted(values)
    assert sum("downloading tinyllama" in report.message for report in context.reports) > 4


async def test_there_is_one_more_attempt_and_no_other(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.inject("generate", status=404, message="model 'tinyllama' not found", times=9)
    async with open_ollama(ollama.base_url, connector_context, auto_pull=ALLOWED) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job("text_generation", PROMPT))
    assert caught.value.reason == "model_not_found"
    assert (ollama.count("generate"), ollama.count("pull")) == (2, 1)


async def test_a_page_that_is_not_found_is_no_missing_model(
    ollama: FakeOllama, connector_context: ConnectorContext
) -> None:
    ollama.inject("generate", status=404, body=b"404 page not found")
    async with open_ollama(ollama.base_url, connector_context, auto_pull=ALLOWED) as connector:
        with pytest.raises(ServiceError, match="OLLAMA_BASE_URL"):
            await run_job(connector, job("text_generation", PROMPT))
    assert ollama.count("pull") == 0


async def test_a_download_as_a_job(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    async with open_ollama(ollama.base_url, connector_context, auto_pull=ALLOWED) as connector:
        result = await run_job(connector, job("ollama", {"operation": "pull", "model": "tinyllama:latest"}))
        assert "tinyllama:latest" in await connector.models()
    assert result.data == {"model_used": "tinyllama:latest", "status": "success", "downloaded_bytes": 823_000}


async def test_a_broken_download_goes_on_where_it_was(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.script = Script(cut_after=4)
    async with open_ollama(ollama.base_url, connector_context, auto_pull=ALLOWED) as connector:
        with pytest.raises(ServiceError, match="before its last event") as caught:
            await run_job(connector, job("text_generation", PROMPT))
        assert (caught.value.type, caught.value.retry) == ("network_error", True)
        ollama.script = Script()
        context = FakeAttempt()
        assert (await run_job(connector, job("text_generation", PROMPT, attempt=2), context)).success
    first = next(report for report in context.reports if "downloading" in report.message and report.value > 5)
    assert first.value > 25  # half of the largest file was there


async def test_a_download_without_the_word_success_is_none(
    ollama: FakeOllama, connector_context: ConnectorContext
) -> None:
    lines = 1 + 3 * 5 + 2 + 1  # manifest, files, verifying and writing, success
    ollama.script = Script(cut_after=lines - 1)
    async with open_ollama(ollama.base_url, connector_context, auto_pull=ALLOWED) as connector:
        with pytest.raises(ServiceError):
            await run_job(connector, job("ollama", {"operation": "pull", "model": "tinyllama"}))
    assert ollama.work[0].lines == lines - 1


@pytest.mark.parametrize(
    ("error", "kind", "reason", "retry"),
    [
        ("pull model manifest: file does not exist", "validation_error", "model_not_found", False),
        ("write /models/blobs: no space left on device", "resource_limit", "disk_space_full", True),
        ("max retries exceeded: unexpected EOF", "service_error", "service_down", True),
    ],
)
async def test_downloads_that_fail(
    ollama: FakeOllama, connector_context: ConnectorContext, error: str, kind: str, reason: str, retry: bool
) -> None:
    ollama.script = Script(error=error, error_after=1)
    async with open_ollama(ollama.base_url, connector_context, auto_pull=ALLOWED) as connector:
        with pytest.raises(ServiceError, match=error[:20]) as caught:
            await run_job(connector, job("text_generation", PROMPT))
    assert (caught.value.type, caught.value.reason, caught.value.retry) == (kind, reason, retry)
    assert ollama.generations == []


async def test_a_model_that_the_library_lacks(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    async with open_ollama(ollama.base_url, connector_context, auto_pull=ALLOWED) as connector:
        with pytest.raises(ServiceError, match="no model of that name") as caught:
            await run_job(connector, job("text_generation", PROMPT | {"model": "mistral"}))
    assert not caught.value.retry


async def test_a_silent_download_fails(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.script = Script(stall_after=3)
    async with open_ollama(ollama.base_url, connector_context, auto_pull=ALLOWED, pull_line_timeout=0.2) as connector:
        with pytest.raises(ServiceError, match=r"0\.2 s") as caught:
            await run_job(connector, job("text_generation", PROMPT))
    assert (caught.value.type, caught.value.retry) == ("timeout", True)


NUMBERS = st.integers(-5, 10**12) | st.none() | st.text(max_size=2) | st.booleans() | st.floats(allow_nan=True)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["pulling a", "verifying", "writing manifest"]) | st.none(),
        "digest": st.sampled_from(["sha256:a", "sha256:b", "sha256:c"]) | st.none(),
        "total": NUMBERS,
        "completed": NUMBERS,
    },
)


@given(st.lists(LINES, max_size=30))
def test_progress_stays_between_its_ends_and_never_goes_back(lines: list[dict[str, Any]]) -> None:
    pull, before = PullProgress(), 0.0
    for line in lines:
        pull.feed(line)
        assert before <= pull.share <= 1
        before = pull.share
    pull.feed({"status": "success"})
    assert pull.share == 1


def test_progress_is_the_share_of_all_known_files() -> None:
    pull = PullProgress()
    shares = []
    for digest, total, completed in [
        ("a", 100, None),
        ("a", 100, 50),
        ("b", 300, None),
        ("b", 300, 300),
        ("a", 100, 100),
    ]:
        pull.feed({"digest": digest, "total": total} | ({} if completed is None else {"completed": completed}))
        shares.append(pull.share)
    assert shares == [0, 0.5, 0.5, 0.875, 1]
    assert pull.bytes == 400
