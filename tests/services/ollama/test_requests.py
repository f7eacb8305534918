"""Payloads as requests, and lines as answers: the pure parts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.services.ollama.answers import Words, model_names, read_embeddings, timing, usage
from emp_trio.services.ollama.requests import ollama_request
from emp_trio.services.ollama.settings import OllamaSettings
from emp_trio.testing.ollama.rules import fault_of, violations_of
from emp_trio.testing.ollama.script import Script, answer_lines

HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("type", "payload", "operation"),
    [
        ("text_generation", {"prompt": "x"}, "generate"),
        ("text_generation", {"prompt": "x", "operation": "pull"}, "generate"),
        ("chat_completion", {"prompt": "x"}, "chat"),
        ("chat_completion", {"prompt": "x", "job_type": "chat"}, "chat"),
        ("embeddings", {"prompt": "x"}, "embed"),
        ("ollama", {"prompt": "x"}, "generate"),
        ("ollama", {"prompt": "x", "job_type": "text_generation"}, "generate"),
        ("ollama", {"messages": HI}, "chat"),
        ("ollama", {"messages": HI, "prompt": "x"}, "generate"),
        ("ollama", {"prompt": "x", "job_type": "chat", "operation": "embeddings"}, "chat"),
        ("ollama", {"prompt": "x", "operation": "embeddings"}, "embed"),
        ("ollama", {"prompt": "x", "operation": "embed"}, "embed"),
        ("ollama", {"operation": "models"}, "models"),
        ("ollama", {"operation": "pull"}, "pull"),
        ("anything", {"prompt": "x", "operation": "chat_completion"}, "chat"),
    ],
)
def test_which_operation_a_job_is(type: str, payload: dict[str, Any], operation: str) -> None:
    assert ollama_request(type, payload, default_model="m").operation == operation


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        ({"prompt": "x"}, {"model": "m", "prompt": "x"}),
        ({"prompt": "x", "model": "n", "stream": False}, {"model": "n", "prompt": "x"}),
        ({"prompt": "x", "system": "s"}, {"model": "m", "prompt": "x", "system": "s"}),
        ({"prompt": "x", "system": "s", "system_prompt": "t"}, {"model": "m", "prompt": "x", "system": "t"}),
        ({"prompt": "x", "think": False, "raw": True}, {"model": "m", "prompt": "x", "think": False, "raw": True}),
        ({"prompt": "x", "keep_alive": 0}, {"model": "m", "prompt": "x", "keep_alive": 0}),
        ({"prompt": "x", "format": "json"}, {"model": "m", "prompt": "x", "format": "json"}),
        ({"prompt": "x", "tools": [], "unknown": 1}, {"model": "m", "prompt": "x"}),
        ({"prompt": "x", "temperature": 0}, {"model": "m", "prompt": "x", "options": {"temperature": 0}}),
        (
            {"prompt": "x", "max_tokens": 5, "num_predict": 6, "context_length": 7, "top_k": 8, "top_p": 0.9},
            {"model": "m", "prompt": "x", "options": {"num_predict": 6, "num_ctx": 7, "top_k": 8, "top_p": 0.9}},
        ),
        (
            {"prompt": "x", "stop": ["a"], "repeat_penalty": 1.1, "options": {"min_p": 0.1}},
            {"model": "m", "prompt": "x", "options": {"stop": ["a"], "repeat_penalty": 1.1, "min_p": 0.1}},
        ),
    ],
)
def test_bodies_of_generate(payload: dict[str, Any], body: dict[str, Any]) -> None:
    before = msgspec.json.encode(payload)
    assert ollama_request("text_generation", payload, default_model="m").body == body | {"stream": True}
    assert msgspec.json.encode(payload) == before


def test_the_payload_of_a_chat_is_not_changed() -> None:
    payload = {"messages": [{"role": "user", "content": "a", "images": ["x"]}], "images": ["y"], "system": "s"}
    before = msgspec.json.encode(payload)
    messages = ollama_request("chat_completion", payload, default_model="m").body["messages"]
    assert messages == [{"role": "system", "content": "s"}, {"role": "user", "content": "a", "images": ["x", "y"]}]
    assert msgspec.json.encode(payload) == before


def test_a_system_message_of_the_chat_counts_for_more() -> None:
    messages = [{"role": "system", "content": "own"}, *HI]
    payload = {"messages": messages, "system_prompt": "other"}
    assert ollama_request("chat_completion", payload, default_model="m").body["messages"] == messages


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = "prompt text input messages images options model operation job_type system tools think keep_alive".split()
ROUTES = {"generate": "generate", "chat": "chat", "embed": "embed", "pull": "pull"}


@pytest.mark.parametrize("word", ["y" * 10**6, ["y" * 10**6]])
def test_an_operation_that_is_left_out_is_not_quoted_at_length(word: Any) -> None:
    (warning,) = ollama_request("text_generation", {"prompt": "x", "operation": word}, default_model="m").warnings
    assert len(warning) < 200
    with pytest.raises(InvalidJob) as caught:
        ollama_request("ollama", {"prompt": "x", "operation": word}, default_model="m")
    assert len(caught.value.message) < 250


@given(
    st.sampled_from(["ollama", "text_generation", "chat_completion", "embeddings"]),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6),
)
def test_any_payload_is_a_request_or_an_invalid_job(type: str, payload: dict[str, Any]) -> None:
    try:
        request = ollama_request(type, payload, default_model="m")
    except InvalidJob:
        return
    msgspec.json.encode(request.body)
    if request.operation in ROUTES:
        found = violations_of(request.operation, request.body)
        assert not [text for text in found if "undocumented field" in text and "of a message" not in text]
        fault_of(request.operation, request.body)  # Ollama's own word for what is left


@given(st.text(max_size=60), st.text(max_size=30), st.sampled_from([True, False]))
def test_the_pieces_of_an_answer_are_its_text(text: str, thinking: str, chat: bool) -> None:
    words = Words()
    for line in answer_lines(Script(text=text, thinking=thinking), "m", chat=chat):
        words.feed(msgspec.json.decode(msgspec.json.encode(line)))
    if not text.strip():
        with pytest.raises(ServiceError):
            words.finish()
        return
    data = words.finish()
    assert (data["text"], data.get("thinking", "")) == (text, thinking)


@given(st.lists(VALUES, max_size=5))
def test_lines_of_any_kind_end_in_an_answer_or_in_our_error(lines: list[Any]) -> None:
    words = Words()
    try:
        for line in lines:
            words.feed(line)
        words.finish()
    except ServiceError:
        pass


@given(VALUES)
def test_answers_of_any_kind_are_read_or_refused(answer: Any) -> None:
    assert isinstance(model_names(answer), list)
    with pytest.raises(ServiceError):
        read_embeddings(answer, count=1)


def test_counters_are_read_as_what_they_are() -> None:
    assert usage({"prompt_eval_count": 3, "eval_count": True, "model": "m"}) == {
        "input_tokens": 3,
        "output_tokens": 0,
        "total_tokens": 3,
        "model": "m",
    }
    assert timing({"total_duration": 1_234_567, "eval_duration": "x", "load_duration": 10**400}) == {
        "total_duration_ms": 1.235,
        "eval_duration_ms": 0.0,
        "load_duration_ms": 0.0,
    }


@pytest.mark.parametrize(
    ("allowed", "model", "may"),
    [
        ("", "llama3.2", False),
        ("llama3.2", "llama3.2:latest", True),
        ("llama3.2:latest", "llama3.2", True),
        ("llama3.2", "llama3.2:1b", False),
        ("a, b:1b ,c", "b:1b", True),
        ("host:5000/x/y", "host:5000/x/y:latest", True),
        (" , ", "", False),
    ],
)
def test_which_models_may_be_pulled(allowed: str, model: str, may: bool) -> None:
    assert OllamaSettings(auto_pull=allowed).may_pull(model) is may
