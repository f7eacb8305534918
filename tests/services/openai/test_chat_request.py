"""Payloads of text jobs as bodies of chat completions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob
from emp_trio.services.openai.chat_request import ChatRequest, chat_request, own_key
from emp_trio.testing.openai.chat_rules import chat_violations

USER = {"role": "user", "content": "hi"}


def made(payload: dict[str, Any], *, max_tokens: int | None = None, stream: bool = False) -> ChatRequest:
    return chat_request(payload, default_model="gpt-6-luna", max_tokens=max_tokens, stream=stream)


@pytest.mark.parametrize(
    ("payload", "messages"),
    [
        ({"prompt": "hi"}, [USER]),
        ({"prompt": "hi", "system_prompt": "be brief"}, [{"role": "system", "content": "be brief"}, USER]),
        ({"messages": [USER]}, [USER]),
        ({"messages": [USER], "system_prompt": "be brief"}, [{"role": "system", "content": "be brief"}, USER]),
        ({"messages": [USER], "prompt": "no"}, [USER]),
        ({"prompt": "hi", "system_prompt": ""}, [USER]),
    ],
)
def test_messages(payload: dict[str, Any], messages: list[Any]) -> None:
    assert made(payload).body == {"model": "gpt-6-luna", "messages": messages}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "missing_required_field"),
        ({"prompt": ""}, "missing_required_field"),
        ({"prompt": 7}, "missing_required_field"),
        ({"messages": []}, "invalid_format"),
        ({"messages": "hi"}, "invalid_format"),
        ({"messages": ["hi"]}, "invalid_format"),
    ],
)
def test_a_payload_without_words_is_no_job(payload: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        made(payload)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("payload", "setting", "limit"),
    [
        ({}, None, None),
        ({}, 4000, 4000),
        ({"max_tokens": 10}, 4000, 10),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 4000, 20),
        ({"max_tokens": 0}, 4000, 0),  # wrong, but that is for the service to say
    ],
)
def test_the_limit_of_an_answer_goes_under_its_present_name(
    payload: dict[str, Any], setting: int | None, limit: int | None
) -> None:
    body = made({"prompt": "hi"} | payload, max_tokens=setting).body
    assert body.get("max_completion_tokens") == limit
    assert "max_tokens" not in body


def test_documented_options_go_through_and_nothing_is_added() -> None:
    options: dict[str, Any] = {
        "model": "gpt-4.1",
        "temperature": 0.0,
        "top_p": 0.5,
        "n": 2,
        "stop": ["."],
        "seed": 7,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "reasoning_effort": "none",
        "verbosity": "low",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "flex",
        "safety_identifier": "u",
    }
    request = made({"prompt": "hi"} | options)
    assert request.body == options | {"messages": [USER]}
    assert request.warnings == ()


def test_a_streamed_answer_is_asked_for_with_its_usage() -> None:
    body = made({"prompt": "hi", "stream": False, "stream_options": {"x": 1}}, stream=True).body
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert "stream" not in made({"prompt": "hi", "stream": True}).body


def test_what_is_left_out_is_said() -> None:
    request = made({"prompt": "hi", "temprature": 1, "zoom": 2, "ctx": {}, "save_output": True, "messages": [USER]})
    assert request.warnings == (
        "prompt is left out: the payload has messages",
        "left out, because chat completions don't take it: temprature, zoom",
    )


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
NAMES = st.sampled_from("model temperature n stop tools api_key max_tokens user_id zoom stream store ctx".split())


@given(st.dictionaries(NAMES | st.text(max_size=8), VALUES, max_size=8), st.booleans())
def test_whatever_a_payload_holds_nothing_undocumented_is_sent(payload: dict[str, Any], stream: bool) -> None:
    request = made(payload | {"prompt": "hi", "messages": None}, max_tokens=5, stream=stream)
    assert chat_violations(request.body) == []
    assert "api_key" not in request.body


@pytest.mark.parametrize("key", [None, ""])
def test_a_job_without_a_key_of_its_own(key: Any) -> None:
    assert own_key({"api_key": key}) is None
    assert own_key({}) is None


def test_a_key_is_a_secret_at_once() -> None:
    key = own_key({"api_key": "sk-job-key"})
    assert key is not None
    assert key.reveal() == "sk-job-key"
    assert "job-key" not in f"{key} {key!r}"


@pytest.mark.parametrize("key", [7, ["sk-hidden"], "sk-hidden\n", "sk hidden", "sk-hiddén"])
def test_a_key_that_cannot_be_sent_is_not_shown_either(key: Any) -> None:
    with pytest.raises(InvalidJob) as caught:
        own_key({"api_key": key})
    assert "hidd" not in str(caught.value)
    assert not caught.value.retry
