"""Completions, whole and in chunks, as answers: by table and by property."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import Refused, ServiceError
from emp_trio.services.openai.chat_answer import ChatAnswer, ChatFold, read_completion

USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 30,
    "total_tokens": 50,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 10},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def completion(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-6-luna-x", "choices": list(choices)} | more


def choice(content: str | None = "hi", finish: str | None = "stop", index: int = 0, **message: Any) -> dict[str, Any]:
    return {"index": index, "finish_reason": finish, "message": {"role": "assistant", "content": content} | message}


def chunk(delta: Any = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-6-luna-x", "usage": None}
    return envelope | {"choices": [{"index": index, "delta": delta or {}, "finish_reason": finish}]} | more


def folded(*chunks: Any) -> ChatAnswer:
    fold = ChatFold()
    for one in chunks:
        fold.add(one)
    assert fold.finished
    return fold.answer()


def test_a_completion() -> None:
    answer = read_completion(completion(choice("hello"), usage=USAGE))
    assert (answer.id, answer.model, answer.text, answer.finish_reason) == (
        "chatcmpl-1",
        "gpt-6-luna-x",
        "hello",
        "stop",
    )
    assert not answer.truncated
    assert answer.tool_calls == answer.choices == ()
    assert answer.usage == {
        "input_tokens": 20,
        "output_tokens": 30,
        "total_tokens": 50,
        "cached_tokens": 4,
        "reasoning_tokens": 10,
        "image": None,
        "model": "gpt-6-luna-x",
        "image_model": None,
    }


def test_what_the_service_does_not_say_is_not_guessed() -> None:
    usage = read_completion(completion(choice())).usage
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (None, None, None)


def test_a_stream_in_its_order() -> None:
    fold = ChatFold()
    words = [
        fold.add(chunk({"role": "assistant", "content": "", "refusal": None})),
        fold.add(chunk({"content": "Hel"})),
        fold.add(chunk({"content": "lo"})),
    ]
    assert words == ["", "Hel", "lo"]
    before = fold.finished
    fold.add(chunk({}, "stop"))
    assert (before, fold.finished) == (False, True)
    fold.add({"id": "chatcmpl-1", "choices": [], "usage": USAGE})
    assert fold.answer() == read_completion(completion(choice("Hello"), usage=USAGE))


@pytest.mark.parametrize(
    ("given", "text", "truncated", "calls"),
    [
        (choice("Once upon a", "length"), "Once upon a", True, 0),
        (choice(None, "tool_calls", tool_calls=[CALL]), "", False, 1),
        (choice("I'll look.", "tool_calls", tool_calls=[CALL, CALL]), "I'll look.", False, 2),
        (choice("hi", None), "hi", False, 0),  # a compatible server
        (choice("hi", "brand_new"), "hi", False, 0),
    ],
)
def test_endings(given: dict[str, Any], text: str, truncated: bool, calls: int) -> None:
    answer = read_completion(completion(given))
    assert (answer.text, answer.truncated, len(answer.tool_calls)) == (text, truncated, calls)


@pytest.mark.parametrize(
    ("given", "words", "reason", "code"),
    [
        (choice(None, "stop", refusal="I can't help\nwith that."), "I can't help with that.", "policy_violation", None),
        (choice("Onc", "content_filter"), "content filter", "safety_filter", "content_filter"),
        (choice(None, "content_filter"), "content filter", "safety_filter", "content_filter"),
    ],
)
def test_refusals(given: dict[str, Any], words: str, reason: str, code: str | None) -> None:
    with pytest.raises(Refused, match=words) as caught:
        read_completion(completion(given))
    assert (caught.value.reason, caught.value.code, caught.value.retry) == (reason, code, False)


def test_a_long_refusal_is_quoted_in_part() -> None:
    with pytest.raises(Refused) as caught:
        read_completion(completion(choice(None, refusal="no " * 1000)))
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    ("whole", "words", "retry"),
    [
        (completion(choice("")), "is empty", True),
        (completion(choice(" \n")), "is empty", True),
        (completion(choice("", "length")), "allow more", False),
        (completion(), "no choices", True),
        ({}, "no choices", True),
        (None, "no choices", True),
        ([1], "no choices", True),
    ],
)
def test_nothing_is_a_failure_that_was_paid_for(whole: Any, words: str, retry: bool) -> None:
    with pytest.raises(ServiceError, match=words) as caught:
        read_completion(whole)
    assert (caught.value.type, caught.value.reason) == ("response_error", "missing_expected_data")
    assert caught.value.retry is retry
    assert caught.value.maybe_started


def test_of_several_choices_the_first_that_was_not_declined_counts() -> None:
    given = [
        choice(None, "content_filter"),
        choice(None, index=1, refusal="no"),
        choice("two", index=2),
        choice("three", "length", 3, tool_calls=[CALL]),
    ]
    answer = read_completion(completion(*given))
    assert answer.text == "two"
    assert answer.choices == (
        {"text": "", "finish_reason": "content_filter"},
        {"text": "", "finish_reason": "stop", "refusal": "no"},
        {"text": "two", "finish_reason": "stop"},
        {"text": "three", "finish_reason": "length", "tool_calls": [CALL]},
    )


def test_choices_of_a_stream_come_interleaved() -> None:
    fold = ChatFold()
    assert fold.add(chunk({"content": "b"}, index=1)) == ""
    assert fold.add(chunk({"content": "a"}, index=0)) == "a"
    fold.add(chunk({}, "stop", index=1))
    before = fold.finished
    fold.add(chunk({}, "length", index=0))
    assert (before, fold.finished) == (False, True)
    answer = fold.answer()
    assert (answer.text, answer.truncated) == ("a", True)
    assert [c["text"] for c in answer.choices] == ["a", "b"]


def test_tool_calls_are_put_together() -> None:
    def piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}} | more]})

    answer = folded(
        piece(0, "", id="call_1", type="function", function={"name": "f", "arguments": ""}),
        piece(0, '{"a"'),
        piece(1, "", id="call_2", type="function", function={"name": "g", "arguments": ""}),
        piece(1, "{}"),
        piece(0, ": 1}"),
        chunk({}, "tool_calls"),
    )
    assert answer.tool_calls == (
        CALL,
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    )


@pytest.mark.parametrize(
    ("error", "kind", "retry"),
    [
        ({"message": "m", "type": "server_error", "code": None}, "service_error", True),
        ({"message": "m", "code": "rate_limit_exceeded"}, "rate_limit", True),
        ({"message": "m", "code": "server_is_overloaded"}, "service_error", True),
        ({"message": "m", "type": "insufficient_quota"}, "rate_limit", False),
        ({"message": "m", "code": "context_length_exceeded"}, "validation_error", False),
        ({"message": "m", "code": "something_new"}, "service_error", False),
        ("text", "service_error", False),
    ],
)
def test_an_error_inside_a_stream(error: Any, kind: str, retry: bool) -> None:
    fold = ChatFold()
    fold.add(chunk({"content": "Hel"}))
    with pytest.raises(ServiceError) as caught:
        fold.add({"error": error})
    assert (caught.value.type, caught.value.retry) == (kind, retry)
    assert caught.value.maybe_started


def test_a_refusal_inside_a_stream() -> None:
    with pytest.raises(Refused, match="Not this"):
        ChatFold().add({"error": {"code": "content_policy_violation", "message": "Not this."}})


TEXTS = st.text(max_size=40)


@given(st.lists(TEXTS, max_size=6), st.sampled_from(["stop", "length", "tool_calls", "content_filter"]), st.data())
def test_a_stream_says_what_the_whole_says_however_it_is_cut(texts: list[str], finish: str, data: Any) -> None:
    whole = "".join(texts)
    arguments = data.draw(TEXTS)
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    pieces = [chunk({"content": text}) for text in texts]
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    pieces.append(chunk({"tool_calls": [first]}))
    pieces += [chunk({"tool_calls": [{"index": 0, "function": {"arguments": c}}]}) for c in arguments]
    pieces += [chunk({}, finish), {"choices": [], "usage": USAGE}]
    expected = completion(choice(whole, finish, tool_calls=calls), usage=USAGE)
    if finish == "content_filter":
        with pytest.raises(Refused):
            folded(*pieces)
        return
    assert folded(*pieces) == read_completion(expected)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "choices delta message index content tool_calls function finish_reason error usage id".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=5))
def test_no_chunk_and_no_completion_is_fatal(values: list[Any]) -> None:
    fold = ChatFold()
    for value in values:
        try:
            fold.add(value)
            read_completion(value)
        except ServiceError:
            pass
    assert fold.finished in (True, False)
