"""What services call the states of their work."""

from __future__ import annotations

from typing import Any

import pytest

from emp_trio.services.gemini.answers import read_interaction
from emp_trio.services.openai.responses.answer import read_response
from emp_trio.services.work_states import phase_of


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("completed", "done"),
        ("COMPLETED", "done"),
        (" Succeeded ", "done"),
        ("failed", "failed"),
        ("Error", "failed"),
        ("canceled", "cancelled"),
        ("Timed Out", "expired"),
        ("timed-out", "expired"),
        ("incomplete", "stopped"),
        ("in_progress", "running"),
        ("IN_PROGRESS", "running"),
        ("thinking about it", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
        (7, "unknown"),
        ([], "unknown"),
        ({"state": "done"}, "unknown"),
    ],
)
def test_states(status: Any, phase: str) -> None:
    assert phase_of(status) == phase


IMAGE = "iVBORw0KGgo" + "A" * 80
WORDS = [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}]
DRAWN = [{"type": "image_generation_call", "result": IMAGE}]


@pytest.mark.parametrize("status", ["Completed", "ended", "FAILED", "Incomplete", "expired", "CANCELED", 7])
def test_what_was_asked_for_is_the_answer_whatever_its_state(status: Any) -> None:
    words = read_response({"status": status, "output": WORDS}, image_wanted=False)
    drawn = read_response({"status": status, "output": DRAWN}, image_wanted=True)
    assert words is not None
    assert words.text == "hi"
    assert drawn is not None
    assert len(drawn.images) == 1
    assert words.truncated is (status != "Completed")
    steps = [{"type": "model_output", "content": [{"type": "image", "data": IMAGE}]}]
    made = read_interaction({"status": status, "steps": steps})
    assert made is not None
    assert len(made.images) == 1


@pytest.mark.parametrize("status", ["queued", "In Progress", "running", "something new", None, 7])
def test_without_it_work_goes_on_in_any_other_state(status: Any) -> None:
    assert read_response({"id": "resp_1", "status": status}, image_wanted=True) is None
    assert read_response({"id": "resp_1", "status": status or "x", "output": WORDS}, image_wanted=True) is None
    assert read_interaction({"id": "i", "status": status}) is None
