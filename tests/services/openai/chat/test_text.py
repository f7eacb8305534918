"""``OpenAITextConnector``: chat completions, streamed."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InvalidJob, Refused, ServiceError
from emp_trio.services.openai.chat.call import ChatSettings
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.services.openai.chat.text_simple import OpenAITextSimpleConnector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import cut, event_stream, hang, open_faulty_server, reply
from emp_trio.testing.openai import FakeOpenAI, Script, StreamScript, ToolCall
from tests.services.openai.chat.support import completion, frame, open_text
from tests.services.support import job

PROMPT = {"prompt": "a tale"}


def text_connector(openai: FakeOpenAI, connector_context: ConnectorContext, **settings: Any) -> Any:
    return open_text(OpenAITextConnector, openai.base_url, connector_context, api_key=openai.api_key, **settings)


async def test_words_come_as_progress_and_then_as_the_result(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(text="Once upon a time there was a Fälscher.")
    context = FakeAttempt()
    async with text_connector(openai, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"system_prompt": "be brief"}), context)
    assert result.data["text"] == "Once upon a time there was a Fälscher."
    assert (result.data["content_type"], result.data["finish_reason"]) == ("text", "stop")
    assert result.data["tokens_used"] == result.data["usage"]["total_tokens"] == 50
    assert result.metadata["tokens"] == {"prompt": 20, "completion": 30, "total": 50}
    assert result.metadata["attempts"] == 1
    assert result.service_metadata["service_job_id"].startswith("chatcmpl-")
    assert result.service_metadata["request_ids"] == ["req_000001"]
    assert result.raw_request_payload == openai.requests[0].body
    assert "truncated" not in result.data
    assert openai.requests[0].body["messages"][0] == {"role": "system", "content": "be brief"}
    assert openai.requests[0].headers["x-client-request-id"] == "job-1-1"
    said = [report.message for report in context.reports]
    assert "Once upon" in [message.strip() for message in said]
    values = [report.value for report in context.reports]
    assert values == sorted(values)
    assert (values[0] > 0, values[-1]) == (True, 100)
    assert openai.billed == 1


@pytest.mark.parametrize("cls", [OpenAITextConnector, OpenAITextSimpleConnector])
@pytest.mark.parametrize("behavior", [("parts",), ("halves", "crlf"), ("bare_data", "parts"), ("same_index",)])
async def test_other_servers_are_understood_in_their_manners(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, behavior: Any
) -> None:
    text = "Once \U0001f431 upon \U0001f600."
    openai.script = Script(text=text, behavior=behavior, finish_reason="eos")
    async with open_text(cls, openai.base_url, connector_context, api_key=openai.api_key) as connector:
        result = await run_job(connector, job(PROMPT))
        assert (result.data["text"], result.data["finish_reason"]) == (text, "eos")
        assert "truncated" not in result.data
        openai.script = Script(text=text, behavior=behavior, finish_reason="abort")
        result = await run_job(connector, job(PROMPT))
        assert (result.data["text"], result.data["truncated"]) == (text, True)
        calls = [ToolCall(name="weather", arguments='{"city": "Berlin"}'), ToolCall(name="time", arguments="{}")]
        openai.script = Script(tool_calls=calls, behavior=behavior)
        tools = [{"type": "function", "function": {"name": call.name, "parameters": {}}} for call in calls]
        result = await run_job(connector, job(PROMPT | {"tools": tools, "reasoning_effort": "none"}))
    made = [(call["function"]["name"], call["function"]["arguments"]) for call in result.data["tool_calls"]]
    assert made == [(call.name, call.arguments) for call in calls]
    assert openai.billed == 3


async def test_progress_shows_the_end_of_a_long_answer(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(text=" ".join(f"word{n}" for n in range(300)))
    context = FakeAttempt()
    async with text_connector(openai, connector_context) as connector:
        result = await run_job(connector, job(PROMPT), context)
    assert result.data["text"] == openai.script.text
    last = context.reports[-2]
    assert last.message.startswith("…")
    assert last.message.endswith("word299")
    assert len(last.message) <= 201
    assert last.value < 90


async def test_noise_in_a_stream_is_ignored(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(text="quiet words", stream=StreamScript(noise=True))
    async with text_connector(openai, connector_context) as connector:
        assert (await run_job(connector, job(PROMPT))).data["text"] == "quiet words"


async def test_an_answer_cut_off_at_its_limit_is_a_result_that_says_so(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(status="incomplete", text="Once upon a")
    async with text_connector(openai, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"max_tokens": 5}))
    assert (result.data["text"], result.data["truncated"]) == ("Once upon a", True)
    assert result.data["finish_reason"] == "length"
    assert openai.requests[0].body["max_tokens"] == 5  # refused by the model, before anything was billed
    assert openai.requests[1].body["max_completion_tokens"] == 5
    assert result.raw_request_payload["max_completion_tokens"] == 5
    assert openai.billed == 1
    openai.violations.clear()


async def test_tool_calls_are_passed_on(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(tool_calls=[ToolCall(name="weather", arguments='{"city": "Berlin"}')])
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    async with text_connector(openai, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"tools": tools, "reasoning_effort": "none"}))
    assert result.data["finish_reason"] == "tool_calls"
    function = result.data["tool_calls"][0]["function"]
    assert function == {"name": "weather", "arguments": '{"city": "Berlin"}'}
    assert result.data["text"] == ""


async def test_json_is_asked_for_as_the_job_says(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with text_connector(openai, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"response_format": {"type": "json_object"}}))
    assert result.data["text"].startswith('{"answer":')
    assert openai.requests[0].body["response_format"] == {"type": "json_object"}


async def test_settings_hold_where_the_job_says_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    chat = ChatSettings(model="gpt-6.2-sol", max_tokens=99)
    account = {"organization": "org-1", "project": "proj-1"}
    async with text_connector(openai, connector_context, chat=chat, account=account) as connector:
        await run_job(connector, job(PROMPT))
        await run_job(connector, job(PROMPT | {"model": "gpt-6-luna"}))
    _, first, _, second = openai.requests
    assert (first.body["model"], first.body["max_completion_tokens"]) == ("gpt-6.2-sol", 99)
    openai.violations.clear()  # max_tokens, which this address can't be known to have left behind
    assert second.body["model"] == "gpt-6-luna"
    assert (first.headers["openai-organization"], first.headers["openai-project"]) == ("org-1", "proj-1")


async def test_what_was_left_out_is_in_the_result(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with text_connector(openai, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"messages": [{"role": "user", "content": "hi"}]}))
    assert "prompt is left out" in result.metadata["warnings"][0]


async def test_log_probabilities_are_asked_for_and_come_back(connector_context: ConnectorContext) -> None:
    tokens = [{"token": "hi", "logprob": -0.1, "bytes": None, "top_logprobs": []}]
    choices = [{"index": 0, "delta": {"content": "hi"}, "logprobs": {"content": tokens}, "finish_reason": "stop"}]
    stream = event_stream(frame(choices=choices))
    async with (
        open_faulty_server(stream) as faulty,
        open_text(OpenAITextConnector, faulty.url, connector_context) as connector,
    ):
        result = await run_job(connector, job(PROMPT | {"logprobs": True, "top_logprobs": 2, "user": "u"}))
    sent = msgspec.json.decode(faulty.requests[0].body)
    assert (sent["logprobs"], sent["top_logprobs"], sent["user"]) == (True, 2, "u")
    assert result.data["logprobs"] == {"content": tokens}
    assert "warnings" not in result.metadata


async def test_a_payload_without_words_costs_nothing(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with text_connector(openai, connector_context) as connector:
        with pytest.raises(InvalidJob):
            await run_job(connector, job({"system_prompt": "be brief"}))
    assert openai.requests == []


async def test_models_and_health(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with text_connector(openai, connector_context) as connector:
        assert await connector.models() == ["gpt-6-luna", "gpt-6.2-sol", "gpt-4.1"]
        assert (await connector.health()).healthy


async def test_the_last_day_of_its_model_is_known(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.shutdown_dates["gpt-4.1"] = "2027-01-14"
    async with text_connector(openai, connector_context, chat=ChatSettings(model="gpt-4.1")) as connector:
        assert await connector.retirements() == {"gpt-4.1": datetime.date(2027, 1, 14)}


# Refusals and failures.


@pytest.mark.parametrize(
    ("script", "quoted"),
    [
        (Script(refusal="I will not help with that."), "I will not help"),
        (Script(status="incomplete", incomplete_reason="content_filter", text="Onc"), "content filter"),
        (Script(stream=StreamScript(error={"code": "content_policy_violation", "message": "Not this."})), "Not this."),
    ],
)
async def test_refusals(openai: FakeOpenAI, connector_context: ConnectorContext, script: Script, quoted: str) -> None:
    openai.script = script
    context = FakeAttempt()
    async with text_connector(openai, connector_context) as connector:
        with pytest.raises(Refused, match=quoted) as caught:
            await run_job(connector, job(PROMPT), context)
    assert not caught.value.retry
    assert caught.value.request_id == "req_000001"
    assert (openai.billed, context.checkpoint) == (1, None)


@pytest.mark.parametrize(
    ("script", "kind", "retry"),
    [
        (Script(status="failed", text=""), "service_error", True),
        (
            Script(text="", stream=StreamScript(error={"code": "rate_limit_exceeded", "message": "m"})),
            "rate_limit",
            True,
        ),
        (Script(text="", stream=StreamScript(error={"code": "something_new", "message": "m"})), "service_error", False),
        (Script(stream=StreamScript(cut_after=3)), "network_error", True),
        (Script(stream=StreamScript(cut_after=0)), "network_error", True),
        (Script(text=""), "response_error", True),
        (Script(status="incomplete", text=""), "response_error", False),
    ],
)
async def test_failures(
    openai: FakeOpenAI, connector_context: ConnectorContext, script: Script, kind: str, retry: bool
) -> None:
    openai.script = script
    async with text_connector(openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT))
    error = caught.value
    assert (error.type, error.retry, error.maybe_started) == (kind, retry, True)
    assert error.request_id == "req_000001"
    assert error.message.startswith("POST http://")
    assert "request req_000001" in error.message
    assert (openai.count("chat"), openai.billed) == (1, 1)


@pytest.mark.parametrize(
    ("status", "code", "calls"),
    [
        (400, "invalid_value", 1),
        (401, "invalid_api_key", 1),
        (404, "model_not_found", 1),
        (429, "insufficient_quota", 1),
        (429, "rate_limit_exceeded", 4),
        (503, "server_is_overloaded", 4),
        (500, "server_error", 1),  # it may have run
    ],
)
async def test_only_calls_that_cannot_have_run_are_repeated(
    openai: FakeOpenAI, connector_context: ConnectorContext, status: int, code: str, calls: int
) -> None:
    openai.inject("chat", status=status, code=code, times=9)
    async with text_connector(openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT))
    assert (caught.value.status, openai.count("chat"), openai.billed) == (status, calls, 0)
    assert caught.value.request_id == f"req_{calls:06d}"


async def test_a_finished_answer_counts_though_its_usage_is_lost(connector_context: ConnectorContext) -> None:
    whole = frame({"content": "all of it"}), frame({}, "stop")
    stream, silent = event_stream(*whole), event_stream(*whole, end=False)
    broken = cut(event_stream(*whole, b": " + b"filler" * 1000), 2000)
    async with (
        open_faulty_server(stream, broken, silent) as faulty,
        open_text(OpenAITextConnector, faulty.url, connector_context, read_timeout=0.2) as connector,
    ):
        for _ in range(3):
            result = await run_job(connector, job(PROMPT))
            assert result.data["text"] == "all of it"
            assert result.data["tokens_used"] is None
        assert len(faulty.requests) == 3


DONE = b"data: [DONE]\n\n"
WORDS = frame({"content": "some"})
RATE = {"error": {"code": 429, "message": "the words"}}


@pytest.mark.parametrize(
    ("answer", "finish"),
    [
        (event_stream(WORDS, DONE), None),
        (event_stream(WORDS, frame({}, "")), ""),
        (event_stream(WORDS, frame({}, "abort"), DONE), "abort"),
        (event_stream(WORDS, frame({}, "insufficient_system_resource")), "insufficient_system_resource"),
        (event_stream(WORDS, b"data: " + msgspec.json.encode(RATE) + b"\n\n", DONE), "429"),
        (event_stream(WORDS, b'data: {"object": "error", "message": "the words", "code": "x"}\n\n'), "x"),
        (event_stream(WORDS, frame({}, "error", error={"code": 502, "message": "the words"})), "error"),
        (event_stream(WORDS, b'data: {"error": "the words"}\n\n'), "error"),
    ],
)
async def test_words_in_hand_are_not_paid_for_again(
    connector_context: ConnectorContext, answer: Any, finish: str | None
) -> None:
    async with (
        open_faulty_server(answer) as faulty,
        open_text(OpenAITextConnector, faulty.url, connector_context) as connector,
    ):
        result = await run_job(connector, job(PROMPT))
        assert len(faulty.requests) == 1
    assert (result.data["text"], result.data["truncated"], result.data["finish_reason"]) == ("some", True, finish)
    told = "the words" in str(result.metadata.get("warnings"))
    assert told is (finish in ("429", "x", "error"))


GOOD = frame({"content": "all of "}), frame({"content": "it"}, "stop")


@pytest.mark.parametrize("label", ["application/json", "text/plain", "text/html", ""])
@pytest.mark.parametrize(
    "body",
    [
        b"".join([*GOOD, DONE]),
        b"".join(GOOD).rstrip(),
        b"\xef\xbb\xbf: hi\r\n\r\ndata:\r\n\r\n" + b"".join([*GOOD, DONE]).replace(b"\n", b"\r\n"),
        b"".join([GOOD[0], b"data:\n\nevent: ping\ndata:\n\nid: 7\n\nretry: 5\n\n", GOOD[1]]),
        b"".join(line + b"\n" for line in b"".join([*GOOD, DONE]).split(b"\n\n")),
        b"".join([*GOOD]).replace(b"data: ", b"").replace(b"\n\n", b"\n"),
        msgspec.json.encode(completion("all of it")),
        b"data: " + msgspec.json.encode(completion("all of it")) + b"\n\n" + DONE,
        msgspec.json.format(msgspec.json.encode(completion("all of it")), indent=2).replace(b"null", b"NaN"),
        msgspec.json.encode([completion("all of it")]),
        msgspec.json.encode(completion("all of it") | {"choices": completion("all of it")["choices"][0]}),
        msgspec.json.encode(completion("all of it")).decode().encode("utf-16"),
        b"".join([*GOOD, DONE]).replace(b'"choices":[{', b'"choices":{').replace(b"}]", b"}"),
        b"".join([*GOOD, DONE]).replace(b'"delta"', b'"message"'),
        b"".join(
            [GOOD[0], frame(choices=[{"index": 0, "message": {"content": "all of it"}, "finish_reason": "stop"}])]
        ),
        b"".join([*GOOD, b'data: {"error": {"message": "too late"}}\n\n']),
        b"".join([*GOOD, b"data: {broken\n\n"]),
        b"".join(GOOD).replace(b'"finish_reason":"stop"', b'"finish_reason":{"type":"stop"}'),
    ],
)
async def test_an_answer_is_what_its_bytes_are(connector_context: ConnectorContext, label: str, body: bytes) -> None:
    for cls in (OpenAITextConnector, OpenAITextSimpleConnector):
        answer = reply(200, body, content_type=label)
        async with open_faulty_server(answer) as faulty, open_text(cls, faulty.url, connector_context) as connector:
            result = await run_job(connector, job(PROMPT))
            assert len(faulty.requests) == 1
        assert (result.data["text"], result.data["finish_reason"]) == ("all of it", "stop")
        assert "truncated" not in result.data


@pytest.mark.parametrize("cls", [OpenAITextConnector, OpenAITextSimpleConnector])
@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "the words", "code": 500}}',
        b'data: {"error": "the words"}',
        b'data: {"detail": [{"msg": "the words", "loc": ["x"]}]}',
        b'data: {"message": "the words", "code": 500}',
        b'event: error\ndata: {"message": "the words"}',
        b'event: error\ndata: {"type": "error", "message": "the words"}',
        b"event: error\ndata: the words",
        b'event: error\ndata: "the words"',
    ],
)
async def test_an_error_in_the_stream_takes_no_words_away(
    connector_context: ConnectorContext, cls: Any, event: bytes
) -> None:
    for label in ("text/event-stream", "application/json"):
        kept = reply(200, WORDS + event + b"\n\n", content_type=label)
        async with open_faulty_server(kept) as faulty, open_text(cls, faulty.url, connector_context) as connector:
            result = await run_job(connector, job(PROMPT))
            assert len(faulty.requests) == 1
        assert (result.data["text"], result.data["truncated"]) == ("some", True)
        assert "the words" in str(result.metadata["warnings"])
        alone = reply(200, event + b"\n\n", content_type=label)
        async with open_faulty_server(alone) as faulty, open_text(cls, faulty.url, connector_context) as connector:
            with pytest.raises(ServiceError, match="the words"):
                await run_job(connector, job(PROMPT))


@pytest.mark.parametrize("cls", [OpenAITextConnector, OpenAITextSimpleConnector])
@pytest.mark.parametrize("label", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    ("body", "kind", "retry"),
    [
        (b'{"error": {"message": "Out of credits", "code": 402}}', "rate_limit", False),
        (b'{"error": "Flagged", "code": "moderation"}', "generation_refusal", False),
        (b'data: {"object": "error", "message": "Bad model", "code": 400}\n\n', "validation_error", False),
        (b'{"detail": "Not today"}', "service_error", False),
        (b'{"message": "Slow down", "code": 429}', "rate_limit", True),
    ],
)
async def test_an_error_with_a_good_status_is_one(
    connector_context: ConnectorContext, cls: Any, label: str, body: bytes, kind: str, retry: bool
) -> None:
    answer = reply(200, body, content_type=label)
    async with open_faulty_server(answer) as faulty, open_text(cls, faulty.url, connector_context) as connector:
        with pytest.raises(ServiceError, match=r"Out of|Flagged|Bad model|Not today|Slow down") as caught:
            await run_job(connector, job(PROMPT))
        assert len(faulty.requests) == 1
    assert (caught.value.type, caught.value.retry) == (kind, retry)


async def test_half_a_character_is_never_in_progress_or_result(connector_context: ConnectorContext) -> None:
    pieces = [b'"a\\ud83d"', b'"\\ude00"', b'"b\xed\xa0\xbd"', b'"\xed\xb8\x80"', b'"c\\ud83d"']
    frames = [b'data: {"choices": [{"index": 0, "delta": {"content": ' + piece + b"}}]}\n\n" for piece in pieces]
    context = FakeAttempt()
    async with (
        open_faulty_server(event_stream(*frames, frame({}, "stop"))) as faulty,
        open_text(OpenAITextConnector, faulty.url, connector_context) as connector,
    ):
        result = await run_job(connector, job(PROMPT), context)
    assert result.data["text"] == "a\U0001f600b\U0001f600c\ufffd"
    msgspec.json.encode([result.data, [report.message for report in context.reports]])
    assert "a\U0001f600b\ufffd" in [report.message for report in context.reports]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (event_stream(frame({"content": " "}), b"data: [DONE]\n\n"), "network_error"),
        (event_stream(frame({"content": "some"})), "network_error"),
        (event_stream(b"data: [DONE]\n\n"), "network_error"),
        (event_stream(), "network_error"),
        (event_stream(frame({"content": "some"}), b"data: {half\n\n", end=False), "response_error"),
        (reply(200, b"<html>", content_type="text/html"), "response_error"),
        (reply(200, json={"choices": []}), "response_error"),
        (event_stream(frame({"content": "some"}), end=False), "timeout"),
        (hang(), "timeout"),
    ],
)
async def test_a_stream_without_a_finish_reason_is_no_answer(
    connector_context: ConnectorContext, answer: Any, kind: str
) -> None:
    async with (
        open_faulty_server(answer) as faulty,
        open_text(OpenAITextConnector, faulty.url, connector_context, read_timeout=0.2) as connector,
    ):
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT))
        assert caught.value.maybe_started
        assert caught.value.retry
        assert len(faulty.requests) == 1
    assert caught.value.type in (kind, "network_error")
