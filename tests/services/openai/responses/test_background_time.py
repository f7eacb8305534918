"""How long and how often a background response is waited for, in virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job
from emp_trio.protocols.polling import PollingSettings
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import POLLING
from emp_trio.settings import setting_fields
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.openai import FakeOpenAI, Script
from tests.services.openai.support import open_openai, payload_for, statuses
from tests.services.support import job


class NoAssets:
    """Assets without threads, in which virtual time would run away."""

    def check(self, job: Job) -> None: ...

    async def kept(self, job: Job) -> None:
        await trio.lowlevel.checkpoint()


DEFAULTS: dict[type[Any], PollingSettings] = {
    OpenAIResponsesConnector: PollingSettings(interval=5.0, attempts=60, errors_in_a_row=4),
    OpenAIText2ImgConnector: POLLING,
}


async def unfinished(openai: FakeOpenAI, cls: type[Any], polling: PollingSettings) -> tuple[ServiceError, float]:
    """Wait for a response that is never finished; the error, and after how many seconds it came."""
    openai.script = Script(seconds=36_000)
    connector_context: Any = ConnectorContext(assets=NoAssets())  # type: ignore[arg-type]
    async with open_openai(cls, openai, connector_context, own={"polling": polling}) as connector:
        began = trio.current_time()
        with pytest.raises(ServiceError, match=r"was not finished within .* and was cancelled") as caught:
            await run_job(connector, job(payload_for(cls)), FakeAttempt(3600))
    assert statuses(openai) == ["cancelled"]
    assert openai.count("cancel") == 1
    return caught.value, trio.current_time() - began


@pytest.mark.parametrize("cls", DEFAULTS)
def test_the_defaults(cls: type[Any]) -> None:
    flat = {field.name: field.default for field in setting_fields(cls.Settings)}
    assert {name: flat[name] for name in ("interval", "attempts", "errors_in_a_row")} == msgspec.structs.asdict(
        DEFAULTS[cls]
    )


async def test_a_response_is_looked_at_every_five_seconds_as_long_as_sixty_looks_take(
    openai: FakeOpenAI, autojump_clock: MockClock
) -> None:
    error, seconds = await unfinished(openai, OpenAIResponsesConnector, DEFAULTS[OpenAIResponsesConnector])
    assert (error.type, error.reason) == ("timeout", "processing_timeout")
    early = 4  # at 0.3, 1, 2 and 4 s
    assert openai.count("retrieve") == early + 60 + 1  # and a last time after the cancel
    assert seconds == pytest.approx(59 * 5, abs=1)


async def test_a_image_is_looked_for_ever_more_rarely(openai: FakeOpenAI, autojump_clock: MockClock) -> None:
    _, seconds = await unfinished(openai, OpenAIText2ImgConnector, POLLING)
    assert seconds == pytest.approx(300, abs=1)
    assert openai.count("retrieve") == pytest.approx(2 + 10 / 2 + 50 / 3 + 240 / 5, abs=3)  # with those at 0.3 and 1 s


@pytest.mark.parametrize("cls", DEFAULTS)
@pytest.mark.parametrize(("took", "seen"), [(0.2, 0.3), (0.4, 1), (1.9, 2), (2.5, 4)])
async def test_a_quick_answer_is_not_waited_for_an_interval(
    openai: FakeOpenAI, autojump_clock: MockClock, cls: type[Any], took: float, seen: float
) -> None:
    openai.script = Script(seconds=took, status="failed")  # the end of a job without threads
    connector_context: Any = ConnectorContext(assets=NoAssets())  # type: ignore[arg-type]
    async with open_openai(cls, openai, connector_context, own={"polling": DEFAULTS[cls]}) as connector:
        began = trio.current_time()
        with pytest.raises(ServiceError):
            await run_job(connector, job(payload_for(cls)), FakeAttempt(3600))
    assert trio.current_time() - began == pytest.approx(seen, abs=0.05)


@pytest.mark.parametrize("cls", DEFAULTS)
@pytest.mark.parametrize("code", ["server_error", "rate_limit_exceeded", "invalid_image", "moderation_blocked", "new"])
async def test_a_response_that_has_failed_is_not_looked_at_again(
    openai: FakeOpenAI, autojump_clock: MockClock, cls: type[Any], code: str
) -> None:
    openai.script = Script(seconds=0.1, status="failed", error={"code": code, "message": "It broke."})
    connector_context: Any = ConnectorContext(assets=NoAssets())  # type: ignore[arg-type]
    async with open_openai(cls, openai, connector_context, own={"polling": DEFAULTS[cls]}) as connector:
        with pytest.raises(ServiceError, match=r"It broke\.") as caught:
            await run_job(connector, job(payload_for(cls)), FakeAttempt(3600))
    assert caught.value.retry is (code in ("server_error", "rate_limit_exceeded"))
    assert openai.count("retrieve") == 2  # at 0 and at 0.3 s


@pytest.mark.parametrize("cls", DEFAULTS)
@pytest.mark.parametrize(("header", "value"), [("retry-after", "20"), ("retry-after-ms", "20000")])
async def test_the_service_may_ask_for_longer_pauses(
    openai: FakeOpenAI, autojump_clock: MockClock, cls: type[Any], header: str, value: str
) -> None:
    openai.headers[header] = value
    _, seconds = await unfinished(openai, cls, DEFAULTS[cls])
    assert seconds == pytest.approx(300, abs=1)
    assert openai.count("retrieve") == pytest.approx(300 / 20, abs=2)


async def test_a_pause_that_a_failed_look_asks_for_is_kept(openai: FakeOpenAI, autojump_clock: MockClock) -> None:
    openai.inject("retrieve", status=429, code="rate_limit_exceeded", headers={"retry-after": "60"}, times=2)
    await unfinished(openai, OpenAIResponsesConnector, DEFAULTS[OpenAIResponsesConnector])
    assert openai.count("retrieve") == pytest.approx(2 + 180 / 5, abs=2)


async def test_hints_shorter_than_the_interval_do_not_hurry(openai: FakeOpenAI, autojump_clock: MockClock) -> None:
    openai.headers["retry-after-ms"] = "100"
    _, seconds = await unfinished(openai, OpenAIResponsesConnector, DEFAULTS[OpenAIResponsesConnector])
    assert seconds == pytest.approx(59 * 5, abs=1)
