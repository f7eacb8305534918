"""Answers of the Images API (OpenAI reference 8)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import EmpTrioError, Refused, ServiceError
from emp_trio.services.openai.images.images_api import read_images_answer

USAGE = {"input_tokens": 15, "input_tokens_details": {}, "output_tokens": 1056, "total_tokens": 1071}


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


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "b64_json", "type", "usage", "error", "output_format"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_no_answer_is_fatal(value: Any) -> None:
    with contextlib.suppress(EmpTrioError):
        read_images_answer(value, image_model="m")
