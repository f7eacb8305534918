"""What jobs of Ollama get: words, chats, embeddings, the list of models, downloads."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.secrets import Secret
from emp_trio.services.ollama.answers import Words
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import open_faulty_server, reply
from emp_trio.testing.ollama import FakeOllama, Script
from emp_trio.testing.png import make_png
from tests.services.ollama.support import job, open_ollama
from tests.services.support import stored

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
PROMPT = {"model": "m", "prompt": "hi"}
CALL = {"function": {"index": 0, "name": "weather", "arguments": {"city": "Oslo"}}}


async def test_a_prompt_becomes_text_that_is_returned_and_saved(
    ollama: FakeOllama, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    ollama.script = Script(text="Grüße aus dem Fälscher", load=0.5, pause=0.001)
    context = FakeAttempt()
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job("text_generation", {"prompt": "hello"}), context)
    data = result.data
    assert data["text"] == data["text_content"] == data["message"]["content"] == "Grüße aus dem Fälscher"
    assert (data["content_type"], data["mime_type"], data["done_reason"]) == ("text", "text/plain", "stop")
    assert data["model_used"] == "llama3.2"
    assert data["usage"] == {"input_tokens": 11, "output_tokens": 4, "total_tokens": 15, "model": "llama3.2"}
    assert data["timing"]["load_duration_ms"] == 500
    assert "truncated" not in data
    assert "thinking" not in data
    ((name, content),) = stored(tmp_path / "assets").items()
    assert content.decode() == "Grüße aus dem Fälscher"
    assert result.metadata["saved_asset"]["fileName"] == name == result.output_files[0].filename
    assert data["asset_url"] == result.output_files[0].metadata["cdn_url"]
    assert result.raw_request_payload == {"model": "llama3.2", "prompt": "hello", "stream": True}
    assert result.service_metadata["usage"] == data["usage"]
    values = [report.value for report in context.reports]
    assert values == sorted(values)
    assert len(set(values)) >= 5  # every piece moved it
    assert values[-1] == 100


async def test_text_is_not_saved_where_the_job_says_so(
    ollama: FakeOllama, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job("text_generation", {"prompt": "hello", "save_assets": False}))
    assert result.data["text"]
    assert (result.output_files, stored(tmp_path / "assets")) == ((), {})


async def test_a_chat_with_everything(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    payload = {
        "model": "qwen3-vl:8b",
        "messages": [{"role": "user", "content": "hi"}],
        "system_prompt": "be brief",
        "temperature": 0.2,
        "max_tokens": 40,
        "context_length": 2048,
        "options": {"seed": 7, "temperature": 0.3},
        "format": {"type": "object"},
        "think": "low",
        "keep_alive": "10m",
        "tools": TOOLS,
    }
    ollama.script = Script(text="It rains.", thinking="Let me see.", tool_calls=[CALL])
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job("chat_completion", payload))
    assert ollama.requests[0].route == "chat"
    assert ollama.requests[0].body == {
        "model": "qwen3-vl:8b",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        "stream": True,
        "format": {"type": "object"},
        "think": "low",
        "keep_alive": "10m",
        "tools": TOOLS,
        "options": {"temperature": 0.3, "num_predict": 40, "num_ctx": 2048, "seed": 7},
    }
    assert (result.data["text"], result.data["thinking"]) == ("It rains.", "Let me see.")
    assert result.data["tool_calls"] == result.data["message"]["tool_calls"] == [CALL]
    assert result.data["message"]["role"] == "assistant"


async def test_a_tool_call_without_words_is_an_answer(
    ollama: FakeOllama, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    ollama.script = Script(text="", tool_calls=[CALL])
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job("chat_completion", {"prompt": "weather?", "tools": TOOLS}))
    assert (result.data["text"], result.data["tool_calls"]) == ("", [CALL])
    assert stored(tmp_path / "assets") == {}


async def test_an_answer_that_reached_its_limit_says_so(
    ollama: FakeOllama, connector_context: ConnectorContext
) -> None:
    ollama.script = Script(text="Once upon a", done_reason="length", cached=True)
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job("text_generation", {"prompt": "a tale", "max_tokens": 3}))
    assert result.data["truncated"] is True
    assert result.data["usage"]["input_tokens"] == 0  # Ollama leaves zero out


@pytest.mark.parametrize("form", ["base64", "data url", "url"])
@pytest.mark.parametrize("type", ["text_generation", "chat_completion"])
async def test_images_reach_ollama_as_bare_base64(
    ollama: FakeOllama, connector_context: ConnectorContext, form: str, type: str
) -> None:
    image = make_png(seed=1)
    bare = base64.b64encode(image).decode()
    async with open_faulty_server(reply(200, image, content_type="image/png")) as web:
        given = {"base64": bare, "data url": f"data:image/png;base64,{bare}", "url": f"{web.url}/cat.png"}[form]
        async with open_ollama(ollama.base_url, connector_context) as connector:
            payload = {"model": "qwen3-vl:8b", "prompt": "what is it?", "images": [given]}
            result = await run_job(connector, job(type, payload))
    body = ollama.requests[0].body
    assert (body["messages"][0] if type == "chat_completion" else body)["images"] == [bare]
    assert bare not in str(result.raw_request_payload)


async def test_what_a_message_holds_beside_its_images_is_not_looked_into(
    ollama: FakeOllama, connector_context: ConnectorContext
) -> None:
    message = {"role": "user", "content": "what is it?", "images": [base64.b64encode(make_png()).decode()]}
    async with open_ollama(ollama.base_url, connector_context) as connector:
        payload = {"model": "qwen3-vl:8b", "messages": [message | {"messages": ["x"]}]}
        await run_job(connector, job("chat_completion", payload))
    assert ollama.requests[0].body["messages"] == payload["messages"]
    ollama.violations.clear()  # this one is the job's own


async def test_a_image_that_is_none_costs_nothing(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    async with open_ollama(ollama.base_url, connector_context) as connector:
        with pytest.raises(InvalidJob):
            await run_job(connector, job("text_generation", {"prompt": "what?", "images": ["no image"]}))
    assert ollama.requests == []


async def test_one_text_becomes_one_vector(
    ollama: FakeOllama, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    ollama.script = Script(dimensions=5)
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job("embeddings", {"model": "nomic-embed-text", "text": "a cat"}))
    assert len(result.data["embeddings"]) == result.data["dimensions"] == 5
    assert all(isinstance(number, float) for number in result.data["embeddings"])
    assert result.data["usage"]["input_tokens"] == 2
    assert ollama.requests[0].route == "embed"
    assert stored(tmp_path / "assets") == {}


async def test_several_texts_become_one_vector_each(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    payload = {"model": "nomic-embed-text", "input": ["a cat", "a dog"], "dimensions": 4}
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job("embeddings", payload))
    assert [len(vector) for vector in result.data["embeddings"]] == [4, 4]
    assert result.data["count"] == 2
    assert len(ollama.requests) == 1


@pytest.mark.parametrize("save_assets", [True, False])
async def test_embeddings_too_large_for_a_result_are_a_file(
    ollama: FakeOllama, connector_context: ConnectorContext, tmp_path: Path, save_assets: bool
) -> None:
    ollama.script = Script(dimensions=768)
    texts = [f"text {i}" for i in range(50)]
    payload = {"model": "nomic-embed-text", "input": texts, "save_assets": save_assets}
    async with open_ollama(ollama.base_url, connector_context, inline_embedding_bytes=10_000) as connector:
        result = await run_job(connector, job("embeddings", payload))
    ((name, content),) = files(tmp_path / "assets").items()
    assert name.endswith(".json")
    vectors = msgspec.json.decode(content)
    assert (len(vectors), len(vectors[0])) == (50, 768)
    assert "embeddings" not in result.data
    assert result.data["asset_url"].endswith(name)
    assert (result.data["mime_type"], result.data["count"]) == ("application/json", 50)
    assert len(msgspec.json.encode(result.data)) < 2000


async def test_the_list_of_models(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job("ollama", {"operation": "models"}))
        assert await connector.models() == result.data["models"] == list(ollama.installed)


async def test_the_hosted_service_gets_the_key_and_nothing_shows_it(
    ollama: FakeOllama, connector_context: ConnectorContext
) -> None:
    ollama.api_key = Secret("hosted-key-0123456789")
    async with open_ollama(ollama.base_url, connector_context, api_key=ollama.api_key) as connector:
        result = await run_job(connector, job("text_generation", {"prompt": "hello"}))
    assert "hosted-key" not in str(msgspec.to_builtins(result))


@pytest.mark.parametrize(
    ("type", "payload", "route"),
    [
        ("embeddings", {"prompt": "a cat", "model": "nomic-embed-text"}, "embed"),
        ("embeddings", {"prompt": "a cat", "model": "nomic-embed-text", "job_type": "chat"}, "embed"),
        ("ollama", {"prompt": "hi"}, "generate"),
        ("ollama", {"prompt": "hi", "job_type": "chat_completion"}, "chat"),
    ],
)
async def test_the_job_type_decides_before_the_payload(
    ollama: FakeOllama, connector_context: ConnectorContext, type: str, payload: dict[str, Any], route: str
) -> None:
    async with open_ollama(ollama.base_url, connector_context) as connector:
        result = await run_job(connector, job(type, payload))
    assert [request.route for request in ollama.requests] == [route]
    ignored = payload.get("job_type") == "chat"
    assert ("warnings" in result.metadata) is ignored


def files(folder: Path) -> dict[str, bytes]:
    """Every file of the folder but for those that describe others."""
    return {path.name: path.read_bytes() for path in folder.rglob("job-1*") if path.is_file()}


@pytest.mark.parametrize(
    ("done_reason", "truncated"),
    [("stop", False), ("", None), ("length", True), ("abort", True), ("error", True), ("unload", True), (None, True)],
)
def test_words_in_hand_are_kept_however_the_answer_ended(done_reason: str | None, truncated: bool | None) -> None:
    words = Words()
    words.feed({"message": {"role": "assistant", "content": "some"}, "done": False})
    words.feed({"message": {"content": ""}, "done": True} | ({} if done_reason == "" else {"done_reason": done_reason}))
    data = words.finish()
    assert (data["text"], data.get("truncated")) == ("some", truncated or None)


def test_characters_in_halves_and_text_in_parts_are_text() -> None:
    words = Words()
    for content in ("a\ud83d", "\ude00", [{"type": "text", "text": "b"}], "\ud83d"):
        words.feed({"message": {"content": content}, "done": False})
    words.feed({"done": True, "done_reason": "stop"})
    assert words.finish()["text"] == "a\U0001f600b\ufffd"
    words = Words()
    words.feed({"message": {"content": {"hologram": "xyz"}}, "done": True})
    with pytest.raises(ServiceError, match="xyz"):
        words.finish()


async def test_lines_are_told_by_their_bytes(connector_context: ConnectorContext) -> None:
    line = b'{"model": "m", "message": {"role": "assistant", "content": "some"}, "done": true, "x": NaN}'
    pretty = msgspec.json.format(line.replace(b"NaN", b"null"), indent=2) + b"\n"
    bodies = [line, b"data: " + line + b"\n\n", pretty, b"\xef\xbb\xbf" + line + b"\n\n"]
    async with open_faulty_server(*(reply(200, body, content_type="text/plain") for body in bodies)) as faulty:
        for _ in bodies:
            async with open_ollama(faulty.url, connector_context) as connector:
                result = await run_job(connector, job("text_generation", PROMPT))
            assert result.data["text"] == "some"


async def test_words_in_parts_are_words(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.script = Script(text="some words", parts=True)
    async with open_ollama(ollama.base_url, connector_context) as connector:
        for kind in ("text_generation", "chat_completion"):
            assert (await run_job(connector, job(kind, {"prompt": "hello"}))).data["text"] == "some words"
