"""What is read out of the answers of A1111, whatever comes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import ServiceError
from emp_trio.services.a1111.answers import kept_info, read_answer, read_info
from emp_trio.services.a1111.checkpoints import Checkpoint, check_made_by, find_checkpoint, read_checkpoints
from emp_trio.services.a1111.errors import describe_error, is_out_of_memory
from emp_trio.services.a1111.payload import documented_fields, read_payload, unknown_fields
from emp_trio.services.a1111.status import State, Task, read_state, read_task, trouble_in
from emp_trio.services.redaction import redacted

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


WORDS = st.integers(1, 8_000).map(lambda count: "a word " * count)
NAMES = st.text(max_size=10) | WORDS


def answers(*names: str) -> st.SearchStrategy[Any]:
    """Anything, with a liking for objects with these members."""
    return ANYTHING | st.fixed_dictionaries({}, optional=dict.fromkeys(names, ANYTHING))


def four(status: int, error: str, detail: str = "", errors: str = "") -> tuple[int, bytes]:
    """A1111's own form of an error."""
    return status, json.dumps({"error": error, "detail": detail, "body": "", "errors": errors}).encode()


WRONG_TYPE = json.dumps(
    {"detail": [{"loc": ["body", "steps"], "msg": "value is not a valid integer", "type": "type_error.integer"}]}
).encode()


@pytest.mark.parametrize(
    ("answer", "type", "reason", "retry", "code", "said"),
    [
        ((422, WRONG_TYPE), "validation_error", "invalid_payload", False, None, "steps: value is not a valid integer"),
        (
            four(422, "HTTPException", "Script 'x' not found"),
            *("validation_error", "component_error", False, "HTTPException", "Script 'x' not found"),
        ),
        (
            four(400, "HTTPException", "Sampler not found"),
            *("validation_error", "component_error", False, "HTTPException", "Sampler not found"),
        ),
        (
            four(404, "HTTPException", "Sampler not found"),
            *("validation_error", "component_error", False, "HTTPException", "Sampler not found"),
        ),
        (
            four(404, "HTTPException", "Init image not found"),
            *("validation_error", "missing_required_field", False, "HTTPException", "Init image not found"),
        ),
        (
            four(500, "OutOfMemoryError", errors="CUDA out of memory. Tried to allocate 2 GiB"),
            *("resource_limit", "gpu_memory_full", True, "OutOfMemoryError", "Tried to allocate"),
        ),
        (
            four(500, "RuntimeError", errors="CUDA error: out of memory"),
            *("resource_limit", "gpu_memory_full", True, "RuntimeError", "out of memory"),
        ),
        (
            four(500, "HTTPException", "Invalid encoded image"),
            *("validation_error", "invalid_format", False, "HTTPException", "Invalid encoded image"),
        ),
        (
            four(500, "ValueError", errors="bad\n  shape"),
            "service_error",
            "service_down",
            True,
            "ValueError",
            "bad shape",
        ),
        (four(500, "KeyError"), "service_error", "service_down", True, "KeyError", ": KeyError"),
        (
            (401, b'{"detail": "Incorrect username or password"}'),
            *("auth_error", "invalid_api_key", False, None, "A1111_USERNAME"),
        ),
        (
            four(401, "HTTPException", "Incorrect username or password"),
            *("auth_error", "invalid_api_key", False, "HTTPException", "A1111_USERNAME"),
        ),
        ((404, b'{"detail": "Not Found"}'), "system_error", "config_error", True, None, "--api"),
        ((502, b"<html>Bad Gateway</html>"), "service_error", "service_down", True, None, "an HTML page"),
        ((504, b'{"error": "upstream timed out"}'), "service_error", "service_down", True, None, "upstream timed out"),
    ],
)
def test_every_documented_error(
    answer: tuple[int, bytes], type: str, reason: str, retry: bool, code: str | None, said: str
) -> None:
    status, body = answer
    error = describe_error(status, {}, body)
    assert (error.status, error.type, error.reason, error.retry, error.code) == (status, type, reason, retry, code)
    assert said in error.message
    assert is_out_of_memory(error) is (reason == "gpu_memory_full")


@given(
    status=st.sampled_from([400, 401, 404, 422, 500, 502]),
    body=answers("detail", "error", "errors").map(msgspec.json.encode) | st.binary(max_size=20),
)
def test_any_error_answer_has_a_message_of_some_length(status: int, body: bytes) -> None:
    error = describe_error(status, {}, body)
    assert error.status == status
    assert 0 < len(error.message) < 500


@given(answers("active", "queued", "completed", "progress", "textinfo"), answers("progress", "state"))
def test_any_progress_is_within_its_range(task: Any, state: Any) -> None:
    for share in (read_task(task).share, read_state(state).share):
        assert share is None or 0 <= share <= 1
    assert len(read_task(task).text) <= 80


def test_progress_as_it_is_documented() -> None:
    waiting = {"active": False, "queued": True, "completed": False, "progress": None, "textinfo": "In queue: 2/3"}
    assert read_task(waiting) == Task(queued=True, text="In queue: 2/3")
    assert not read_task({"active": False, "queued": False, "completed": False}).known
    idle = {"progress": 0, "eta_relative": 0, "state": {"job_count": 0, "job_timestamp": "20261101120000"}}
    assert read_state(idle) == State(share=0.0, began="20261101120000")
    assert read_state({"progress": 0, "state": {"job_count": -1, "job_timestamp": "1"}}).busy  # at the very start
    assert read_state({"progress": 1.3, "state": {"job_count": 1}}) == State(busy=True, share=1.0)


@given(answers("ram", "cuda"))
def test_any_memory_is_judged(memory: Any) -> None:
    assert isinstance(trouble_in(memory), str)


def png(count: int) -> list[str]:
    """So many images, by their numbers."""
    return [str(number) for number in range(count)]


@pytest.mark.parametrize(
    ("images", "info", "script", "own"),
    [
        (png(1), {"all_seeds": [1]}, False, png(1)),
        (png(3), {"all_seeds": [1, 2], "index_of_first_image": 1}, False, ["1", "2"]),  # a grid
        (png(4), {"all_seeds": [1, 2], "index_of_first_image": 0}, False, ["0", "1"]),  # maps of a script
        (png(5), {"all_seeds": [1, 2], "index_of_first_image": 1}, False, ["1", "2"]),
        (png(2), {}, False, png(2)),
        (png(2), {"all_seeds": None, "index_of_first_image": "1"}, False, png(2)),
        (png(1), {"all_seeds": [1, 2, 3], "index_of_first_image": 1}, True, png(1)),  # nothing but a script's grid
        (png(1), {"all_seeds": [1, 2, 3]}, True, png(1)),
    ],
)
def test_the_images_of_the_job_itself(images: list[str], info: dict[str, Any], script: bool, own: list[str]) -> None:
    answer = read_answer({"images": images, "info": json.dumps(info)}, script=script)
    assert (answer.images, answer.info) == (own, info)


GRID_AND_TWO = {"save_images": True, "batch_size": 2}
NAN = '{"all_seeds": [1, 2], "index_of_first_image": 1, "extra_generation_params": {"eta": NaN, "max": -Infinity}}'


@pytest.mark.parametrize(
    ("images", "info", "asked", "own"),
    [
        (png(3), NAN, GRID_AND_TWO, ["1", "2"]),
        (png(3), NAN, {}, ["1", "2"]),
        (png(3), json.dumps(NAN), {}, ["1", "2"]),  # a text in a text
        (png(3), None, GRID_AND_TWO, ["1", "2"]),
        (png(3), "", GRID_AND_TWO, ["1", "2"]),
        (png(3), '{"all_seeds": [1, 2', GRID_AND_TWO, ["1", "2"]),
        (png(3), "[]", GRID_AND_TWO, ["1", "2"]),
        (png(3), [1], {"save_images": True, "n_iter": 2}, ["1", "2"]),
        (png(3), '{"index_of_first_image": 1.0}', GRID_AND_TWO, ["1", "2"]),
        (png(3), None, {"batch_size": 2}, ["0", "1"]),  # nothing is saved there, so there is no grid: a map is last
        (png(2), None, GRID_AND_TWO, png(2)),
        (png(1), None, {"save_images": True}, png(1)),
        (png(2), None, {"save_images": True}, ["0"]),
        (png(1), None, {"batch_size": 4}, png(1)),
        (png(3), '{"all_seeds": [1, 2], "index_of_first_image": 1, "infotexts": ["one"]}', {}, ["1", "2"]),
        (png(2), None, {"batch_size": "2", "n_iter": None}, png(2)),
    ],
)
def test_a_broken_info_turns_no_grid_into_a_image(images: list[str], info: Any, asked: Any, own: list[str]) -> None:
    assert read_answer({"images": images, "info": info}, script=False, asked=asked).images == own


@pytest.mark.parametrize(
    "answer",
    [
        {"images": [], "info": "{}"},
        {"images": [None, 7], "info": json.dumps({"all_seeds": [1, 2]})},
        {"detail": "what"},
        [],
    ],
)
def test_an_answer_without_a_image_is_none(answer: Any) -> None:
    with pytest.raises(ServiceError) as caught:
        read_answer(answer, script=False)
    assert (caught.value.reason, caught.value.retry, caught.value.maybe_started) == (
        "missing_expected_data",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("count", "info", "warned"),
    [
        (1, {"all_seeds": [1, 2]}, True),
        (2, {"all_seeds": [1, 2, 3], "index_of_first_image": 1}, True),
        (1, {"all_seeds": [1], "index_of_first_image": 1}, False),
        (1, {"all_seeds": [1], "index_of_first_image": 10**9}, False),
    ],
)
def test_images_in_hand_are_not_made_again(count: int, info: dict[str, Any], warned: bool) -> None:
    answer = read_answer({"images": png(count), "info": json.dumps(info)}, script=False)
    assert answer.images == png(count)[-1:]
    assert bool(answer.warnings) is warned


@given(answers("images", "info"), st.booleans())
def test_any_answer_is_read_or_refused(answer: Any, script: bool) -> None:
    try:
        found = len(read_answer(answer, script=script).images)
    except ServiceError:
        found = 0
    images = answer.get("images") if isinstance(answer, dict) else None
    assert found <= (len(images) if isinstance(images, list) else 0)


@given(st.dictionaries(NAMES, ANYTHING | WORDS, max_size=8))
def test_any_info_fits_into_a_result(info: dict[str, Any]) -> None:
    kept = kept_info(read_info(json.dumps(info)))
    assert len(msgspec.json.encode(kept)) < 36 * 2**10
    if "left_out" not in kept:
        assert kept == redacted(info)  # names like those of secrets are among them


def test_info_keeps_no_file_bytes() -> None:
    assert kept_info({"extra": {"map": "A" * 400}}) == {"extra": {"map": "<base64 data, 300 bytes>"}}


MODELS = read_checkpoints(
    [
        {"title": "a/real.safetensors [1234567890]", "model_name": "a_real", "hash": "1234567890", "sha256": None},
        {"title": "toon.ckpt", "model_name": "toon", "filename": "C:\\models\\toon.ckpt"},
        {"title": "", "model_name": "nameless"},
        "noise",
    ]
)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("a/real.safetensors [1234567890]", "a/real.safetensors [1234567890]"),
        ("a_real", "a/real.safetensors [1234567890]"),
        ("1234567890", "a/real.safetensors [1234567890]"),
        ("real", "a/real.safetensors [1234567890]"),
        ("real.safetensors", "a/real.safetensors [1234567890]"),
        ("C:\\models\\toon.ckpt", "toon.ckpt"),
        ("toon.safetensors", "toon.ckpt"),
    ],
)
def test_a_model_goes_by_many_names(name: str, title: str) -> None:
    assert find_checkpoint(name, MODELS).title == title


@pytest.mark.parametrize("name", ["nameless", "toon v2", "12345", "rea"])
def test_a_name_that_no_model_has(name: str) -> None:
    with pytest.raises(ServiceError) as caught:
        find_checkpoint(name, MODELS)
    assert caught.value.reason == "model_not_found"


@pytest.mark.parametrize(
    ("info", "wanted", "right"),
    [
        ({"sd_model_name": "real", "sd_model_hash": "1234567890"}, 0, True),
        ({"sd_model_name": "renamed", "sd_model_hash": "1234567890"}, 0, True),
        ({"sd_model_name": "real", "sd_model_hash": "9999999999"}, 0, False),
        ({"sd_model_name": "a_real"}, 0, True),
        ({"sd_model_name": "toon", "sd_model_hash": "9999999999"}, 1, True),  # its hash is not known yet
        ({"sd_model_name": "real", "sd_model_hash": "1234567890"}, 1, False),
        ({}, 0, None),
        ({"sd_model_name": None, "sd_model_hash": 7}, 0, None),
    ],
)
def test_whose_image_it_is(info: dict[str, Any], wanted: int, right: bool | None) -> None:
    if right is False:
        with pytest.raises(ServiceError, match="instead of"):
            check_made_by(info, MODELS[wanted])
    else:
        assert check_made_by(info, MODELS[wanted]) is bool(right)


def test_a_full_hash_is_known_by_its_beginning() -> None:
    model = Checkpoint(title="x", sha256="1234567890" + "a" * 54)
    assert check_made_by({"sd_model_hash": "1234567890"}, model)


@given(answers("paths", "components"))
def test_any_schema_is_read(schema: Any) -> None:
    assert unknown_fields({"a": 1}, documented_fields(schema, "txt2img")) in ((), ("a",))


@given(st.dictionaries(st.sampled_from(["seed", "steps", "subseed", "eta"]), st.integers(), max_size=4))
def test_numbers_are_passed_as_they_are(numbers: dict[str, int]) -> None:
    """Zero, too."""
    for payload in ({"prompt": ""} | numbers, {"endpoint": "txt2img", "payload": {"prompt": ""} | numbers}):
        body = read_payload(payload, restore_model=False).body
        assert {name: body[name] for name in numbers} == numbers


def test_what_stands_beside_the_parameters_is_named() -> None:
    request = read_payload({"payload": {"prompt": "x"}, "steps": 3, "method": "POST"}, restore_model=True)
    assert "steps" not in request.body
    assert request.body["override_settings_restore_afterwards"] is True
    assert "steps" in request.warnings[0]
