"""Every failure that Ollama documents, and what the job gets of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.services.ollama.answers import read_embeddings
from emp_trio.services.ollama.errors import describe_error
from emp_trio.testing.attempt import run_job
from emp_trio.testing.faulty_server import Answer, Exchange, cut, event_stream, hang, open_faulty_server, raw, reply
from emp_trio.testing.ollama import FakeOllama, Script
from tests.services.ollama.support import job, open_ollama

TEXT = {"prompt": "hello"}
LONG = {"prompt": "word " * 50, "truncate": False, "context_length": 10}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
NDJSON = "application/x-ndjson"

# Answers to a request that is refused as it comes: type, payload, and what is expected.
REFUSALS = [
    ("text_generation", TEXT | {"model": "nope"}, "validation_error", "model_not_found", "OLLAMA_AUTO_PULL"),
    ("chat_completion", TEXT | {"model": "nope:7b"}, "validation_error", "model_not_found", "ollama pull"),
    ("embeddings", {"input": "a", "model": "nope"}, "validation_error", "model_not_found", "OLLAMA_AUTO_PULL"),
    ("text_generation", LONG, "validation_error", "invalid_payload", "shorten the input"),
    ("embeddings", LONG | {"model": "nomic-embed-text"}, "validation_error", "invalid_payload", "context_length"),
    (
        "text_generation",
        TEXT | {"model": "nomic-embed-text"},
        "validation_error",
        "unsupported_operation",
        "model that",
    ),
    ("embeddings", {"input": "a"}, "validation_error", "unsupported_operation", "does not support embedding"),
    ("text_generation", TEXT | {"think": True}, "validation_error", "unsupported_operation", "thinking"),
    (
        "chat_completion",
        TEXT | {"model": "nomic-embed-text", "tools": TOOLS},
        "validation_error",
        "unsupported_operation",
        "does not support",
    ),
    ("text_generation", TEXT | {"temperature": "hot"}, "validation_error", "invalid_payload", "temperature"),
    ("text_generation", TEXT | {"keep_alive": "soon"}, "validation_error", "invalid_payload", "duration"),
    ("text_generation", TEXT | {"format": "xml"}, "validation_error", "invalid_payload", "format"),
    (
        "chat_completion",
        {"messages": [{"role": "boss", "content": "x"}]},
        "validation_error",
        "invalid_payload",
        "role",
    ),
    (
        "chat_completion",
        {"messages": [{"role": "user", "content": []}]},
        "validation_error",
        "invalid_payload",
        "array",
    ),
]


@pytest.mark.parametrize(("type", "payload", "kind", "reason", "says"), REFUSALS)
async def test_what_ollama_refuses_is_not_tried_again(
    ollama: FakeOllama,
    connector_context: ConnectorContext,
    type: str,
    payload: dict[str, Any],
    kind: str,
    reason: str,
    says: str,
) -> None:
    async with open_ollama(ollama.base_url, connector_context) as connector:
        with pytest.raises(ServiceError, match=says) as caught:
            await run_job(connector, job(type, payload))
    error = caught.value
    assert (error.type, error.reason, error.retry) == (kind, reason, False)
    assert (len(ollama.requests), ollama.work) == (1, [])


# Error answers: status, text, further members, and type, reason, retry, tries.
ANSWERS = [
    (400, "invalid JSON", "validation_error", "invalid_payload", False, 1),
    (401, "unauthorized", "auth_error", "invalid_api_key", False, 1),
    (403, "forbidden", "auth_error", "insufficient_permissions", False, 1),
    (404, "model 'llama3.2' not found, try pulling it first", "validation_error", "model_not_found", False, 1),
    (408, "timed out", "timeout", "network_timeout", True, 4),
    (429, "you have reached your hourly usage limit", "rate_limit", "requests_per_minute", True, 4),
    (500, "unexpected server status: 1", "service_error", "service_down", True, 1),
    (500, "llama runner process has terminated: exit status 2", "service_error", "service_down", True, 1),
    (500, "model requires more system memory (9 GiB) than is available", "resource_limit", "out_of_memory", True, 1),
    (500, "cudaMalloc failed: out of memory", "resource_limit", "gpu_memory_full", True, 1),
    (500, "the input length exceeds the context length", "validation_error", "invalid_payload", False, 1),
    (502, "the remote model is unreachable", "service_error", "service_down", True, 1),
    (503, "server busy, please try again. maximum pending requests exceeded", "service_error", "service_unavailable",
     True, 4),
    (504, "upstream timed out", "service_error", "service_down", True, 1),
]  # fmt: skip


@pytest.mark.parametrize(("status", "text", "kind", "reason", "retry", "tries"), ANSWERS)
async def test_error_answers(
    ollama: FakeOllama,
    connector_context: ConnectorContext,
    status: int,
    text: str,
    kind: str,
    reason: str,
    retry: bool,
    tries: int,
) -> None:
    ollama.inject("generate", status=status, message=text, times=9)
    async with open_ollama(ollama.base_url, connector_context, http={"retry_delay": 0.001}) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job("text_generation", TEXT))
    error = caught.value
    assert (error.type, error.reason, error.retry, error.status) == (kind, reason, retry, status)
    assert text[:40] in error.message
    assert "/api/generate" in error.message
    assert ollama.count("generate") == tries
    assert ollama.generations == []


async def test_embeddings_are_asked_for_again_after_any_fault(
    ollama: FakeOllama, connector_context: ConnectorContext
) -> None:
    ollama.inject("embed", status=500, times=2)
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job("embeddings", {"input": "a", "model": "nomic-embed-text"}))
    assert result.success
    assert ollama.count("embed") == 3


async def test_a_full_queue_is_waited_for(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.inject("generate", status=503, message="server busy", times=2)
    async with open_ollama(ollama.base_url, connector_context) as connector:
        assert (await run_job(connector, job("text_generation", TEXT))).success
    assert len(ollama.generations) == 1


# Streams that go wrong after a 200: script, and type, reason, retry.
STREAMS = [
    (Script(error="an unknown error was encountered while running the model"), "service_error", "service_down", True),
    (
        Script(error="model runner has unexpectedly stopped", error_after=3, thinking="a b c d"),
        "service_error",
        "service_down",
        True,
    ),
    (
        Script(error="CUDA error: out of memory", error_after=1, thinking="hm hm"),
        "resource_limit",
        "gpu_memory_full",
        True,
    ),
    (Script(error="prompt too long; exceeded max context length by 9"), "validation_error", "invalid_payload", False),
    (Script(cut_after=4), "network_error", "connection_failed", True),
    (Script(cut_after=0), "network_error", "connection_failed", True),
    (Script(text=""), "response_error", "missing_expected_data", True),
    (Script(text=" \n", thinking="hm"), "response_error", "missing_expected_data", True),
    (Script(text="", thinking="hm", done_reason="length"), "response_error", "missing_expected_data", False),
]


@pytest.mark.parametrize(("script", "kind", "reason", "retry"), STREAMS)
@pytest.mark.parametrize("type", ["text_generation", "chat_completion"])
async def test_streams_that_go_wrong(
    ollama: FakeOllama,
    connector_context: ConnectorContext,
    type: str,
    script: Script,
    kind: str,
    reason: str,
    retry: bool,
) -> None:
    ollama.script = script
    async with open_ollama(ollama.base_url, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(type, TEXT))
    assert (caught.value.type, caught.value.reason, caught.value.retry) == (kind, reason, retry)
    if script.error:
        assert script.error[:30] in caught.value.message
    assert len(ollama.generations) == 1


@pytest.mark.parametrize("type", ["text_generation", "chat_completion"])
async def test_words_in_hand_are_kept_though_an_error_follows(
    ollama: FakeOllama, connector_context: ConnectorContext, type: str
) -> None:
    ollama.script = Script(text="some words more", error="model runner has unexpectedly stopped", error_after=2)
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job(type, TEXT))
    assert (result.data["text"], result.data["truncated"], result.data["done_reason"]) == ("some words", True, "error")
    assert "unexpectedly stopped" in str(result.metadata["warnings"])
    assert (len(ollama.generations), len(result.output_files)) == (1, 1)


GOOD = b'{"model":"m","response":"Hi","done":false}\n'
LAST = b'{"done":true,"done_reason":"stop"}\n'
ERRORS = [
    b'{"error":"boom"}',
    b'{"error":{"message":"boom","code":5}}',
    b'{"response":"","error":"boom","done":true}',
    b'{"detail":"boom"}',
    b'{"message":"boom","status":"error"}',
    b'{"object":"error","message":"boom"}',
]


@pytest.mark.parametrize("error", ERRORS)
async def test_errors_of_gateways_are_told_and_take_nothing_away(
    connector_context: ConnectorContext, error: bytes
) -> None:
    answers = reply(200, error + b"\n", content_type=NDJSON), reply(200, GOOD + error, content_type=NDJSON)
    async with open_faulty_server(*answers) as faulty, open_ollama(faulty.url, connector_context) as connector:
        with pytest.raises(ServiceError, match="boom"):
            await run_job(connector, job("text_generation", TEXT))
        result = await run_job(connector, job("text_generation", TEXT))
        assert len(faulty.requests) == 2
    assert (result.data["text"], result.data["truncated"]) == ("Hi", True)
    assert "boom" in str(result.metadata["warnings"])


@pytest.mark.parametrize(
    "body",
    [
        GOOD + LAST.replace(b"true", b'"true"'),
        GOOD + b'{"done_reason":"stop"}',
        b"[" + GOOD.strip() + b"," + LAST.strip() + b"]",
        b'{"message":"Hi"}\n' + LAST,
        b'{"response":null,"thinking":"hm"}\n' + GOOD + LAST,
        GOOD.replace(b"}", b',"rate":NaN}') + LAST.replace(b"}", b',"eval_count":Infinity}'),
        b"\xef\xbb\xbf\r\n" + (GOOD + b" \n" + LAST).replace(b"\n", b"\r\n"),
    ],
)
async def test_lines_in_other_manners(connector_context: ConnectorContext, body: bytes) -> None:
    answer = reply(200, body, content_type=NDJSON)
    async with open_faulty_server(answer) as faulty, open_ollama(faulty.url, connector_context) as connector:
        for kind in ("text_generation", "chat_completion"):
            result = await run_job(connector, job(kind, TEXT))
            assert (result.data["text"], "truncated" in result.data) == ("Hi", False)
        assert len(faulty.requests) == 2


async def test_what_says_nothing_of_the_kind_is_quoted(connector_context: ConnectorContext) -> None:
    answer = reply(200, json={"choices": [{"message": {"content": "hello"}}]})
    async with open_faulty_server(answer) as faulty, open_ollama(faulty.url, connector_context) as connector:
        with pytest.raises(ServiceError, match=r"nothing of Ollama's.*hello") as caught:
            await run_job(connector, job("text_generation", TEXT))
    assert not caught.value.retry


@pytest.mark.parametrize("error", [b"null", b'""', b"false", b"[]"])
async def test_an_empty_error_is_none(connector_context: ConnectorContext, error: bytes) -> None:
    lines = GOOD.replace(b"}", b',"error":' + error + b"}") + b'{"done":true,"done_reason":"stop","error":null}\n'
    answer = reply(200, lines, content_type=NDJSON)
    async with open_faulty_server(answer) as faulty, open_ollama(faulty.url, connector_context) as connector:
        result = await run_job(connector, job("text_generation", TEXT))
    assert (result.data["text"], "truncated" in result.data) == ("Hi", False)


# What is no Ollama at all, or a broken one.
ROGUES = [
    (reply(200, "<html>\nhello\n</html>", content_type="text/html"), "response_error", "invalid_response_format"),
    (reply(200, b'{"model": "m", "resp', content_type=NDJSON), "network_error", "connection_failed"),
    (reply(200, b"[1, 2]\n", content_type=NDJSON), "response_error", "invalid_response_format"),
    (reply(200, b"", content_type=NDJSON), "network_error", "connection_failed"),
    (cut(reply(200, GOOD * 9, content_type=NDJSON), at=200), "network_error", "connection_failed"),
    (cut(reply(200, GOOD * 9, content_type=NDJSON), at=200, reset=True), "network_error", "connection_failed"),
    (reply(404, "404 page not found"), "validation_error", "unsupported_operation"),
    (reply(502, "<html>Bad Gateway</html>", content_type="text/html"), "service_error", "service_down"),
    (raw(b"SSH-2.0-OpenSSH\r\n"), "network_error", "connection_failed"),
]


@pytest.mark.parametrize(("answer", "kind", "reason"), ROGUES)
async def test_what_is_no_ollama(connector_context: ConnectorContext, answer: Answer, kind: str, reason: str) -> None:
    async with (
        open_faulty_server(answer) as faulty,
        open_ollama(faulty.url, connector_context, http={"max_retries": 0}) as connector,
    ):
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job("text_generation", TEXT))
    assert (caught.value.type, caught.value.reason) == (kind, reason)


async def test_nobody_there(connector_context: ConnectorContext) -> None:
    async with open_faulty_server(hang()) as faulty:
        url = faulty.url
    async with open_ollama(url, connector_context, http={"retry_delay": 0.001}) as connector:
        with pytest.raises(ServiceError, match="after 4 tries") as caught:
            await run_job(connector, job("text_generation", TEXT))
    assert (caught.value.type, caught.value.retry) == ("network_error", True)
    assert not caught.value.maybe_started


async def test_a_model_that_takes_too_long_to_load(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.script = Script(load=3600)
    async with open_ollama(ollama.base_url, connector_context, http={"timeout": 0.2}) as connector:
        with pytest.raises(ServiceError, match=r"nothing for 0\.2 s .*OLLAMA_TIMEOUT_SECONDS") as caught:
            await run_job(connector, job("text_generation", TEXT))
    assert (caught.value.type, caught.value.retry) == ("timeout", True)


async def test_a_model_that_falls_silent(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.script = Script(stall_after=2)
    async with open_ollama(ollama.base_url, connector_context, line_timeout=0.2) as connector:
        with pytest.raises(ServiceError, match=r"nothing more for 0\.2 s") as caught:
            await run_job(connector, job("text_generation", TEXT))
        await ollama.until_true(lambda: ollama.work[0].end == "dropped")
    assert (caught.value.type, caught.value.retry) == ("timeout", True)


async def test_a_long_answer_may_take_longer_than_any_single_wait(
    ollama: FakeOllama, connector_context: ConnectorContext
) -> None:
    ollama.script = Script(pause=0.05, text="word " * 12)
    async with open_ollama(ollama.base_url, connector_context, line_timeout=0.4, http={"timeout": 0.4}) as connector:
        assert (await run_job(connector, job("text_generation", TEXT))).success


BAD_EMBEDDINGS: list[Any] = [
    {},
    {"embeddings": []},
    {"embeddings": [[]]},
    {"embeddings": [[1, 2], [3, 4]]},
    {"embeddings": [["a"]]},
    {"embeddings": None},
    {"embeddings": [None]},
    {"embeddings": [[1, None]]},
    {"embedding": None},
    {"embedding": []},
    {"embeddings": None, "embedding": None},
    {"data": [{"embedding": None}]},
    [],
    None,
]


@pytest.mark.parametrize("answer", BAD_EMBEDDINGS)
async def test_embeddings_that_are_none(connector_context: ConnectorContext, answer: Any) -> None:
    async with (
        open_faulty_server(reply(200, json=answer)) as faulty,
        open_ollama(faulty.url, connector_context) as connector,
    ):
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job("embeddings", {"input": "a"}))
    assert caught.value.type == "response_error"
    assert len(faulty.requests) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"embeddings": None}, "'embeddings' is null"),
        ({"embeddings": []}, "'embeddings' is empty"),
        ({"embedding": None, "embeddings": []}, "'embeddings' is empty and 'embedding' is null"),
        ({"model": "m"}, "no such member"),
        ({"embeddings": [[1, None]]}, "'embeddings' of the answer"),
    ],
)
def test_embeddings_that_are_missing_are_named(answer: Any, words: str) -> None:
    with pytest.raises(ServiceError, match=words):
        read_embeddings(answer, count=1)


@pytest.mark.parametrize(
    "answer",
    [
        {"embeddings": [[1, 2.5]]},
        {"embeddings": [1, 2.5]},
        {"embedding": [1, 2.5]},
        {"embedding": [[1, 2.5]]},
        {"embeddings": None, "embedding": [1, 2.5]},
        {"embedding": None, "embeddings": [[1, 2.5]]},
        {"data": [{"embedding": [1, 2.5], "index": 0}]},
    ],
)
def test_embeddings_are_found_where_they_are(answer: Any) -> None:
    assert read_embeddings(answer, count=1) == [[1.0, 2.5]]


async def test_a_stream_that_goes_on_after_its_last_line_is_left(connector_context: ConnectorContext) -> None:
    last = b'{"model":"m","response":"","done":true,"done_reason":"stop"}\n'
    endless = event_stream(GOOD, last, end=False, content_type=NDJSON)
    async with open_faulty_server(endless) as faulty, open_ollama(faulty.url, connector_context) as connector:
        assert (await run_job(connector, job("text_generation", TEXT))).data["text"] == "Hi"


@pytest.mark.parametrize(
    "piece", [{"response": "la " * 10_000}, {"thinking": "la " * 10_000}, {"tool_calls": [["x" * 30_000]]}]
)
async def test_an_answer_without_end_is_left(connector_context: ConnectorContext, piece: dict[str, Any]) -> None:
    line = msgspec.json.encode({"model": "m", "done": False} | piece) + b"\n"

    async def endless(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 X\r\ncontent-type: application/x-ndjson\r\n\r\n")
        while True:
            await exchange.send(line)

    async with open_faulty_server(endless) as faulty, open_ollama(faulty.url, connector_context) as connector:
        with trio.fail_after(60):
            with pytest.raises(ServiceError, match="num_predict") as caught:
                await run_job(connector, job("text_generation", {"prompt": "sing"}))
            await faulty.emptied()
    assert (caught.value.retry, caught.value.maybe_started) == (False, True)


BAD_PAYLOADS: list[tuple[str, Any, str]] = [
    ("text_generation", {}, "missing_required_field"),
    ("text_generation", {"prompt": ""}, "missing_required_field"),
    ("text_generation", {"prompt": "x", "model": 7}, "invalid_format"),
    ("text_generation", {"prompt": "x", "options": []}, "invalid_format"),
    ("text_generation", {"prompt": "x", "images": "abc"}, "invalid_format"),
    ("chat_completion", {}, "missing_required_field"),
    ("chat_completion", {"messages": []}, "invalid_format"),
    ("chat_completion", {"messages": ["hi"]}, "invalid_format"),
    ("chat_completion", {"messages": [{"role": "user", "content": "x", "images": 5}]}, "invalid_format"),
    ("chat_completion", {"messages": [{"role": "system", "content": "x"}], "images": ["a"]}, "missing_required_field"),
    ("embeddings", {}, "missing_required_field"),
    ("embeddings", {"input": ["a", ""]}, "invalid_format"),
    ("ollama", {"prompt": "x", "operation": "delete"}, "unsupported_operation"),
    ("ollama", {"prompt": "x", "operation": ["chat"]}, "unsupported_operation"),
    ("ollama", {"operation": "pull", "model": "tinyllama"}, "unsupported_operation"),
]


@pytest.mark.parametrize(("type", "payload", "reason"), BAD_PAYLOADS)
async def test_a_payload_that_asks_for_nothing_costs_nothing(
    ollama: FakeOllama, connector_context: ConnectorContext, type: str, payload: dict[str, Any], reason: str
) -> None:
    async with open_ollama(ollama.base_url, connector_context) as connector:
        with pytest.raises(InvalidJob) as caught:
            await run_job(connector, job(type, payload))
    assert (caught.value.reason, caught.value.retry) == (reason, False)
    assert ollama.requests == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"error": null}', b"\xff", b'{"error": ' + b"[" * 9999])
def test_an_error_body_of_any_kind_is_an_error_of_its_status(body: bytes) -> None:
    error = describe_error(500, {}, body)
    assert (error.status, error.type, error.retry) == (500, "service_error", True)
    assert "500" in error.message


def test_a_sign_in_address_is_left_out() -> None:
    body = msgspec.json.encode({"error": "unauthorized", "signin_url": "https://x.example/connect?key=abc"})
    error = describe_error(401, {}, body)
    assert "abc" not in error.message
    assert "ollama signin" in error.message
