"""Chat completions of the fake OpenAI, by HTTP (OpenAI reference 10)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio

from emp_trio.testing.openai import FakeOpenAI, Script, StreamScript, ToolCall

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "hi"}]} | fields


async def frames(client: httpx.AsyncClient, **fields: Any) -> list[Any]:
    """The values of the frames of a streamed completion; the last one may be ``[DONE]``."""
    answer = await client.post("/chat/completions", json=body(stream=True, **fields))
    assert answer.headers["content-type"].startswith("text/event-stream")
    data = [frame.removeprefix("data: ") for frame in answer.text.split("\n\n") if frame.startswith("data: ")]
    return [value if value == "[DONE]" else json.loads(value) for value in data]


async def test_a_completion_comes_whole(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, text="Grüße")
    answer = (await client.post("/chat/completions", json=body(n=2, reasoning_effort="low"))).json()
    assert answer["object"] == "chat.completion"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["choices"][0]["message"]["content"] == "Grüße"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == 50
    assert openai.billed == 1
    assert openai.violations == []


async def test_a_completion_comes_in_chunks(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, text="one two\nthree")
    chunks = await frames(client, stream_options={"include_usage": True})
    assert chunks.pop() == "[DONE]"
    usage = chunks.pop()
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 50
    assert all(chunk["usage"] is None for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"]["role"] == "assistant"
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "one two\nthree"
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert len(choices) == 5
    assert all(chunk["obfuscation"] for chunk in chunks)


async def test_usage_and_padding_come_only_where_asked_for(client: httpx.AsyncClient) -> None:
    chunks = await frames(client, stream_options={"include_obfuscation": False})
    assert not any("usage" in chunk or "obfuscation" in chunk for chunk in chunks[:-1])
    assert all(chunk["choices"] for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(seconds=0, status="incomplete", text="Onc"), "length"),
        (Script(seconds=0, status="incomplete", incomplete_reason="content_filter", text=""), "content_filter"),
        (Script(seconds=0, tool_calls=[ToolCall(name="weather", arguments='{"city": "Ulm"}')]), "tool_calls"),
        (Script(seconds=0, refusal="I would rather not."), "stop"),
    ],
)
async def test_endings_are_the_same_whole_and_in_chunks(
    openai: FakeOpenAI, client: httpx.AsyncClient, script: Script, reason: str
) -> None:
    openai.script = script
    (choice,) = (await client.post("/chat/completions", json=body())).json()["choices"]
    assert choice["finish_reason"] == reason
    parts = [chunk["choices"][0] for chunk in (await frames(client))[:-1]]
    assert parts[-1]["finish_reason"] == reason
    message = choice["message"]
    assert "".join(part["delta"].get("refusal") or "" for part in parts) == (message["refusal"] or "")
    assert "".join(part["delta"].get("content", "") for part in parts) == (message["content"] or "")
    calls = [call for part in parts for call in part["delta"].get("tool_calls", [])]
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert arguments == "".join(call["function"]["arguments"] for call in message.get("tool_calls", []))
    assert openai.billed == 2


async def test_json_and_tools_are_answered_as_asked(client: httpx.AsyncClient) -> None:
    async def message(**fields: Any) -> Any:
        return (await client.post("/chat/completions", json=body(**fields))).json()["choices"][0]["message"]

    assert "answer" in json.loads((await message(response_format={"type": "json_object"}))["content"])
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
    assert json.loads((await message(response_format=wanted))["content"]) == {"name": "fake", "age": 1}
    called = await message(tools=[TOOL], tool_choice="required", reasoning_effort="none")
    assert called["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}


async def test_an_error_inside_a_stream_is_a_frame(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, status="failed")
    *before, last = await frames(client)
    assert before
    assert last["error"]["code"] == "server_error"
    assert (await client.post("/chat/completions", json=body())).status_code == 500
    openai.script = Script(seconds=0, stream=StreamScript(cut_after=2, error={"message": "No.", "code": "slow_down"}))
    assert [list(frame) == ["error"] for frame in await frames(client)] == [False, False, True]


async def test_a_stream_can_end_without_its_end(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, stream=StreamScript(cut_after=2, noise=True))
    answer = await client.post("/chat/completions", json=body(stream=True))
    assert 'finish_reason":"stop' not in answer.text
    assert "[DONE]" not in answer.text


async def test_chunks_are_spread_over_the_time_it_takes(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=3600, text="word by word")
    with trio.fail_after(60):
        async with client.stream("POST", "/chat/completions", json=body(stream=True)) as answer:
            received = answer.aiter_lines()
            assert '"role":"assistant"' in await anext(received)
            openai.finish_all()
            assert [line async for line in received if line][-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": "gpt-3.5-turbo"}, "model", "model_not_found"),
        ({"model": "gpt-image-2.6-flare"}, "model", "invalid_value"),
        ({"messages": []}, "messages", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://x/y.png"}]}]},
            "messages[0].content[0].image_url",
            "invalid_type",
        ),
        ({"max_tokens": 100}, "max_tokens", "unsupported_parameter"),
        ({"temperature": 0.7}, "temperature", "unsupported_parameter"),
        ({"top_p": 0.7}, "top_p", "unsupported_parameter"),
        ({"tools": [TOOL]}, "tools", "unsupported_value"),
        ({"tools": [{"type": "function"}], "reasoning_effort": "none"}, "tools[0].function.name", None),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
        ({"n": 0}, "n", None),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.name", None),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_value"),
    ],
)
async def test_wrong_requests_are_told_so(
    client: httpx.AsyncClient, openai: FakeOpenAI, fields: dict[str, Any], param: str, code: str | None
) -> None:
    answer = await client.post("/chat/completions", json=body(**fields))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert code is None or answer.json()["error"]["code"] == code
    assert openai.billed == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"input": "x"}, "undocumented field 'input'"),
        ({"model": "gpt-4.1", "max_tokens": 9}, "max_tokens is deprecated"),
        ({"messages": [{"role": "user", "content": "x", "type": "message"}]}, "field 'type' of a message"),
    ],
)
async def test_what_nobody_documents_is_a_violation(
    client: httpx.AsyncClient, openai: FakeOpenAI, fields: dict[str, Any], said: str
) -> None:
    assert (await client.post("/chat/completions", json=body(**fields))).status_code == 200
    assert any(said in violation for violation in openai.violations)


async def test_reasoning_models_take_sampling_without_effort(client: httpx.AsyncClient, openai: FakeOpenAI) -> None:
    assert (
        await client.post("/chat/completions", json=body(temperature=0.7, reasoning_effort="none"))
    ).status_code == 200
    assert (await client.post("/chat/completions", json=body(temperature=0.7, model="gpt-4.1"))).status_code == 200
    assert openai.violations == []
