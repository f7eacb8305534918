"""What the messages of the simulated WebSocket service mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.services.simulation.messages import Completed, Failed, Progressed, decode

LONG = "iVBORw0KGgo" * 8
MADE = Completed("", {}, None, 0.0, ((LONG, None),))


@pytest.mark.parametrize(
    ("fields", "job", "event"),
    [
        ({"type": "simulation_progress", "job_id": "j", "progress": 40}, "j", Progressed(40.0)),
        ({"type": "simulation_progress", "jobId": "j", "current_step": 2, "total_steps": 8}, "j", Progressed(25.0, 8)),
        ({"type": "simulation_progress", "id": "j", "progress": 140}, "j", Progressed(100.0)),
        ({"type": "simulation_progress", "id": "j", "progress": "half"}, "j", None),
        ({"type": "simulation_progress", "id": "j", "current_step": 1, "total_steps": 0}, "j", None),
        ({"type": "simulation_error", "job_id": "j", "error": "no paint"}, "j", Failed("no paint", True)),
        ({"type": "error", "job_id": "j", "message": "no paint"}, "j", Failed("no paint", True)),
        ({"type": "simulation_error", "job_id": "j", "retryable": False}, "j", Failed("no reason given", False)),
        (
            {"type": "simulation_cancelled", "job_id": "j", "message": "stop"},
            "j",
            Failed("cancelled in the service: stop", False),
        ),
        (
            {
                "type": "simulation_complete",
                "job_id": "j",
                "simulation_id": "s",
                "results": {"a": 1},
                "output_url": "u",
            },
            "j",
            Completed("s", {"a": 1}, "u", 0.0),
        ),
        (
            {"type": "simulation_complete", "job_id": "j", "results": 7, "outputs": {"images": [{"data": "AA"}, 5]}},
            "j",
            Completed("", {}, None, 0.0, (("AA", None),)),
        ),
        ({"type": "simulation_completed", "job_id": "j", "simulation_id": "s"}, "j", Completed("s", {}, None, 0.0)),
        ({"type": "done", "job_id": "j", "outputs": [LONG]}, "j", MADE),
        ({"type": "simulation_complete", "job_id": "j", "outputs": {"images": {"b64_json": LONG}}}, "j", MADE),
        ({"type": "simulation_error", "job_id": "j", "error": "late", "outputs": {"images": [LONG]}}, "j", MADE),
        ({"type": "simulation_cancelled", "job_id": "j", "outputs": {"images": [LONG]}}, "j", MADE),
        ({"type": "simulation_result", "job_id": "j", "outputs": {"images": [{"data": LONG}]}}, "j", MADE),
        ({"type": "simulation_failed", "job_id": "j", "error": "no paint"}, "j", Failed("no paint", True)),
        ({"type": "simulation_result", "job_id": "j", "outputs": {"images": []}}, "j", None),
        ({"type": "simulation_started", "job_id": "j"}, "j", None),
        ({"type": "simulation_ready"}, None, None),
        ({"type": "pong"}, None, None),
        ({"type": ["odd"]}, None, None),
        ({}, None, None),
    ],
)
def test_table(fields: dict[str, Any], job: str | None, event: Any) -> None:
    assert decode(json.dumps(fields)) == (job, event)


@pytest.mark.parametrize(
    "message",
    ["", "x", "[]", b"\xff\xfe", "\ud800", "[" * 20_000, '{"type":"simulation_progress","id":"j","progress":1e999}'],
)
def test_what_is_no_message_is_ignored(message: str | bytes) -> None:
    assert decode(message)[1] is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["simulation_progress", "simulation_complete", "simulation_error", "simulation_cancelled"])
NAMES = "job_id progress current_step total_steps results outputs output_url processing_time_ms error retryable"


@given(TYPES, st.dictionaries(st.sampled_from(NAMES.split()), JSON))
def test_no_message_of_a_known_type_is_fatal(type: str, fields: dict[str, Any]) -> None:
    decode(json.dumps({"type": type} | fields))


@given(st.text() | st.binary())
def test_no_message_is_fatal(message: str | bytes) -> None:
    decode(message)
