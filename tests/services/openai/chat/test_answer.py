"""Completions, whole and in chunks, as answers: by table and by property."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import Refused, ServiceError
from emp_trio.services.openai.chat.answer import ChatAnswer, ChatFold, read_completion

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
        (choice("hi", "brand_new"), "hi", True, 0),
    ],
)
def test_endings(given: dict[str, Any], text: str, truncated: bool, calls: int) -> None:
    answer = read_completion(completion(given))
    assert (answer.text, answer.truncated, len(answer.tool_calls)) == (text, truncated, calls)


GOOD_ENDS = "stop tool_calls function_call eos tool_use end_turn stop_sequence EOS complete".split()
CUT_ENDS = "length max_tokens abort aborted error insufficient_system_resource unknown safety cancelled timeout".split()


@pytest.mark.parametrize(("finish", "truncated"), [*((e, False) for e in GOOD_ENDS), *((e, True) for e in CUT_ENDS)])
def test_words_in_hand_are_kept_however_the_answer_ended(finish: str, truncated: bool) -> None:
    for answer in (
        read_completion(completion(choice("hi", finish))),
        folded(chunk({"content": "h"}), chunk({"content": "i"}, finish)),
        folded(chunk({"content": "hi"}), chunk({}, finish)),
    ):
        assert (answer.text, answer.finish_reason, answer.truncated) == ("hi", finish, truncated)


def test_an_end_without_a_word_is_the_services_own_in_a_whole_answer_only() -> None:
    assert not read_completion(completion(choice("hi", None))).truncated
    assert read_completion(completion(choice("hi", ""))).truncated
    fold = ChatFold()
    fold.add(chunk({"content": "hi"}, ""))
    assert (fold.finished, fold.ends_blank, fold.in_hand) == (False, True, True)
    assert (fold.answer().truncated, fold.answer().finish_reason) == (True, "")
    fold = ChatFold()
    fold.add(chunk({"content": "hi"}))
    assert (fold.finished, fold.ends_blank, fold.in_hand) == (False, False, True)
    assert (fold.answer().truncated, fold.answer().finish_reason) == (True, None)


@pytest.mark.parametrize("finish", ["abort", "error", "", None, "eos", "insufficient_system_resource"])
def test_without_words_no_end_is_a_success(finish: str | None) -> None:
    with pytest.raises(ServiceError, match="is empty") as caught:
        read_completion(completion(choice("", finish)))
    assert caught.value.retry


TEXT_PART = {"type": "text", "text": "hi"}


@pytest.mark.parametrize(
    ("content", "text", "skipped"),
    [
        ([TEXT_PART], "hi", ()),
        ([{"type": "text", "text": "h"}, {"type": "output_text", "text": "i"}], "hi", ()),
        (["h", "i"], "hi", ()),
        (TEXT_PART, "hi", ()),
        ({"text": "hi"}, "hi", ()),
        ([{"type": "text", "text": {"value": "hi", "annotations": []}}], "hi", ()),
        ({"parts": [{"text": "hi"}]}, "hi", ()),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, TEXT_PART], "hi", ()),
        ([{"type": "reasoning", "text": "hm"}, TEXT_PART], "hi", ()),
        ([TEXT_PART, {"type": "image_url", "image_url": {"url": "u"}}], "hi", ("image_url",)),
        ([TEXT_PART, None, 7], "hi", ("int",)),
    ],
)
def test_content_in_parts_is_text(content: Any, text: str, skipped: tuple[str, ...]) -> None:
    for answer in (
        read_completion(completion(choice(content))),
        folded(chunk({"content": content}), chunk({}, "stop")),
        folded({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}),
    ):
        assert (answer.text, answer.skipped) == (text, skipped)


@pytest.mark.parametrize("content", [7, True, {"hologram": "xyz"}, [{"type": "hologram", "data": "xyz"}], [[7]]])
def test_content_of_an_unknown_kind_is_quoted_and_never_read_as_empty(content: Any) -> None:
    for read in (
        lambda: read_completion(completion(choice(content))),
        lambda: folded(chunk({"content": content}), chunk({}, "stop")),
    ):
        with pytest.raises(ServiceError, match=r"not understood: .*(xyz|7|true)") as caught:
            read()
        assert not caught.value.retry


@pytest.mark.parametrize("message", [7, True, [7]])
def test_a_message_of_an_unknown_kind_is_quoted(message: Any) -> None:
    for read in (
        lambda: read_completion({"choices": [{"message": message, "finish_reason": "stop"}]}),
        lambda: folded({"choices": [{"delta": message, "finish_reason": "stop"}]}),
    ):
        with pytest.raises(ServiceError, match=r"not understood: .*(7|true)"):
            read()


@pytest.mark.parametrize(
    "odd", [{"id": 7, "model": ["m"], "usage": [1]}, {"choices": [None, "x"]}, {"usage": {"total_tokens": "3"}}]
)
def test_an_odd_member_takes_nothing_from_the_others(odd: dict[str, Any]) -> None:
    good = {"id": "c", "model": "m", "choices": [choice("one")], "usage": {"prompt_tokens": 1}}
    odd = {**odd, "choices": [*odd.get("choices", ()), choice("one")]}
    assert read_completion(good | odd).text == "one"
    assert folded(good | odd).text == "one"


@pytest.mark.parametrize(
    "parts", [[{"type": "refusal", "refusal": "I won't."}], [{"type": "refusal", "text": "I won't."}]]
)
def test_a_refusal_among_the_parts_is_one(parts: Any) -> None:
    with pytest.raises(Refused, match="I won't"):
        read_completion(completion(choice(parts)))
    with pytest.raises(Refused, match="I won't"):
        folded(chunk({"content": parts}), chunk({}, "stop"))


def test_a_character_that_is_spread_over_two_chunks_is_one() -> None:
    function = {"name": "f", "arguments": '{"a": "\ud83d'}
    answer = folded(
        chunk({"content": "a\ud83d"}),
        chunk({"content": "\ude00b"}),
        chunk({"content": "\ud83d"}),
        chunk({"tool_calls": [{"index": 0, "id": "x", "function": function}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '\ude00"}'}}]}, "stop"),
    )
    assert answer.text == "a\U0001f600b\ufffd"
    assert answer.tool_calls[0]["function"]["arguments"] == '{"a": "\U0001f600"}'


def test_a_whole_completion_in_a_stream_is_an_answer() -> None:
    fold = ChatFold()
    assert fold.add(completion(choice("all of it"))) == "all of it"
    assert (fold.finished, fold.answer()) == (True, read_completion(completion(choice("all of it"))))
    fold = ChatFold()
    fold.add(completion(choice("all of it", None)))
    assert (fold.finished, fold.answer().truncated) == (True, False)


def test_a_message_at_the_end_of_a_stream_says_nothing_twice() -> None:
    last = {"choices": [{"index": 0, "delta": {}, "message": {"content": "hello"}, "finish_reason": "stop"}]}
    assert folded(chunk({"content": "hel"}), chunk({"content": "lo"}), last).text == "hello"


def test_the_form_before_tool_calls_is_read() -> None:
    function = {"name": "f", "arguments": '{"a": 1}'}
    expected = ({"id": "", "type": "function", "function": function},)
    assert read_completion(completion(choice(None, "function_call", function_call=function))).tool_calls == expected
    pieces = [{"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ": 1}"}]
    chunks = [chunk({"function_call": piece}) for piece in pieces]
    answer = folded(*chunks, chunk({}, "function_call"))
    assert (answer.tool_calls, answer.truncated) == (expected, False)


def test_log_probabilities_come_back_as_they_came() -> None:
    tokens = [{"token": t, "logprob": -0.1, "top_logprobs": []} for t in ("h", "i")]
    whole = choice("hi") | {"logprobs": {"content": tokens, "refusal": None}}
    assert read_completion(completion(whole)).logprobs == {"content": tokens, "refusal": None}
    pieces = [chunk({"content": t["token"]}) for t in tokens]
    for piece, token in zip(pieces, tokens, strict=True):
        piece["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    assert folded(*pieces, chunk({}, "stop")).logprobs == {"content": tokens, "refusal": None}


def test_of_several_choices_one_with_words_counts() -> None:
    answer = read_completion(completion(choice("", "abort"), choice("two", index=1)))
    assert (answer.text, answer.truncated) == ("two", False)


def test_an_unknown_answer_is_quoted() -> None:
    for read in (lambda: read_completion({"hologram": "xyz"}), lambda: folded_to_the_end({"hologram": "xyz"})):
        with pytest.raises(ServiceError, match=r"has no choices: .*xyz") as caught:
            read()
        assert not caught.value.retry


def folded_to_the_end(*chunks: Any) -> ChatAnswer:
    fold = ChatFold()
    for one in chunks:
        fold.add(one)
    assert fold.strange
    return fold.answer()


@pytest.mark.parametrize(
    ("given", "kind", "retry"),
    [
        ({"error": {"message": "the words", "code": "insufficient_quota"}}, "rate_limit", False),
        ({"error": {"message": "the words", "code": 402}}, "rate_limit", False),
        ({"error": {"message": "the words", "code": 429}}, "rate_limit", True),
        ({"error": {"message": "the words", "code": "503"}}, "service_error", True),
        ({"error": {"message": "the words", "code": 401}}, "auth_error", False),
        (
            {"error": {"message": "the words", "code": 403, "metadata": {"flagged_input": "x"}}},
            "generation_refusal",
            False,
        ),
        ({"error": {"message": "the words", "code": "content_filter"}}, "generation_refusal", False),
        ({"error": {"message": "the words", "type": "rate_limit_error"}}, "rate_limit", True),
        (
            {"error": {"message": "the words", "type": "invalid_request_error", "code": "new"}},
            "validation_error",
            False,
        ),
        ({"error": {"message": "the words"}}, "service_error", False),
        ({"error": "the words"}, "service_error", False),
        ({"error": True, "message": "the words"}, "service_error", False),
        (
            {"object": "error", "message": "the words", "type": "BadRequestError", "code": 400},
            "validation_error",
            False,
        ),
        ({"object": "error", "message": "the words", "code": 50000}, "service_error", False),
        ({"type": "error", "message": "the words", "code": "server_error"}, "service_error", True),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "the words"}}, "service_error", True),
        ({"detail": "the words"}, "service_error", False),
        ({"detail": [{"loc": ["body"], "msg": "the words"}]}, "service_error", False),
        ({"message": "the words", "code": 400}, "validation_error", False),
        ({"msg": "the words", "code": 1234}, "service_error", False),
        ({"errors": [{"message": "the words"}], "success": False}, "service_error", False),
        ([{"error": {"message": "the words", "code": 429}}], "rate_limit", True),
    ],
)
def test_an_error_with_a_good_status_keeps_its_words_and_its_class(given: Any, kind: str, retry: bool) -> None:
    for read in (lambda: read_completion(given), lambda: ChatFold().add(given)):
        with pytest.raises(ServiceError, match="the words") as caught:
            read()
        assert (caught.value.type, caught.value.retry) == (kind, retry)


def test_an_error_beside_words_does_not_take_them_away() -> None:
    error = {"code": 502, "message": "the words"}
    for beside in ({"error": error}, {}):
        last = choice("half", "error") | ({} if beside else {"error": error})
        answer = read_completion(completion(last) | beside)
        assert (answer.text, answer.truncated, answer.finish_reason) == ("half", True, "error")
        with pytest.raises(ServiceError, match="the words"):
            read_completion(completion(choice("", "error") | {"error": error}) | beside)


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
