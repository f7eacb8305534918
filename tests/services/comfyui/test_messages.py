"""The decoder of ComfyUI's messages, against every recording of a real server and against garbage."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.services.comfyui.messages import (
    Ended,
    Event,
    Executed,
    Executing,
    Failed,
    NodeText,
    Preview,
    Step,
    Unknown,
    decode,
    decode_data,
    prompt_of,
)
from tests.services.comfyui.recordings import NAMES, histories, messages

# What of each message must be found again in its event, as (name of the event, fields).
_SAID: dict[str, Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "status": lambda d: (
        "Status",
        {"queue_remaining": d["status"]["exec_info"]["queue_remaining"], "sid": d.get("sid")},
    ),
    "execution_start": lambda d: ("Started", {"prompt_id": d["prompt_id"]}),
    "execution_cached": lambda d: ("Cached", {"prompt_id": d["prompt_id"], "nodes": d["nodes"]}),
    "executing": lambda d: (
        ("Ended", {"prompt_id": d["prompt_id"]})
        if d["node"] is None
        else ("Executing", {k: d[k] for k in ("node", "prompt_id", "display_node")})
    ),
    "progress": lambda d: ("Step", d),
    "progress_state": lambda d: (
        "NodeStates",
        {
            "prompt_id": d["prompt_id"],
            "nodes": {n: {k: s[k] for k in ("state", "value", "max")} for n, s in d["nodes"].items()},
        },
    ),
    "executed": lambda d: ("Executed", {k: d[k] for k in ("prompt_id", "node", "output")}),
    "execution_success": lambda d: ("Succeeded", {"prompt_id": d["prompt_id"]}),
    "execution_error": lambda d: (
        "Failed",
        {k: d[k] for k in ("prompt_id", "node_id", "node_type", "exception_type", "exception_message")},
    ),
    "execution_interrupted": lambda d: ("Interrupted", {k: d[k] for k in ("prompt_id", "node_id", "node_type")}),
    "feature_flags": lambda d: ("Features", {"flags": d}),
}


def said(event: Event) -> tuple[str, dict[str, Any]]:
    return type(event).__name__, json.loads(msgspec.json.encode(event))


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_message_is_reproduced(name: str) -> None:
    for record, message in messages(name):
        event = decode(message)
        if record["kind"] == "ws-binary":
            if record["event"] == 3:
                assert event == NodeText(node=record["node_id"], text=record["text"])
            else:
                assert isinstance(event, Preview)
                about = record.get("metadata", {"image_type": "image/jpeg"})
                assert (event.media_type, event.node, event.prompt_id) == (
                    about["image_type"],
                    about.get("node_id"),
                    about.get("prompt_id"),
                )
                assert len(event.data) == record["image_bytes"]
                assert event.data.startswith(bytes.fromhex(record["magic"]))
        elif record["body"]["type"] not in _SAID:
            assert event == Unknown(type=record["body"]["type"])
        else:
            assert said(event) == _SAID[record["body"]["type"]](record["body"]["data"])


def test_the_messages_in_a_history_are_those_of_the_socket() -> None:
    kinds = set()
    for name in NAMES:
        for prompt_id, entry in histories(name):
            for kind, data in entry["status"]["messages"]:
                event = decode_data(kind, data)
                assert prompt_of(event) == prompt_id
                kinds.add(kind)
    assert kinds >= {"execution_start", "execution_success", "execution_error", "execution_interrupted"}


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ('{"type": "executing", "data": {"node": "1"}}', Executing(node="1")),  # after a reconnect (4.4)
        ('{"type": "executing", "data": {"node": null, "prompt_id": "p"}}', Ended(prompt_id="p")),
        (
            '{"type": "executing", "data": {"node": null}}',
            Unknown(type="executing", why="the end of an unnamed prompt"),
        ),
        (
            '{"type": "progress", "data": {"value": 1, "max": 4.5, "node": "3", "prompt_id": "p", "new": []}}',
            Step(node="3", value=1, max=4.5, prompt_id="p"),
        ),
        (
            '{"type": "execution_error", "data": {"prompt_id": "p", "exception_type": "ExecutionBlocked"}}',
            Failed(prompt_id="p", node_id="", node_type="", exception_type="ExecutionBlocked", exception_message=""),
        ),
        ('{"type": "crystools.monitor", "data": {"cpu": 3}}', Unknown(type="crystools.monitor")),
        ('{"type": "feature_flags", "data": 3}', Unknown(type="feature_flags")),
        (b"\x00\x00\x00\x01\x00\x00\x00\x02png", Preview(media_type="image/png", data=b"png")),
        (b"\x00\x00\x00\x02\x00\x00\x00\x01jpg", Preview(media_type="image/jpeg", data=b"jpg")),
        (b"\x00\x00\x00\x63\x00\x00\x00\x01?", Unknown(type="binary 99")),
        (b"\x00\x00\x00\x04\x00\x00\x00\x02{}x", Preview(media_type="application/octet-stream", data=b"x")),
    ],
)
def test_messages_that_no_recording_has(message: str | bytes, event: Event) -> None:
    assert decode(message) == event


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[]",
        "{}",
        '{"type": 3}',
        '{"type": "progress"}',
        '{"type": "progress", "data": {"node": "1", "value": "much", "max": 2}}',
        '{"type": "execution_start", "data": {"prompt_id": 5}}',
        '{"type": "executing", "data": []}',
        '{"type": "status", "data": {"status": null}}',
        "[" * 100_000,
        b"",
        b"\x00\x00\x00\x01\x00\x00",
        b"\x00\x00\x00\x03\x00\x00\x00\x09abc",
        b"\x00\x00\x00\x04\x00\x00\x00\x09{}",
        b"\x00\x00\x00\x04\x00\x00\x00\x03{{{x",
    ],
)
def test_garbage_and_cut_frames_are_told_apart_from_messages(message: str | bytes) -> None:
    """3.3: frames shorter than their header."""
    event = decode(message)
    assert isinstance(event, Unknown)
    assert event.why


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_of_pythons_json_are_read(number: str) -> None:
    """Real servers 1."""
    step = f'{{"type": "progress", "data": {{"value": {number}, "max": 4, "prompt_id": "p", "node": "1"}}}}'
    assert decode(step) == Step(prompt_id="p", node="1", value=None, max=4.0)
    output = f'{{"type": "executed", "data": {{"node": "1", "output": {{"v": [{number}]}}, "prompt_id": "p"}}}}'
    assert decode(output) == Executed(prompt_id="p", node="1", output={"v": [None]})
    about = f'{{"prompt_id": "p", "image_type": "image/png", "x": {number}}}'.encode()
    frame = b"\0\0\0\4" + len(about).to_bytes(4, "big") + about + b"png"
    assert decode(frame) == Preview(media_type="image/png", data=b"png", prompt_id="p")


@given(st.text() | st.binary())
def test_nothing_makes_the_decoder_raise(message: str | bytes) -> None:
    decode(message)


@given(st.sampled_from(sorted(_SAID)), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_data_of_any_kind_is_taken(type: str, data: Any) -> None:
    decode(json.dumps({"type": type, "data": data}))
