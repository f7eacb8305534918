"""What becomes of a job's payload on its way to the API (OpenAI reference 1, 4.1, 7, 15)."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob, Refused, ServiceError
from emp_trio.services.openai.image_options import image_options, image_prompt
from emp_trio.services.openai.images.images_api import generations_request
from emp_trio.services.openai.models import DEFAULT_IMAGE_MODEL, choose_image_model, is_image_model
from emp_trio.services.openai.responses.request import (
    ResponsesRequest,
    as_stream,
    image_request,
    plain_choice,
    responses_request,
)
from emp_trio.testing.openai.rules import fault_of, violations_of

TODAY = datetime.date(2026, 11, 23)


def responses(payload: dict[str, Any]) -> ResponsesRequest:
    return responses_request(payload, job_id="job-1", default_model="gpt-6-luna")


def image(payload: dict[str, Any]) -> ResponsesRequest:
    prompt = image_prompt(payload, "prompt", "description")
    options = image_options(payload, image_model=DEFAULT_IMAGE_MODEL, size="auto", quality="standard", today=TODAY)
    return image_request(prompt, options, job_id="job-1", outer_model="gpt-6-luna", metadata=payload.get("metadata"))


ADDED = {"background": True, "store": True, "metadata": {"job_id": "job-1"}}


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        ({"input": "hi"}, {"input": "hi", "model": "gpt-6-luna"}),
        ({"input": "hi", "model": "gpt-4.1"}, {"input": "hi", "model": "gpt-4.1"}),
        ({"dynamic_json": {"input": "hi"}, "input": "not this"}, {"input": "hi", "model": "gpt-6-luna"}),
        ({"input": "hi", "model": ""}, {"input": "hi", "model": "gpt-6-luna"}),
        (
            {"input": "hi", "ctx": {}, "bucket": "b", "prefix": "p", "filename": "f", "provider": "azure"},
            {"input": "hi", "model": "gpt-6-luna"},
        ),
        (
            {"input": "hi", "cdnUrl": "c", "workflow_name": "w", "user_id": "u", "generation_context": 1},
            {"input": "hi", "model": "gpt-6-luna"},
        ),
        ({"input": "hi", "save_assets": False}, {"input": "hi", "model": "gpt-6-luna"}),
        (
            {"input": "hi", "brand_new": {"x": [1]}, "temperature": None},
            {"input": "hi", "brand_new": {"x": [1]}, "temperature": None, "model": "gpt-6-luna"},
        ),
        ({"input": "hi", "background": False, "store": False}, {"input": "hi", "model": "gpt-6-luna"}),
    ],
)
def test_a_responses_payload_goes_through_but_for_the_documented_changes(
    payload: dict[str, Any], body: dict[str, Any]
) -> None:
    before = repr(payload)
    assert responses(payload).body == body | ADDED
    assert repr(payload) == before


@pytest.mark.parametrize("stream", [False, None, 1, "true"])
def test_only_true_turns_streaming_on(stream: Any) -> None:
    request = responses({"input": "hi", "stream": stream, "stream_options": {}})
    assert request.body == {"input": "hi", "model": "gpt-6-luna"} | ADDED
    assert bool(request.warnings) is bool(stream)


STREAMED: dict[str, Any] = {"input": "hi", "stream": True, "stream_options": {"include_obfuscation": False}}


@pytest.mark.parametrize(
    ("more", "added"),
    [
        ({}, ADDED),
        ({"background": True, "store": False}, ADDED),
        ({"background": False}, {"metadata": {"job_id": "job-1"}}),
        ({"background": False, "store": False}, {"metadata": {"job_id": "job-1"}}),
    ],
)
def test_a_stream_goes_through_and_can_be_resumed_unless_the_payload_says_otherwise(
    more: dict[str, Any], added: dict[str, Any]
) -> None:
    request = responses(STREAMED | more)
    assert request.body == STREAMED | more | {"model": "gpt-6-luna"} | added
    assert request.warnings == ()


@pytest.mark.parametrize(
    ("metadata", "sent"),
    [
        ({"a": "b"}, {"a": "b", "job_id": "job-1"}),
        ({"job_id": "theirs"}, {"job_id": "theirs"}),
        ({str(i): "x" for i in range(16)}, {str(i): "x" for i in range(16)}),
        (None, {"job_id": "job-1"}),
        ("odd", "odd"),
    ],
)
def test_the_jobs_id_goes_into_the_metadata_where_there_is_room(metadata: Any, sent: Any) -> None:
    assert responses({"input": "hi", "metadata": metadata}).body["metadata"] == sent


@pytest.mark.parametrize(
    "payload",
    [{}, {"ctx": {}}, {"stream": True}, {"dynamic_json": {}}, {"dynamic_json": "text"}, {"dynamic_json": None}],
)
def test_a_payload_with_nothing_to_send_is_invalid(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        responses(payload)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, False),
        ({"tools": [{"type": "image_generation"}]}, False),
        ({"tools": [{"type": "image_generation"}], "tool_choice": "required"}, True),
        ({"tools": [{"type": "image_generation"}, {"type": "function"}], "tool_choice": "required"}, False),
        ({"tools": [{"type": "image_generation"}], "tool_choice": {"type": "image_generation"}}, True),
        ({"tools": "odd", "tool_choice": "required"}, False),
    ],
)
def test_a_image_is_wanted_where_the_model_has_no_choice(fields: dict[str, Any], wanted: bool) -> None:
    assert responses({"input": "hi"} | fields).image_wanted is wanted


def test_an_image_request_is_complete() -> None:
    request = image({"prompt": "a cat"})
    assert (
        request.body
        == {
            "model": "gpt-6-luna",
            "input": "a cat",
            "tools": [{"type": "image_generation", "model": DEFAULT_IMAGE_MODEL, "size": "auto", "quality": "medium"}],
            "tool_choice": {"type": "image_generation"},
        }
        | ADDED
    )
    assert request.image_wanted
    assert request.warnings == ()


@pytest.mark.parametrize(
    ("options", "tool"),
    [
        ({"size": "1536x1024"}, {"size": "1536x1024"}),
        ({"quality": "standard"}, {"quality": "medium"}),
        ({"quality": "hd"}, {"quality": "high"}),
        ({"quality": "xhigh"}, {"quality": "xhigh"}),
        (
            {"background": "transparent", "output_format": "webp"},
            {"background": "transparent", "output_format": "webp"},
        ),
        ({"background": True}, {}),
        ({"output_format": "jpg", "compression": 80}, {"output_format": "jpeg", "output_compression": 80}),
        ({"output_format": "jpeg", "output_compression": 70}, {"output_format": "jpeg", "output_compression": 70}),
        ({"moderation": "low"}, {"moderation": "low"}),
        ({"size": None, "quality": None}, {}),
        ({"size": " 1024X1536 ", "complexity": "low"}, {"size": "1024x1536", "complexity": "low"}),
        ({"quality": "", "moderation": 7}, {}),
        ({"output_format": "jpeg", "compression": "80"}, {"output_format": "jpeg", "output_compression": 80}),
        ({"output_format": "webp", "output_compression": 0}, {"output_format": "webp", "output_compression": 0}),
        ({"style": "vivid", "response_format": "b64_json", "user": "u"}, {}),
        ({"model": "gpt-image-2"}, {"model": "gpt-image-2"}),
        ({"model": "gpt-4.1"}, {}),
    ],
)
def test_options_reach_the_tool(options: dict[str, Any], tool: dict[str, Any]) -> None:
    request = image({"prompt": "a cat"} | options)
    usual = {"type": "image_generation", "model": DEFAULT_IMAGE_MODEL, "size": "auto", "quality": "medium"}
    assert request.body["tools"] == [usual | tool]
    assert fault_of(request.body) is None
    assert violations_of(request.body) == []


@pytest.mark.parametrize(
    "payload", [{"n": 0}, {"n": 11}, {"n": True}, {"n": "many"}, {"n": 1.5}, {"compression": 101}, {"compression": -1}]
)
def test_numbers_out_of_range_are_invalid(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="whole number"):
        image({"prompt": "a cat"} | payload)


@pytest.mark.parametrize(("n", "sent"), [(None, 1), (1, 1), ("4", 4), (10, 10)])
def test_the_images_api_takes_the_same_options_and_a_number_of_images(n: Any, sent: int) -> None:
    payload = {"n": n, "size": "1024x1024", "output_format": "jpg", "compression": 50, "style": "vivid"}
    options = image_options(payload, image_model="gpt-image-2", size="auto", quality="hd", today=TODAY)
    assert generations_request("a cat", options) == {
        "model": "gpt-image-2",
        "prompt": "a cat",
        "n": sent,
        "size": "1024x1024",
        "quality": "high",
        "output_format": "jpeg",
        "output_compression": 50,
    }


def test_an_image_request_as_a_stream() -> None:
    request = image({"prompt": "a cat"})
    resumable = as_stream(request, background=True, partial_images=3)
    (tool,) = request.body["tools"]
    assert resumable.body == request.body | {"stream": True, "tools": [tool | {"partial_images": 3}]}
    plain = as_stream(request, background=False, partial_images=3)
    assert plain.body == {name: value for name, value in resumable.body.items() if name not in ("background", "store")}
    assert plain.image_wanted
    assert "stream" not in request.body


def test_a_text_model_in_the_payload_is_the_outer_one() -> None:
    assert image({"prompt": "a cat", "model": "gpt-4.1"}).body["model"] == "gpt-4.1"
    assert image({"prompt": "a cat", "model": "gpt-image-2"}).body["model"] == "gpt-6-luna"


@pytest.mark.parametrize("payload", [{"description": "a cat"}, {"prompt": "", "description": "a cat"}])
def test_a_description_will_do(payload: dict[str, Any]) -> None:
    assert image(payload).body["input"] == "a cat"


@pytest.mark.parametrize("payload", [{}, {"prompt": ""}, {"prompt": 7}, {"prompt": None, "description": None}])
def test_no_prompt_is_invalid(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="prompt"):
        image(payload)


def test_what_is_left_out_is_said() -> None:
    (warning,) = image({"prompt": "a cat", "model": "dall-e-3"}).warnings
    assert "dall-e-3" in warning


def test_what_changes_nothing_is_not_said() -> None:
    assert image({"prompt": "a cat", "n": 1, "save_assets": True}).warnings == ()


@pytest.mark.parametrize(
    ("name", "model", "said"),
    [
        ("gpt-image-2.6-sunburst", "gpt-image-2.6-sunburst", ""),
        ("flux-of-some-proxy", "flux-of-some-proxy", ""),
        ("dall-e-3", DEFAULT_IMAGE_MODEL, "shut down on 2026-05-12"),
        ("dall-e-2", DEFAULT_IMAGE_MODEL, "shut down on 2026-05-12"),
        ("gpt-image-1", DEFAULT_IMAGE_MODEL, "shut down on 2026-10-23"),
        ("gpt-image-1.5", "gpt-image-1.5", "will be shut down on 2026-12-01"),
        ("gpt-4.1", DEFAULT_IMAGE_MODEL, "is a text model"),
    ],
)
def test_image_models(name: str, model: str, said: str) -> None:
    chosen, warning = choose_image_model(name, today=TODAY)
    assert chosen == model
    assert said in warning if said else warning == ""


def test_a_model_is_replaced_from_its_last_day_on() -> None:
    last = datetime.date(2026, 12, 1)
    assert choose_image_model("gpt-image-1.5", today=last)[0] == DEFAULT_IMAGE_MODEL


@pytest.mark.parametrize("name", ["gpt-image-2", "chatgpt-image-latest", "dall-e-3", "my-image-model"])
def test_image_models_are_known_by_their_names(name: str) -> None:
    assert is_image_model(name)


@pytest.mark.parametrize("name", ["gpt-6-luna", "gpt-4.1", "o3"])
def test_text_models_are_not_image_models(name: str) -> None:
    assert not is_image_model(name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = "prompt description model size quality background output_format compression moderation n metadata tools".split()


def refused(status: int = 400, **more: Any) -> ServiceError:
    return ServiceError(more.pop("message", "no"), status=status, **more)


IMAGE_TOOL = {"type": "image_generation"}


@pytest.mark.parametrize(
    ("error", "tools", "plain"),
    [
        (refused(param="tool_choice"), [IMAGE_TOOL], True),
        (refused(param="tool_choice.type"), [IMAGE_TOOL], True),
        (refused(422, message="body.tool_choice: Input should be a valid string"), [IMAGE_TOOL], True),
        (
            refused(message="cannot unmarshal object into Go struct field .tool_choice of type string"),
            [IMAGE_TOOL],
            True,
        ),
        (refused(param="body.tool_choice"), [IMAGE_TOOL], True),
        (refused(param="body[0]/tool_choice/type"), [IMAGE_TOOL], True),
        (refused(message="Tool choice must be a string"), [IMAGE_TOOL], True),
        (refused(message="toolChoice: expected a string, got an object"), [IMAGE_TOOL], True),
        (refused(message="Input should be 'none', 'auto' or 'required'"), [IMAGE_TOOL], True),
        (refused(message="auto mode is required"), [IMAGE_TOOL], False),
        (refused(422, message="tool choices are none, auto, required", maybe_started=True), [IMAGE_TOOL], False),
        (refused(param="my_tool_choice"), [IMAGE_TOOL], False),
        (refused(param="tool_choice"), [IMAGE_TOOL, {"type": "function"}], False),
        (refused(param="tools"), [IMAGE_TOOL], False),
        (refused(param="tools", message="tool_choice"), [IMAGE_TOOL], False),
        (refused(500, param="tool_choice"), [IMAGE_TOOL], False),
        (refused(param="tool_choice", maybe_started=True), [IMAGE_TOOL], False),
        (Refused("tool_choice", status=400), [IMAGE_TOOL], False),
    ],
)
def test_a_refused_tool_choice_has_a_plain_form(error: ServiceError, tools: list[Any], plain: bool) -> None:
    body = {"tools": tools, "tool_choice": IMAGE_TOOL}
    found = plain_choice(ResponsesRequest(body=body, image_wanted=True), error)
    assert (found is not None) is plain
    if found is not None:
        assert (found.body, found.image_wanted) == (body | {"tool_choice": "required"}, True)


@given(st.dictionaries(st.sampled_from([*NAMES, "dynamic_json", "input", "tool_choice", "stream", "background"]), JSON))
def test_no_payload_is_fatal(payload: dict[str, Any]) -> None:
    for build in (responses, image):
        try:
            request = build(payload)
        except InvalidJob:
            continue
        assert request.body["background"] is True or (request.body["stream"], request.body["background"]) == (
            True,
            False,
        )
        assert request.body["model"]
