"""What becomes of an image-to-image payload, as values."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob
from emp_trio.services.inputs import InputFile
from emp_trio.services.openai.images.img2img_request import (
    LARGEST_IN_JSON,
    EditJob,
    Inputs,
    Source,
    edit_job,
    edit_response,
    edit_response_record,
    edits_request,
)
from tests.services.openai.images.img2img_support import PNG

IMAGE = InputFile(data=PNG, media_type="image/png", name="image.png")
FILE_ID = Source(text="file-abc123", file_id=True)


def read(payload: dict[str, Any]) -> EditJob:
    today = datetime.date(2026, 11, 23)
    return edit_job(payload, image_model="gpt-image-2.6-flare", size="auto", quality="auto", today=today)


def url(text: str) -> Source:
    return Source(text=text, file_id=False)


@pytest.mark.parametrize(
    ("payload", "sources"),
    [
        ({"images": ["a", "b"]}, [url("a"), url("b")]),
        ({"image": "a", "images": ["b"], "image_url": "c"}, [url("b"), url("a"), url("c")]),
        ({"image": "a", "images": ["a", "a"], "base64": " a "}, [url("a")]),
        ({"image_urls": ["a"], "image_base64": "b"}, [url("a"), url("b")]),
        ({"images": ["file-abc123", "file_abc123"]}, [FILE_ID, Source(text="file_abc123", file_id=True)]),
        (
            {"file_ids": ["anything"], "file_id": "x"},
            [Source(text="anything", file_id=True), Source(text="x", file_id=True)],
        ),
        ({"image": {"file_id": "x"}}, [Source(text="x", file_id=True)]),
        ({"image": {"url": "a", "base64": ""}}, [url("a")]),
        ({"image": {"image_url": {"url": "a"}}}, [url("a")]),
        ({"image": ["a"], "images": None, "file_id": ""}, [url("a")]),
        ({"images": ["file-"]}, [url("file-")]),
    ],
)
def test_images_go_by_many_names(payload: dict[str, Any], sources: list[Source]) -> None:
    before = repr(payload)
    assert list(read({"prompt": "x"} | payload).images) == sources
    assert repr(payload) == before


@pytest.mark.parametrize("payload", [{"mask": "m"}, {"mask_url": "m"}, {"mask_image": {"url": "m"}}, {"mask": ["m"]}])
def test_and_so_does_the_mask(payload: dict[str, Any]) -> None:
    assert read({"prompt": "x", "image": "a"} | payload).mask == url("m")


@pytest.mark.parametrize(
    ("payload", "prompt"),
    [
        ({"prompt": "a", "text": "b", "description": "c"}, "a"),
        ({"text": "b", "description": "c"}, "b"),
        ({"prompt": "", "description": "c"}, "c"),
    ],
)
def test_the_prompt_goes_by_three(payload: dict[str, Any], prompt: str) -> None:
    assert read({"image": "a"} | payload).prompt == prompt


@pytest.mark.parametrize(
    ("model", "fidelity", "sent"),
    [
        ("gpt-image-1.5", "high", True),
        ("gpt-image-1-mini", "low", True),
        ("gpt-image-1-mini", "high", False),
        ("gpt-image-2", "low", False),
        ("gpt-image-2.6-sunburst", "high", False),
        ("some-image-model-of-a-proxy", "high", False),
    ],
)
def test_input_fidelity_goes_to_the_models_that_take_it(model: str, fidelity: str, sent: bool) -> None:
    options = read({"prompt": "x", "image": "a", "model": model, "input_fidelity": fidelity}).options
    assert options.fields.get("input_fidelity") == (fidelity if sent else None)
    assert sent != any("input_fidelity" in warning for warning in options.warnings)


@pytest.mark.parametrize(("more", "why"), [({"moderation": "low"}, "moderation"), ({"file_id": "x"}, "ids of files")])
def test_a_large_image_can_only_go_as_a_form(more: dict[str, Any], why: str) -> None:
    large = InputFile(data=PNG + bytes(LARGEST_IN_JSON), media_type="image/png", name="image.png")
    inputs = Inputs(images=(large,), mask=None)
    assert edits_request(read({"prompt": "x", "image": "a"}), inputs).content_type.startswith("multipart/")
    if "file_id" in more:
        inputs = Inputs(images=(large, FILE_ID), mask=None)
    with pytest.raises(InvalidJob, match=f"along with {why}"):
        edits_request(read({"prompt": "x", "image": "a"} | more), inputs)


def test_no_bytes_and_no_query_stay_in_the_record() -> None:
    job = read({"prompt": "x", "image": "a"})
    sources = (url("https://u:p@x.example/a.png?sig=hidden#h"), url("A" * 5000), FILE_ID, IMAGE)
    record = edit_response_record(job, Inputs(images=sources, mask=IMAGE), job_id="j", outer_model="m")
    texts = [
        next(value for name, value in part.items() if name not in ("type", "detail"))
        for part in record["input"][0]["content"]
    ]
    note = f"<image/png, {len(PNG)} bytes>"
    assert texts == ["x", "https://x.example/a.png", "<5000 characters>", "file-abc123", note]
    assert record["tools"][0]["input_image_mask"] == {"image_url": note}


def test_a_source_that_nobody_has_looked_at_is_never_sent() -> None:
    job = read({"prompt": "x", "image": "https://x.example/a.png"})
    unseen = Inputs(images=job.images, mask=None)
    with pytest.raises(AssertionError):
        edit_response(job, unseen, job_id="j", outer_model="m")
    with pytest.raises(AssertionError):
        edits_request(job, unseen)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("file-abc123"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["url", "file_id", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = (
    "prompt images image image_url mask n size quality model input_fidelity approach moderation compression metadata"
)


@given(st.dictionaries(st.sampled_from(NAMES.split()), JSON))
def test_no_payload_is_fatal(payload: dict[str, Any]) -> None:
    try:
        job = read(payload)
    except InvalidJob:
        return
    assert 1 <= len(job.images) <= 16
    inputs = Inputs(images=(IMAGE,) * len(job.images), mask=IMAGE if job.mask is not None else None)
    body = edit_response(job, inputs, job_id="j", outer_model="m").body
    assert body["tools"][0]["action"] == "edit"
    assert edits_request(job, inputs).content
