"""What becomes of a payload: documented names only, warnings for the rest, and never anything but an InvalidJob."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob
from emp_trio.services.gemini.bodies import generate_content_body, interaction_body, only_generate_content
from emp_trio.services.gemini.images import shown
from emp_trio.services.gemini.payload import Asked, Source, read_payload, sources
from emp_trio.services.gemini.scrub import scrubbed
from emp_trio.services.gemini.wire import camel, snake
from emp_trio.testing.gemini.rules import generate_content_violations, interaction_violations


def read(payload: dict[str, Any]) -> Asked:
    return read_payload(payload, api="interactions", configured="", in_address="")


def test_names_in_snake_case_are_those_of_the_documentation() -> None:
    payload = {
        "contents": [{"parts": [{"text": "x"}]}],
        "generation_config": {"image_config": {"aspect_ratio": "1:1", "image_size": "4K"}, "top_p": 0.5},
        "safety_settings": [],
        "system_instruction": {"parts": [{"text": "y"}]},
    }
    body = generate_content_body(read(payload))
    assert body["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"],
        "topP": 0.5,
        "imageConfig": {"aspectRatio": "1:1", "imageSize": "4K"},
    }
    assert generate_content_violations(body) == []


def test_the_newer_way_to_ask_for_a_image_is_kept_and_never_mixed_with_the_older_one() -> None:
    flat = {"image": {"aspectRatio": "1:1", "mimeType": "image/jpeg", "delivery": "uri"}}
    asked = read({"prompt": "x", "image_size": "4K", "generationConfig": {"responseFormat": flat}})
    wanted = {"aspectRatio": "1:1", "mimeType": "image/jpeg", "imageSize": "4K"}
    assert generate_content_body(asked)["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"],
        "responseFormat": {"image": wanted},
    }
    assert interaction_body(asked)["response_format"] == {
        "type": "image",
        "delivery": "inline",
        "aspect_ratio": "1:1",
        "mime_type": "image/jpeg",
        "image_size": "4K",
    }
    assert asked.warnings == ("delivery is left out: the image is taken from the answer and saved",)


@pytest.mark.parametrize(
    ("payload", "warning"),
    [
        ({"prompt": "x", "n": 3}, "n=3 is left out"),
        ({"prompt": "x", "n": "9" * 10**6}, f"n={'9' * 20} is left out"),
        ({"prompt": "x", "model": "imagen-4.0-generate-001"}, "imagen-4.0-generate-001 was shut down"),
        ({"prompt": "x", "model": "imagen-" + "9" * 10**6}, "9 was shut down"),
        ({"contents": [{"parts": [{"text": "x"}]}], "tools": [], "ctx": {}}, "Gemini does not know it: tools"),
    ],
)
def test_what_is_left_out_is_said(payload: dict[str, Any], warning: str) -> None:
    (said,) = read(payload).warnings
    assert warning in said
    assert len(said) < 250


@pytest.mark.parametrize(
    "payload",
    [
        {"prompt": "x", "text": "y", "workflow_id": "w", "user_id": "u", "customer": 7},
        {"text": "x", "n": 1, "api": None, "model": None, "generationConfig": None},
    ],
)
def test_what_the_fleet_puts_beside_a_prompt_is_nothing_to_speak_of(payload: dict[str, Any]) -> None:
    asked = read(payload)
    assert asked.warnings == ()
    assert asked.contents == [{"role": "user", "parts": [{"text": "x"}]}]


def test_images_keep_their_order_and_are_fetched_once() -> None:
    url = "https://host/a.png"
    payload = {
        "prompt": "x",
        "images": ["https://host/b.png", {"url": url}],
        "z": [{"inline_data": {"image_url": url}}],
    }
    asked = read(payload)
    assert sources(asked) == [Source("https://host/b.png"), Source(url)]
    assert len(asked.contents[0]["parts"]) == 4


def test_a_copy_that_is_kept_names_images_without_their_bytes_or_signatures() -> None:
    asked = read({"prompt": "x", "images": ["https://host/b.png?sig=secret", "A" * 400]})
    kept = scrubbed(generate_content_body(shown(asked)))
    parts = kept["contents"][0]["parts"]
    assert [part["inlineData"]["data"] for part in parts[1:]] == ["<https://host/b.png>", "<base64 data, 300 bytes>"]


@pytest.mark.parametrize("name", ["mimeType", "thoughtSignature", "temperature", "systemInstruction"])
def test_names_go_both_ways(name: str) -> None:
    assert camel({snake(name): [{snake(name): 1}]}) == {name: [{name: 1}]} or name == snake(name)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"data": "QUJD"}, {"data": "<base64 data, 3 bytes>"}),
        ({"thoughtSignature": "c2ln"}, {"thoughtSignature": "<signature>"}),
        (
            [{"steps": [{"signature": "c2ln", "type": "thought"}]}],
            [{"steps": [{"signature": "<signature>", "type": "thought"}]}],
        ),
        ({"url": "https://h/p?key=AIzaSyD-0123456789abcdefghij"}, {"url": "https://h/p?key=***"}),
        ({"x-goog-api-key": "abc"}, {"x-goog-api-key": "***"}),
        ({"text": "a cat", "data": None}, {"text": "a cat", "data": None}),
    ],
)
def test_what_is_kept_is_scrubbed(value: Any, kept: Any) -> None:
    assert scrubbed(value) == kept


NAMES = (
    "prompt text contents parts inline_data inlineData image_url data mime_type file_data file_uri fileUri images "
    "image api model n generation_config response_format image_config aspect_ratio role system_instruction store"
).split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["x", "https://h/p", "image/png", "QUJD", "user"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
def test_any_payload_is_a_request_or_an_invalid_job(payload: dict[str, Any]) -> None:
    try:
        asked = read(payload)
    except InvalidJob:
        return
    kept = shown(asked)
    msgspec.json.encode(generate_content_body(kept))
    if not only_generate_content(kept):
        body = interaction_body(kept)
        msgspec.json.encode(body)
        assert not [text for text in interaction_violations(body) if "input part" in text or "field" in text]
