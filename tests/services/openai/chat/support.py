"""The text connectors, opened against a service, and the frames of a streamed completion."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.jobs import Job
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.limits import LimitsSettings
from emp_trio.secrets import Secret
from emp_trio.services.connector import open_connector
from emp_trio.services.openai.chat.call import ChatSettings
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.services.openai.chat.text_simple import OpenAITextSimpleConnector
from emp_trio.services.openai.settings import AccountSettings
from emp_trio.testing.attempt import FakeAttempt, run_job

KEY = Secret("sk-fake-0123456789abcdef")

both = pytest.mark.parametrize("cls", [OpenAITextConnector, OpenAITextSimpleConnector])


@asynccontextmanager
async def open_text(
    cls: type[Any],
    base_url: str,
    connector_context: ConnectorContext,
    *,
    api_key: Secret = KEY,
    chat: ChatSettings | None = None,
    limits: LimitsSettings | None = None,
    account: dict[str, Any] | None = None,
    **http: Any,
) -> AsyncIterator[Any]:
    """Open ``cls`` on ``base_url``. Keywords go to ``HttpSettings``, ``account`` to ``AccountSettings``."""
    given: dict[str, Any] = {"base_url": base_url, "retry_delay": 0.01} | http
    settings = cls.Settings(
        openai=AccountSettings(**({"api_key": api_key} | (account or {}))),
        http=HttpSettings(**given),
        chat=chat or ChatSettings(),
        limits=limits or LimitsSettings(),
    )
    async with open_connector(cls, settings, connector_context) as connector:
        yield connector


class Listener(FakeAttempt):
    """A reporter; ``spoke`` is set once words of an answer have come."""

    def __init__(self, seconds: float = 30.0, **options: Any) -> None:
        super().__init__(seconds, **options)
        self.spoke = trio.Event()

    def report(self, value: float, message: str = "", *, step: str = "", total_steps: int = 0) -> None:
        super().report(value, message, step=step, total_steps=total_steps)
        if value >= 20:
            self.spoke.set()


async def cut_short(connector: Any, attempt: Job, reporter: Listener) -> None:
    """Run an attempt until words of its answer have come, then end it from outside."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, attempt, reporter)
            await reporter.spoke.wait()
            nursery.cancel_scope.cancel()


def frame(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One chunk of a streamed completion."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-6-luna", "choices": choices} | more
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def completion(text: str) -> dict[str, Any]:
    """A whole completion."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, "refusal": None}}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-6-luna", "choices": [choice]}
