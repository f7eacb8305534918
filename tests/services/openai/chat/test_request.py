"""Payloads of text jobs as bodies of chat completions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.services.openai.chat.request import ChatRequest, chat_request, is_openai, own_key, renamed_limit

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
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "logit_bias": {"50256": -100},
        "logprobs": True,
        "top_logprobs": 2,
        "user": "u",
        "prompt_cache_key": "k",
        "prediction": {"type": "content", "content": "x"},
        "top_k": 40,  # of other vendors
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "chat_template_kwargs": {"enable_thinking": False},
        "provider_options": {"order": ["a"]},
        "n_of_tomorrow": False,
    }
    request = made({"prompt": "hi"} | options)
    assert request.body == options | {"messages": [USER]}
    assert request.warnings == ()


def test_a_streamed_answer_is_asked_for_with_its_usage() -> None:
    body = made({"prompt": "hi", "stream": False, "stream_options": {"x": 1}}, stream=True).body
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert "stream" not in made({"prompt": "hi", "stream": True}).body


def test_what_is_left_out_is_said() -> None:
    request = made({"prompt": "hi", "messages": [USER]})
    assert request.warnings == ("prompt is left out: the payload has messages",)


OWN = (
    "ctx bucket prefix filename provider cdnUrl workflow_name user_id generation_context save_assets save_output "
    "api_key prompt system_prompt"
).split()


@pytest.mark.parametrize("name", OWN)
def test_what_is_for_us_is_not_sent(name: str) -> None:
    body = made({"messages": [USER], name: "sk-x"}).body
    assert body.keys() == {"model", "messages"}
    assert ("sk-x" in str(body)) == (name == "system_prompt")  # that one is among the messages


@pytest.mark.parametrize(
    ("payload", "setting", "limits"),
    [
        ({}, None, {}),
        ({}, 4000, {"max_tokens": 4000}),
        ({"max_tokens": 10}, 4000, {"max_tokens": 10}),
        ({"max_completion_tokens": 20}, 4000, {"max_completion_tokens": 20}),
        ({"max_completion_tokens": 20, "max_tokens": 10}, None, {"max_completion_tokens": 20, "max_tokens": 10}),
        ({"max_tokens": None}, None, {}),
    ],
)
def test_other_services_get_the_limit_as_it_was_given(
    payload: dict[str, Any], setting: int | None, limits: dict[str, int]
) -> None:
    request = chat_request(
        {"prompt": "hi"} | payload, default_model="m", max_tokens=setting, stream=False, at_openai=False
    )
    assert request.body == {"model": "m", "messages": [USER]} | limits


@pytest.mark.parametrize(
    ("base_url", "own"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://API.OpenAI.com:443/v1", True),
        ("http://127.0.0.1:8000/v1", False),
        ("https://openai.com.example.org/v1", False),
        ("https://notopenai.com/v1", False),
        ("https://openrouter.ai/api/v1?x=api.openai.com", False),
        ("https://x.openai.azure.com/openai/v1", False),
        ("nonsense", False),
    ],
)
def test_openai_itself_is_known_by_its_host(base_url: str, own: bool) -> None:
    assert is_openai(base_url) is own


OTHER = {"model": "m", "max_completion_tokens": 5}


@pytest.mark.parametrize(
    ("error", "renamed"),
    [
        (ServiceError("no", status=400, param="max_tokens"), OTHER),
        (ServiceError("Use 'max_completion_tokens', not 'max_tokens'.", status=422), OTHER),
        (ServiceError("no", status=400, param="model"), None),
        (ServiceError("max_tokens", status=500), None),
        (ServiceError("max_tokens", status=400, maybe_started=True), None),
        (ServiceError("max_completion_tokens_of_tomorrow", status=400), None),
    ],
)
def test_a_refused_limit_has_another_name(error: ServiceError, renamed: Any) -> None:
    assert renamed_limit({"model": "m", "max_tokens": 5}, error) == renamed


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
NAMES = st.sampled_from("model temperature n stop tools api_key max_tokens user_id zoom stream store ctx".split())


@given(st.dictionaries(NAMES | st.text(max_size=8), VALUES, max_size=8), st.booleans())
def test_whatever_a_payload_holds_nothing_of_ours_is_sent(payload: dict[str, Any], stream: bool) -> None:
    request = made(payload | {"prompt": "hi", "messages": None}, max_tokens=5, stream=stream)
    assert not request.body.keys() & {*OWN}
    ours = {*OWN, "stream", "max_tokens"}
    theirs = {name for name, value in payload.items() if value is not None and name not in ours}
    assert theirs <= request.body.keys() | {"messages", "stream_options", "max_completion_tokens"}


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
