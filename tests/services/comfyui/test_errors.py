"""Refusals and failures of ComfyUI, and what becomes of the job."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emp_trio.errors import ServiceError
from emp_trio.failures import REASONS
from emp_trio.services.comfyui.errors import describe_error, execution_failure, interrupted, login_page, lost, refused
from emp_trio.services.comfyui.history import read_entry
from emp_trio.services.comfyui.messages import Failed
from tests.services.comfyui.recordings import NAMES, histories, recording

JSON = {"content-type": "application/json"}


def refusals() -> list[Any]:
    return [
        pytest.param(record["body"], id=str(number))
        for number, record in enumerate(recording("04-validation.jsonl"))
        if record["dir"] == "in" and record.get("status") == 400
    ]


@pytest.mark.parametrize("body", refusals())
def test_every_recorded_refusal_is_final_and_says_where(body: dict[str, Any]) -> None:
    """2.1: a 400 is the job's fault."""
    error = describe_error(400, JSON, json.dumps(body).encode())
    assert error.type == "validation_error"
    assert error.reason in REASONS["validation_error"]
    lacks = "does not exist" in json.dumps(body) or "value_not_in_list" in json.dumps(body)
    assert error.retry is lacks
    assert not error.maybe_started
    for node, about in body["node_errors"].items():
        assert f"node {node!r} ({about['class_type']})" in error.message
    assert "no reason given" not in error.message


def test_a_refusal_without_any_reason_says_where_to_look() -> None:
    """2.1: a cycle is refused with both parts empty."""
    body = {"error": {"type": "prompt_outputs_failed_validation", "message": "", "details": ""}, "node_errors": {}}
    assert "cycle" in describe_error(400, JSON, json.dumps(body).encode()).message


def node_error(kind: str) -> dict[str, Any]:
    return {"class_type": "X", "errors": [{"type": kind, "message": "m", "details": "d"}]}


@pytest.mark.parametrize(
    ("kinds", "reason", "retry"),
    [
        (["value_not_in_list"], "model_not_found", True),
        (["value_not_in_list", "value_not_in_list"], "model_not_found", True),
        (["value_not_in_list", "required_input_missing"], "missing_required_field", False),
        (["something_new"], "invalid_payload", False),
        (["custom_validation_failed"], "invalid_payload", False),
    ],
)
def test_only_what_a_server_lacks_is_tried_again(kinds: list[str], reason: str, retry: bool) -> None:
    """8: a missing model is worth a try elsewhere, a wrong graph is not."""
    error = refused({"type": "x"}, {str(n): node_error(kind) for n, kind in enumerate(kinds)}, status=400)
    assert (error.reason, error.retry) == (reason, retry)


@pytest.mark.parametrize(
    "body",
    [
        {"error": "No prompt provided", "node_errors": []},
        {"error": {"message": None}, "node_errors": {"1": None, "2": {"errors": None}, "3": {"errors": ["x"]}}},
        {"error": [], "node_errors": 3},
    ],
)
def test_answers_of_other_forms_are_taken(body: Any) -> None:
    """2.1: very old servers answer with a text and a list."""
    error = describe_error(400, JSON, json.dumps(body).encode())
    assert not error.retry
    assert error.message


@pytest.mark.parametrize(
    ("status", "body", "retry"),
    [
        (500, b"500 Internal Server Error\n\nServer got itself in trouble", True),
        (502, b"<html><h1>502 Bad Gateway</h1></html>", True),
        (401, b"", False),
        (413, b"", False),
        (400, b"no JSON", False),
    ],
)
def test_what_is_not_comfyuis_own_form(status: int, body: bytes, retry: bool) -> None:
    error = describe_error(status, {}, body)
    assert (error.status, error.retry) == (status, retry)
    assert "<html" not in error.message


def test_outputs_that_were_dropped_are_told_as_such() -> None:
    """2.1: a 200 can carry node_errors; only the good outputs run."""
    assert "only a part of the graph" in refused(None, {"4": node_error("required_input_missing")}).message


@pytest.mark.parametrize(
    ("kind", "message", "reason", "retry"),
    [
        ("torch.OutOfMemoryError", "no", "gpu_memory_full", True),
        ("torch.cuda.OutOfMemoryError", "no", "gpu_memory_full", True),
        ("RuntimeError", "CUDA error: out of memory\n", "gpu_memory_full", True),
        ("RuntimeError", "HIP\nAllocation on device 0", "gpu_memory_full", True),
        ("ValueError", "wrong", "component_error", False),
        ("re.error", "missing )\n", "component_error", False),
        ("", "", "component_error", False),
    ],
)
def test_a_node_that_raised(kind: str, message: str, reason: str, retry: bool) -> None:
    """8: memory may be free elsewhere, any other exception comes again."""
    failed = Failed(prompt_id="p", node_id="6", node_type="RigRaise", exception_type=kind, exception_message=message)
    error = execution_failure(failed)
    assert (error.reason, error.retry) == (reason, retry)
    assert error.reason in REASONS[error.type]
    assert "node '6' (RigRaise)" in error.message


def test_only_the_first_line_of_a_message_is_shown() -> None:
    """3.1, 8: what follows may hold the user's prompt and tensors."""
    text = "the first line " + "x" * 5000 + "\nprompt: a secret wish"
    failed = Failed(prompt_id="p", node_id="6", node_type="X", exception_type="E", exception_message=text)
    error = execution_failure(failed)
    assert "the first line" in error.message
    assert "secret wish" not in error.message
    assert len(error.message) < 500


def test_recorded_failures_have_node_class_and_exception() -> None:
    found = []
    for name in NAMES:
        for prompt_id, entry in histories(name):
            read = read_entry({prompt_id: entry}, prompt_id)
            if read is not None and read.error is not None:
                found.append(read.error.message)
    assert any("RigRaise" in text and "deliberate failure" in text for text in found)
    assert any("interrupted" in text for text in found)


def test_a_login_page_is_a_matter_of_credentials() -> None:
    """7: 200 with HTML, or a redirect, is an authentication failure."""
    page = ServiceError("html", type="response_error", reason="unexpected_content_type", maybe_started=True)
    redirect = ServiceError("302", status=302, type="system_error", reason="config_error", retry=False)
    for error in (login_page(page), login_page(redirect)):
        assert (error.type, error.retry) == ("auth_error", False)
        assert "credentials" in error.message
    other = lost("p")
    assert login_page(other) is other
    assert interrupted().retry
