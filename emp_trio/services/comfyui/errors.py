"""Refusals and failures of ComfyUI as errors of ours (ComfyUI reference 2.1, 8). Pure.

A wrong graph is final; what one server lacks (a model, a node class, memory) another may have; what was lost is worth
another attempt anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.failures import FailureType
from emp_trio.protocols.http.errors import describe_status
from emp_trio.protocols.parsing import Lenient, parse, parse_or_empty
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import excerpt
from emp_trio.services.comfyui.messages import Failed

_LONGEST: Final = 300
_SHOWN: Final = 5  # errors in one message

# What decides the class of a refused graph, the strongest first: type, reason, retry.
_NODE_ERRORS: Final[dict[str, tuple[FailureType, str, bool]]] = {
    "required_input_missing": ("validation_error", "missing_required_field", False),
    "bad_linked_input": ("validation_error", "invalid_format", False),
    "return_type_mismatch": ("validation_error", "invalid_format", False),
    "invalid_input_type": ("validation_error", "invalid_format", False),
    "value_smaller_than_min": ("validation_error", "invalid_payload", False),
    "value_bigger_than_max": ("validation_error", "invalid_payload", False),
    "custom_validation_failed": ("validation_error", "invalid_payload", False),
    "exception_during_validation": ("validation_error", "invalid_payload", False),
    "exception_during_inner_validation": ("validation_error", "invalid_payload", False),
    "value_not_in_list": ("validation_error", "model_not_found", True),
}
_REFUSED: Final[tuple[FailureType, str, bool]] = ("validation_error", "invalid_payload", False)
_OUT_OF_MEMORY: Final = ("out of memory", "allocation on device")


class _Problem(msgspec.Struct, frozen=True):
    """What is wrong, of the whole graph or with one node."""

    type: Lenient[str] = ""
    message: Lenient[str] = ""
    details: Lenient[str] = ""


class _Node(msgspec.Struct, frozen=True):
    class_type: Lenient[str] = ""
    errors: Lenient[list[Lenient[_Problem]]] = []


class _Refusal(msgspec.Struct, frozen=True):
    error: Any
    node_errors: Any = None


def describe_error(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error for an HTTP error answer: a refused graph with its node errors, or whatever stands in front says."""
    if status != 400:
        return describe_status(status, headers, body)
    try:
        said = parse(_Refusal, decode_json(body), "a refusal")
    except ServiceError:
        return describe_status(status, headers, body)
    return refused(said.error, said.node_errors, status=status)


def refused(error: Any, node_errors: Any, *, status: int | None = None) -> ServiceError:
    """The error for a graph that was refused, or of which outputs were dropped.

    Args:
        error: the ``error`` of the answer: an object, or a text from very old servers; None for an accepted prompt.
        node_errors: its ``node_errors``.
        status: HTTP status.
    """
    given = parse_or_empty(_Problem, {"message": error} if isinstance(error, str) else error)
    code = given.type
    nodes = _nodes(node_errors)
    found = [_NODE_ERRORS.get(kind, _REFUSED) for kind, _ in nodes]
    # One error that no server can mend makes the whole graph the job's fault.
    type_, reason, retry = next((kind for kind in found if not kind[2]), found[0] if found else _REFUSED)
    message = " ".join(f"{given.message} {given.details}".split())
    if code == "missing_node_type" or (code == "invalid_prompt" and "does not exist" in message):
        type_, reason, retry = "validation_error", "component_error", True
    texts = [text for _, text in nodes]
    more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    said = "; ".join(texts[:_SHOWN]) + more or excerpt(message, _LONGEST) or "no reason given"
    if code == "prompt_outputs_failed_validation" and not nodes and not given.details:
        said += " (without a reason: look for a cycle in the graph)"
    what = "ComfyUI refused the graph" if error is not None else "ComfyUI would run only a part of the graph"
    return ServiceError(f"{what}: {said}", status=status, code=code or None, type=type_, reason=reason, retry=retry)


def execution_failure(failed: Failed) -> ServiceError:
    """The error for a node that raised. Memory may be free elsewhere; anything else would fail the same way again.

    Only the first line of the message is shown: what follows may hold prompts and tensors (3.1).
    """
    kind = failed.exception_type.rpartition(".")[2]
    lines = failed.exception_message.strip().splitlines()
    first = excerpt(lines[0], _LONGEST) if lines else "no message"
    full = kind.endswith("OutOfMemoryError") or any(
        words in failed.exception_message.lower() for words in _OUT_OF_MEMORY
    )
    return ServiceError(
        f"node {failed.node_id!r} ({failed.node_type}) failed with {failed.exception_type or 'an error'}: {first}",
        code=failed.exception_type or None,
        type="resource_limit" if full else "validation_error",
        reason="gpu_memory_full" if full else "component_error",
        retry=full,
    )


def interrupted() -> ServiceError:
    """The error for a prompt that somebody else has interrupted."""
    return ServiceError(
        "the prompt was interrupted in ComfyUI by somebody else",
        code="execution_interrupted",
        type="service_error",
        reason="service_unavailable",
        retry=True,
    )


def lost(prompt_id: str) -> ServiceError:
    """The error for a prompt that is neither in the queue nor in the history (4.5)."""
    return ServiceError(
        f"the prompt {prompt_id} is neither in the queue nor in the history: the server was restarted, or somebody has "
        "deleted it",
        code="lost",
        type="service_error",
        reason="service_unavailable",
        retry=True,
        maybe_started=True,
    )


def late(reason: str, text: str) -> ServiceError:
    """The error for a prompt whose time is up; it has been cancelled."""
    return ServiceError(text, type="timeout", reason=reason, retry=True)


def login_page(error: ServiceError) -> ServiceError:
    """``error`` itself, or what it means that a page came where data was expected (7)."""
    if error.reason != "unexpected_content_type" and not (error.reason == "config_error" and error.status is not None):
        return error
    return ServiceError(
        f"{error.message} (a login page stands in front of ComfyUI: give the connector its credentials)",
        status=error.status,
        type="auth_error",
        reason="insufficient_permissions",
        retry=False,
    )


def _nodes(node_errors: Any) -> list[tuple[str, str]]:
    """Type and text of every node error."""
    return [
        (error.type, f"node {node!r} ({about.class_type}): {excerpt(f'{error.message}: {error.details}', _LONGEST)}")
        for node, about in parse_or_empty(dict[str, Lenient[_Node]], node_errors).items()
        for error in about.errors
    ]
