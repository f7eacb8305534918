"""The rules of the fake OpenAI as functions of values: no request, however odd, is fatal to it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.testing.forms import Upload, parse_form
from emp_trio.testing.openai import Script
from emp_trio.testing.openai.chat import Completion
from emp_trio.testing.openai.chat_rules import chat_fault, chat_violations
from emp_trio.testing.openai.checks import Fault
from emp_trio.testing.openai.image_info import looks_of
from emp_trio.testing.openai.image_rules import form_body, image_fault, image_violations
from emp_trio.testing.openai.media import make_image
from emp_trio.testing.openai.rules import FIELDS, fault_of, violations_of
from emp_trio.testing.openai.sse import pieces

WORDS = """
    type role content name function model tools tool_choice messages input image_url file_id url detail prompt images
    mask n size stream stream_options metadata response_format json_schema schema text image_generation input_image
    message user assistant json_object gpt-6-luna gpt-4.1 gpt-image-2.6-flare none auto required reasoning effort
    reasoning_effort background partial_images output_format gif svg data:image/png;base64,AAAA action edit
    input_image_mask quality output_compression https://x/y completion_window background_options enum properties object
""".split()
names = st.sampled_from(WORDS) | st.text(max_size=3)
scalars = st.none() | st.booleans() | st.integers(-2, 3000) | st.floats(allow_nan=False) | names
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
TOOL = {"type": "image_generation", "model": "gpt-image-2.6-flare"}
CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}
FUNCTION = {"type": "function", "function": {"name": "a"}}


def bodies(**fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Requests that are right to begin with, and then are not."""
    return st.dictionaries(st.sampled_from([*WORDS, *FIELDS]) | names, values, max_size=4).map(lambda odd: fixed | odd)


@given(
    bodies(model="gpt-6-luna", input="hi")
    | st.builds(lambda tool: {"model": "gpt-6-luna", "input": "hi", "tools": [TOOL | tool]}, bodies())
    | st.builds(
        lambda choice: {"model": "gpt-6-luna", "input": "hi", "tools": [TOOL], "tool_choice": choice},
        bodies(type="image_generation"),
    )
    | st.builds(
        lambda item: {"model": "gpt-6-luna", "input": [{"type": "message", "role": "user"} | item], "tools": [TOOL]},
        bodies(),
    )
)
def test_no_responses_request_is_fatal(body: dict[str, Any]) -> None:
    assert isinstance(violations_of(body), list)
    assert isinstance(fault_of(body), Fault | None)


@given(
    bodies(model="gpt-6-luna", messages=[{"role": "user", "content": "hi"}])
    | st.builds(lambda message: {"model": "gpt-4.1", "messages": [{"role": "user"} | message]}, bodies())
    | st.builds(lambda tools, choice: CHAT | {"tools": tools, "tool_choice": choice}, values, values)
    | st.builds(lambda choice: CHAT | {"tools": [FUNCTION], "tool_choice": choice}, bodies(function={"name": "a"}))
)
def test_no_chat_request_is_fatal(body: dict[str, Any]) -> None:
    assert isinstance(chat_violations(body), list)
    fault = chat_fault(body)
    if fault is None:
        completion = Completion(id="chatcmpl-1", created=0, body=body, script=Script(seconds=0))
        assert completion.whole()["choices"]
        assert completion.frames()[-1] == b"data: [DONE]\n\n"


@given(bodies(model="gpt-image-2.6-flare", prompt="a cat"), st.booleans())
def test_no_images_request_is_fatal(body: dict[str, Any], edit: bool) -> None:
    assert isinstance(image_violations(body, edit=edit), list)
    assert isinstance(image_fault(body, edit=edit), Fault | None)


@given(st.binary(max_size=200), st.text(max_size=40))
def test_no_form_is_fatal(raw: bytes, boundary: str) -> None:
    try:
        parts = parse_form(raw, f"multipart/form-data; boundary={boundary}")
    except ValueError:
        return
    assert isinstance(form_body(parts), dict | Fault)


@given(st.lists(st.tuples(st.sampled_from(["image[]", "mask", "prompt"]), st.binary(max_size=99)), max_size=4))
def test_forms_come_out_as_they_went_in(parts: list[tuple[str, bytes]]) -> None:
    files = [(name, (f"{name}.png", data, "image/png")) for name, data in parts]
    request = httpx.Request("POST", "http://x/", files=files or {"a": (None, "b")})
    read = parse_form(request.read(), request.headers["content-type"])
    if files:
        assert read == [
            Upload(name=name, filename=f"{name}.png", content_type="image/png", data=data) for name, data in parts
        ]


@given(st.text(max_size=60))
def test_a_text_is_the_sum_of_its_pieces(text: str) -> None:
    assert "".join(pieces(text)) == text


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@given(size=st.integers(9000, 150_000).map(lambda half: half * 2), cut=st.integers(0, 400))
def test_images_have_the_size_that_was_asked_for(format: str, size: int, cut: int) -> None:
    data = make_image(format, seed=3, size=size)
    assert len(data) == size
    looks = looks_of(data)
    assert looks is not None
    assert looks.format == format
    looks_of(data[:cut])  # of a part of it, whatever; never an error
