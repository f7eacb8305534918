"""Answers and streams of the Images API (OpenAI reference 8, 9)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import EmpTrioError, Refused, ServiceError
from emp_trio.services.openai.images_api import ImagesStream, fold_images_event, read_images_answer

USAGE = {"input_tokens": 15, "input_tokens_details": {}, "output_tokens": 1056, "total_tokens": 1071}


def fold(*events: Any) -> ImagesStream:
    state = ImagesStream()
    for event in events:
        state = fold_images_event(state, event)
    return state


def test_every_image_of_an_answer_is_read() -> None:
    answer = read_images_answer(
        {
            "created": 1,
            "data": [{"b64_json": "AAAA", "revised_prompt": "a fat cat"}, {"b64_json": "BBBB", "url": None}],
            "output_format": "webp",
            "quality": "high",
            "size": "1024x1024",
            "usage": USAGE,
        },
        image_model="gpt-image-2",
    )
    assert [image.data for image in answer.images] == ["AAAA", "BBBB"]
    first = answer.images[0]
    assert (first.media_type, first.quality, first.size) == ("image/webp", "high", "1024x1024")
    assert first.revised_prompt == "a fat cat"
    assert answer.usage["image"] == {"input_tokens": 15, "output_tokens": 1056}
    assert answer.usage["image_model"] == "gpt-image-2"
    assert answer.usage["total_tokens"] is None
    assert answer.raw["created"] == 1


def test_what_the_service_does_not_say_is_unknown() -> None:
    answer = read_images_answer({"data": [{"b64_json": "AAAA"}]}, image_model="m")
    assert answer.usage["image"] is None
    assert answer.images[0].media_type is None


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        {"data": []},
        {"data": {}},
        {"data": [{}]},
        {"data": [{"url": "a cat.png"}]},
        {"data": [{"b64_json": ""}]},
        {"data": ["AAAA"]},
        {"data": [{"b64_json": None}, {"image": "nothing"}]},
    ],
)
def test_an_answer_without_a_image_is_a_failure_that_may_be_billed(answer: Any) -> None:
    with pytest.raises(ServiceError) as caught:
        read_images_answer(answer, image_model="m")
    assert (caught.value.type, caught.value.maybe_started) == ("response_error", True)


LONG = "A" * 80


@pytest.mark.parametrize(
    ("answer", "sources"),
    [
        ({"data": [{"url": "https://x/y.png"}]}, ["https://x/y.png"]),
        ({"data": [{"b64_json": None, "url": "https://x/y.png"}]}, ["https://x/y.png"]),
        ({"data": [{"b64_json": "AAAA", "url": "https://x/y.png"}]}, ["AAAA"]),
        ({"data": [{"b64_json": "data:image/png;base64,AAAA"}]}, ["data:image/png;base64,AAAA"]),
        ({"data": [{"b64_json": "AAAA"}, {"b64_json": None}, {"b64_json": "BBBB"}]}, ["AAAA", "BBBB"]),
        ({"data": [{"b64": "AAAA"}]}, ["AAAA"]),
        ({"data": [{"image_url": {"url": "https://x/y.png"}}]}, ["https://x/y.png"]),
        ({"data": [{"image": {"b64_json": "AAAA"}}]}, ["AAAA"]),
        ({"data": [{"image": LONG}]}, [LONG]),
        ({"data": [LONG]}, [LONG]),
        ({"data": ["https://x/y.png"]}, ["https://x/y.png"]),
        ({"data": {"b64_json": "AAAA"}}, ["AAAA"]),
        ({"images": [{"base64": "AAAA"}]}, ["AAAA"]),
        ({"images": [LONG]}, [LONG]),
        ({"artifacts": [{"base64": "AAAA"}]}, ["AAAA"]),
        ([{"b64_json": "AAAA"}], ["AAAA"]),
        ({"b64_json": "AAAA"}, ["AAAA"]),
        ({"data": [{"inline_data": {"mime_type": "image/png", "data": LONG}}]}, [LONG]),
        ({"error": {"code": "quota"}, "data": [{"b64_json": "AAAA"}]}, ["AAAA"]),
    ],
)
def test_a_image_is_found_under_any_of_its_names(answer: Any, sources: list[str]) -> None:
    assert [image.data for image in read_images_answer(answer, image_model="m").images] == sources


@pytest.mark.parametrize("answer", [{"data": [{"text": "I can't."}]}, {"data": [], "message": "I can't."}])
def test_words_in_place_of_a_image_are_a_refusal(answer: Any) -> None:
    with pytest.raises(Refused, match=r"I can't\.") as caught:
        read_images_answer(answer, image_model="m")
    assert caught.value.code == "no_image"


def test_an_error_under_200_is_told_in_its_words() -> None:
    error = {"error": {"message": "No credit is left.", "code": "insufficient_quota"}}
    with pytest.raises(ServiceError, match=r"No credit is left\.") as caught:
        read_images_answer(error, image_model="m")
    assert not caught.value.retry


def test_a_image_that_was_completed_before_an_error_is_kept() -> None:
    state = fold(
        {"type": "image_generation.completed", "b64_json": "ZmluYWw="},
        {"type": "error", "error": {"code": "server_error", "message": "m"}},
    )
    answer = state.answer(image_model="m")
    assert [image.data for image in answer.images] == ["ZmluYWw="]
    assert (answer.truncated, answer.stopped) == (True, "server_error")


@pytest.mark.parametrize("family", ["image_generation", "image_edit"])
def test_the_completed_image_is_the_result_and_no_partial_one(family: str) -> None:
    state = fold(
        {"type": f"{family}.partial_image", "b64_json": "cGFydA==", "partial_image_index": 0},
        {"type": "keepalive"},
        {"type": f"{family}.completed", "b64_json": "ZmluYWw=", "output_format": "png", "usage": USAGE},
    )
    assert (state.partials, state.partial) == (1, "cGFydA==")
    answer = state.answer(image_model="m")
    assert [image.data for image in answer.images] == ["ZmluYWw="]
    assert answer.usage["image"] == {"input_tokens": 15, "output_tokens": 1056}
    assert "b64_json" not in answer.raw


def test_a_stream_with_nothing_but_partial_images_is_lost() -> None:
    state = fold({"type": "image_generation.partial_image", "b64_json": "cGFydA=="})
    with pytest.raises(ServiceError, match="1 partial") as caught:
        state.answer(image_model="m")
    assert (caught.value.retry, caught.value.maybe_started) == (True, True)


@pytest.mark.parametrize("nested", [True, False])
def test_an_error_in_the_stream(nested: bool) -> None:
    members = {"type": "image_generation_user_error", "code": "moderation_blocked", "message": "No.", "param": None}
    event = {"type": "error", "error": members} if nested else members | {"type": "error"}
    with pytest.raises(Refused, match="No"):
        fold(event).answer(image_model="m")


def test_a_completed_event_without_a_image_is_a_failure() -> None:
    with pytest.raises(ServiceError, match="b64_json"):
        fold({"type": "image_edit.completed"}).answer(image_model="m")


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "b64_json", "type", "usage", "error", "output_format"]), inner)
    ),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["image_edit.completed", "image_generation.partial_image", "error", "completed", "."]))
def test_no_answer_and_no_event_is_fatal(value: Any, kind: str) -> None:
    with contextlib.suppress(EmpTrioError):
        read_images_answer(value, image_model="m")
    event = value | {"type": kind} if isinstance(value, dict) else value
    with contextlib.suppress(EmpTrioError):
        fold(event).answer(image_model="m")
