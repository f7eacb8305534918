"""What a response object means, in every state it can be in (OpenAI reference 4.3, 4.4, 7, 11, 12)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import EmpTrioError, Refused, ServiceError
from emp_trio.services.openai.responses.answer import Answer, read_response, usage
from emp_trio.services.openai.responses.raw_output import raw_output

IMAGE = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "iVBORw0KGgo="}


def message(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)} | fields


def text(words: str) -> dict[str, Any]:
    return {"type": "output_text", "text": words, "annotations": []}


def refused(words: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": words}


def response(*output: dict[str, Any], status: str | None = "completed", **fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "model": "m-1", "output": list(output)} | fields


def read(*output: dict[str, Any], image: bool = False, **fields: Any) -> Answer:
    answer = read_response(response(*output, **fields), image_wanted=image)
    assert answer is not None
    return answer


@pytest.mark.parametrize("status", ["queued", "in_progress", "pending", "something_new", None, 7])
def test_no_answer_yet(status: Any) -> None:
    assert read_response(response(status=status), image_wanted=True) is None


def test_words_of_every_message_are_joined_and_reasoning_is_skipped() -> None:
    answer = read({"type": "reasoning", "summary": []}, message(text(" Hello"), text("world")), message(text("! ")))
    assert answer.text == "Hello\nworld\n!"
    assert answer.response_id == "resp_1"
    assert answer.model == "m-1"
    assert answer.skipped == ()
    assert not answer.truncated


def test_the_final_answer_is_preferred_where_messages_have_phases() -> None:
    answer = read(message(text("let me see"), phase="commentary"), message(text("42"), phase="final_answer"))
    assert answer.text == "42"


def test_commentary_counts_where_there_is_nothing_else() -> None:
    assert read(message(text("let me see"), phase="commentary")).text == "let me see"


def test_items_that_are_not_understood_are_skipped_and_named() -> None:
    assert read({"type": "web_search_call"}, {"type": "zebra"}, message(text("hi"))).skipped == (
        "web_search_call",
        "zebra",
    )


def test_a_missing_status_with_output_is_completed() -> None:
    assert read(message(text("hi")), status=None).text == "hi"


@pytest.mark.parametrize("status", ["completed", "generating", "in_progress", "failed", None])
def test_a_image_is_judged_by_its_result_not_by_its_status(status: str | None) -> None:
    answer = read(IMAGE | {"status": status, "output_format": "jpeg", "revised_prompt": "a cat"}, image=True)
    assert [(p.data, p.media_type, p.revised_prompt) for p in answer.images] == [
        ("iVBORw0KGgo=", "image/jpeg", "a cat")
    ]


@pytest.mark.parametrize(
    ("output_format", "media_type"),
    [("png", "image/png"), ("webp", "image/webp"), ("svg", "image/svg+xml"), ("heic", None), (None, None)],
)
def test_the_media_type_follows_the_format_that_was_used(output_format: str | None, media_type: str | None) -> None:
    assert read(IMAGE | {"output_format": output_format}).images[0].media_type == media_type


def test_a_image_is_a_success_whatever_the_words_beside_it_say() -> None:
    answer = read(IMAGE, message(text("I'm sorry, but I can't assist with that")), image=True)
    assert len(answer.images) == 1
    assert answer.text.startswith("I'm sorry")


def test_all_images_count() -> None:
    assert len(read(IMAGE, IMAGE | {"result": None}, IMAGE | {"result": "AAAA"}).images) == 2


@pytest.mark.parametrize(
    ("output", "quoted"),
    [
        ((message(text("I cannot draw that.")),), "I cannot draw that."),
        ((message(refused("No.")),), "No."),
        ((message(text("x" * 2000)),), "x" * 499 + "…"),
    ],
)
def test_words_instead_of_a_image_are_a_refusal(output: tuple[dict[str, Any], ...], quoted: str) -> None:
    with pytest.raises(Refused) as caught:
        read(*output, image=True)
    assert caught.value.message.endswith(quoted)
    assert not caught.value.retry


def test_a_refusal_part_is_a_refusal_of_a_text_job_too() -> None:
    with pytest.raises(Refused, match="I won't"):
        read(message(refused("I won't")))


def test_prose_that_sounds_like_a_refusal_is_an_answer() -> None:
    assert read(message(text("I'm sorry, but I can't assist with that"))).text


@pytest.mark.parametrize(
    ("code", "kind"), [("moderation_blocked", "generation_refusal"), ("invalid_image", "validation_error")]
)
def test_an_error_of_the_image_is_the_outcome(code: str, kind: str) -> None:
    item = IMAGE | {"result": None, "status": "failed", "error": {"code": code, "message": "m"}}
    with pytest.raises(ServiceError) as caught:
        read(item, image=True)
    assert (caught.value.type, caught.value.retry) == (kind, False)


def test_a_image_beside_a_failed_one_is_a_success() -> None:
    failed = IMAGE | {"result": None, "error": {"code": "moderation_blocked"}}
    assert len(read(failed, IMAGE, image=True).images) == 1


@pytest.mark.parametrize("reason", ["max_output_tokens", "max_messages", "steered"])
def test_words_that_were_cut_off_are_marked(reason: str) -> None:
    answer = read(message(text("Once upon")), status="incomplete", incomplete_details={"reason": reason})
    assert answer.text == "Once upon"
    assert answer.truncated


def test_the_content_filter_is_a_refusal() -> None:
    with pytest.raises(Refused, match="content filter"):
        read(message(text("Once")), status="incomplete", incomplete_details={"reason": "content_filter"})


@pytest.mark.parametrize("details", [{"reason": "max_output_tokens"}, {}, None, "odd"])
@pytest.mark.parametrize("image", [True, False])
def test_what_was_cut_off_before_there_was_anything_would_be_again(details: Any, image: bool) -> None:
    with pytest.raises(ServiceError, match="would stop again") as caught:
        read({"type": "reasoning"}, status="incomplete", incomplete_details=details, image=image)
    assert not caught.value.retry


def test_a_failed_response_has_its_own_error() -> None:
    with pytest.raises(ServiceError, match="The server had an error") as caught:
        read(status="failed", error={"code": "server_error", "message": "The server had an error"})
    assert caught.value.retry


def test_a_cancelled_response_is_final() -> None:
    with pytest.raises(ServiceError) as caught:
        read(status="cancelled")
    assert (caught.value.code, caught.value.retry) == ("cancelled", False)


def test_a_call_of_a_function_is_reported() -> None:
    with pytest.raises(ServiceError, match="get_weather") as caught:
        read({"type": "function_call", "name": "get_weather", "arguments": "{}"})
    assert (caught.value.reason, caught.value.retry) == ("unsupported_operation", False)


@pytest.mark.parametrize("image", [True, False])
def test_nothing_at_all_is_a_failure_worth_a_retry(image: bool) -> None:
    with pytest.raises(ServiceError) as caught:
        read({"type": "reasoning"}, image=image)
    assert (caught.value.reason, caught.value.retry) == ("missing_expected_data", True)


def test_usage_in_the_projects_shape() -> None:
    full = {
        "model": "gpt-6-luna-x",
        "usage": {
            "input_tokens": 1,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 4},
            "total_tokens": 5,
        },
        "tool_usage": {"image_gen": {"input_tokens": 6, "output_tokens": 7, "total_tokens": 13}},
    }
    assert usage(full, "gpt-image-x") == {
        "input_tokens": 1,
        "output_tokens": 3,
        "total_tokens": 5,
        "cached_tokens": 2,
        "reasoning_tokens": 4,
        "image": {"input_tokens": 6, "output_tokens": 7},
        "model": "gpt-6-luna-x",
        "image_model": "gpt-image-x",
    }


@pytest.mark.parametrize("said", [{}, {"usage": None}, {"usage": {"input_tokens": "many"}}, {"usage": []}])
def test_usage_that_was_not_said_is_none_and_not_zero(said: dict[str, Any]) -> None:
    assert usage(said) == {
        "input_tokens": None,
        "output_tokens": None,
        "total_tokens": None,
        "image": None,
        "model": None,
        "image_model": None,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ITEM = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "image_generation_call", "reasoning", "function_call"]) | JSON},
    optional={
        "content": st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["output_text", "refusal"]) | JSON}, optional={"text": JSON, "refusal": JSON}
            )
            | JSON,
            max_size=3,
        )
        | JSON,
        "result": JSON,
        "error": JSON,
        "phase": JSON,
        "name": JSON,
        "output_format": JSON,
    },
)
RESPONSE = st.fixed_dictionaries(
    {"status": st.sampled_from(["completed", "incomplete", "failed", "cancelled", "queued"]) | JSON},
    optional={
        "output": st.lists(ITEM | JSON, max_size=4) | JSON,
        "error": JSON,
        "incomplete_details": JSON,
        "usage": JSON,
        "tool_usage": JSON,
        "model": JSON,
        "id": JSON,
    },
)


@given(RESPONSE, st.booleans())
def test_no_response_ends_in_anything_but_an_answer_or_an_error_of_ours(found: dict[str, Any], image: bool) -> None:
    with contextlib.suppress(EmpTrioError):
        answer = read_response(found, image_wanted=image)
        assert answer is None or answer.images or (answer.text and not image)


def test_the_raw_output_of_a_result_has_no_image_and_no_secret_in_it() -> None:
    answer = read(IMAGE, message(text("sk-proj-a1b2c3d4e5f6g7h8")), metadata={"b64_json": "AAAA"})
    raw = raw_output(answer)
    assert raw["output"][0]["result"] == "<base64 image, 8 bytes>"
    assert raw["metadata"] == {"b64_json": "<base64 image, 3 bytes>"}
    assert "a1b2c3" not in str(raw)
    assert answer.raw["output"][0]["result"] == IMAGE["result"]


@pytest.mark.parametrize(
    "output",
    [
        [{"type": "message", "content": "hi"}],
        [{"type": "message", "content": [{"type": "text", "text": "hi"}]}],
        [{"type": "message", "content": {"type": "output_text", "text": "hi"}}],
        [{"role": "assistant", "content": ["hi"]}],
        [{"type": "output_text", "text": "hi"}],
        [{"type": "reasoning", "summary": []}, {"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    ],
)
def test_words_are_read_in_whichever_shape_they_come(output: list[Any]) -> None:
    found = read_response({"id": "r", "status": "completed", "output": output}, image_wanted=False)
    assert found is not None
    assert found.text == "hi"


def test_words_beside_the_output_count_and_unknown_content_is_quoted() -> None:
    found = read_response({"status": "completed", "output": [], "output_text": "hi"}, image_wanted=False)
    assert found is not None
    assert found.text == "hi"
    unknown = [{"type": "message", "content": [{"type": "hologram", "data": "xyz"}]}]
    with pytest.raises(ServiceError, match=r"not understood: .*xyz") as caught:
        read_response({"status": "completed", "output": unknown}, image_wanted=False)
    assert not caught.value.retry
