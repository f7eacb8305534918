"""The fake Ollama speaks the reference: what a wrong client would be told, a test hears too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from emp_trio.secrets import Secret
from emp_trio.testing.ollama import FakeOllama, Script, open_fake_ollama

USER = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with open_fake_ollama() as ollama:
        yield ollama


@pytest.fixture
async def client(ollama: FakeOllama) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=ollama.base_url, verify=False) as client:
        yield client


def lines(answer: httpx.Response) -> list[Any]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_words_are_streamed_unless_the_client_says_otherwise(
    ollama: FakeOllama, client: httpx.AsyncClient
) -> None:
    ollama.script = Script(text="It is blue.", thinking="Why not.")
    body = {"model": "qwen3-vl:8b", "prompt": "why?", "think": True}
    streamed = lines(await client.post("/api/generate", json=body))
    assert "".join(line["response"] for line in streamed) == "It is blue."
    assert "".join(line.get("thinking", "") for line in streamed) == "Why not."
    assert [line["done"] for line in streamed] == [False] * 5 + [True]
    assert (streamed[-1]["done_reason"], streamed[-1]["eval_count"]) == ("stop", 5)
    whole = (await client.post("/api/generate", json=body | {"stream": False})).json()
    assert (whole["response"], whole["thinking"], whole["done"]) == ("It is blue.", "Why not.", True)
    chat = {"model": "llama3.2", "messages": USER, "think": False}
    assert lines(await client.post("/api/chat", json=chat))[0]["message"] == {"role": "assistant", "content": "It"}
    whole = (await client.post("/api/chat", json=chat | {"stream": False})).json()
    assert whole["message"]["content"] == "It is blue."
    assert [work.end for work in ollama.generations] == ["done"] * 4
    assert ollama.violations == []


async def test_counters_that_are_zero_are_left_out(ollama: FakeOllama, client: httpx.AsyncClient) -> None:
    ollama.script = Script(cached=True)
    last = lines(await client.post("/api/generate", json={"model": "llama3.2", "prompt": "x"}))[-1]
    assert "prompt_eval_count" not in last
    assert "load_duration" not in last


async def test_a_pull_installs_the_model(ollama: FakeOllama, client: httpx.AsyncClient) -> None:
    body = {"model": "tinyllama", "prompt": "x"}
    assert (await client.post("/api/generate", json=body)).status_code == 404
    told = lines(await client.post("/api/pull", json={"model": "tinyllama"}))
    assert told[0] == {"status": "pulling manifest"}
    assert told[-1] == {"status": "success"}
    assert "completed" not in told[1]  # it comes with the first bytes
    digests = {line["digest"]: line["completed"] for line in told if "completed" in line}
    assert sorted(digests.values()) == [3_000, 20_000, 800_000]
    assert (await client.post("/api/generate", json=body)).status_code == 200
    assert (await client.post("/api/pull", json={"model": "tinyllama", "stream": False})).json() == told[-1]


async def test_a_client_that_goes_away_is_noticed(ollama: FakeOllama, client: httpx.AsyncClient) -> None:
    ollama.script = Script(stall_after=1)
    with trio.move_on_after(0.2):
        await client.post("/api/generate", json={"model": "llama3.2", "prompt": "x"})
    with trio.fail_after(60):
        await ollama.until_true(lambda: ollama.work[0].end == "dropped")


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("generate", {"prompt": "x"}, 400, "model is required"),
        ("generate", {"model": "llama3.2", "prompt": 5}, 400, "unmarshal"),
        ("generate", {"model": "llama3.2", "prompt": "x", "options": {"top_k": 0.5}}, 400, "top_k"),
        ("generate", {"model": "llama3.2", "prompt": "x", "options": {"temperature": True}}, 400, "temperature"),
        ("generate", {"model": "qwen3-vl:8b", "prompt": "x", "images": ["data:image/png;base64,AA=="]}, 400, "base64"),
        ("generate", {"model": "llama3.2", "prompt": "x", "images": ["AAAA"]}, 400, "does not support vision"),
        ("chat", {"model": "llama3.2", "messages": []}, 400, "messages is required"),
        ("chat", {"model": "llama3.2", "messages": ["hi"]}, 400, "unmarshal"),
        ("chat", {"model": "llama3.2", "messages": USER, "tools": [{"name": "f"}]}, 400, "tool"),
        ("chat", {"model": "nope", "messages": USER}, 404, "not found"),
        ("embed", {"model": "nomic-embed-text", "input": [1]}, 400, "invalid input"),
        ("embed", {"model": "nomic-embed-text"}, 400, "invalid input"),
        ("embed", [], 400, "missing request body"),
        ("pull", {}, 400, "model is required"),
    ],
)
async def test_documented_errors(
    ollama: FakeOllama, client: httpx.AsyncClient, path: str, body: Any, status: int, says: str
) -> None:
    answer = await client.post(f"/api/{path}", json=body)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert ollama.work == []


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("generate", {"model": "llama3.2", "prompt": "x", "messages": USER}, "undocumented field 'messages'"),
        ("generate", {"model": "llama3.2", "prompt": "x", "max_tokens": 5}, "'max_tokens'"),
        ("generate", {"model": "llama3.2", "prompt": "x", "context": [1]}, "deprecated"),
        ("generate", {"model": "qwen3-vl:8b", "prompt": "x", "think": "hard"}, "think"),
        ("chat", {"model": "llama3.2", "messages": USER, "options": {"max_tokens": 5}}, "option 'max_tokens'"),
        ("chat", {"model": "llama3.2", "messages": [USER[0] | {"name": "me"}]}, "'name' of a message"),
        ("embed", {"model": "nomic-embed-text", "input": "x", "prompt": "x"}, "'prompt'"),
        ("pull", {"model": "tinyllama", "insecure": True}, "'insecure'"),
        ("embeddings", {"model": "nomic-embed-text", "prompt": "x"}, "undocumented call"),
    ],
)
async def test_what_nobody_documents_is_a_violation(
    ollama: FakeOllama, client: httpx.AsyncClient, path: str, body: Any, says: str
) -> None:
    await client.post(f"/api/{path}", json=body)
    (violation,) = ollama.violations
    assert says in violation


async def test_injected_errors_come_as_often_as_was_said(ollama: FakeOllama, client: httpx.AsyncClient) -> None:
    ollama.inject("tags", status=503, message="busy", headers={"retry-after": "1"}, times=2)
    ollama.inject("tags", status=502, body=b"<html>Bad Gateway</html>")
    answers = [await client.get("/api/tags") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 502, 200]
    assert answers[0].json() == {"error": "busy"}
    assert answers[0].headers["retry-after"] == "1"
    assert "llama3.2:latest" in [model["name"] for model in answers[3].json()["models"]]


async def test_a_key_is_wanted_where_there_is_one(ollama: FakeOllama, client: httpx.AsyncClient) -> None:
    ollama.api_key = Secret("key-0123456789")
    answer = await client.get("/api/version")
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    assert "signin_url" in answer.json()
    assert (await client.get("/api/version", headers={"authorization": "Bearer key-0123456789"})).status_code == 200
    assert "authorization" not in ollama.requests[-1].headers
