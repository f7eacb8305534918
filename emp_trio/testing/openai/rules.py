"""Validate requests of ``POST /responses`` (OpenAI reference 4.1, 4.2, 7, 16). Pure.

Two kinds of diagnostics: an error is what the real service answers with a 400; a violation is what it may well let pass
today but nobody has documented.
"""

from __future__ import annotations

from typing import Any, Final

from emp_trio.testing.openai.checks import (
    BOOL,
    INT,
    NUMBER,
    OBJECT,
    TEXT,
    Fault,
    choice_fault,
    metadata_fault,
    text_model_fault,
    type_fault,
)
from emp_trio.testing.openai.image_info import looks_of
from emp_trio.testing.openai.image_options import option_faults
from emp_trio.testing.openai.input_image_rules import data_of, mask_faults
from emp_trio.testing.openai.input_rules import images_of, input_faults, input_violations

FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "model": (str,),
    "input": (str, list),
    "instructions": TEXT,
    "background": BOOL,
    "background_options": OBJECT,
    "store": BOOL,
    "stream": BOOL,
    "stream_options": OBJECT,
    "tools": (list,),
    "tool_choice": (str, dict),
    "max_output_tokens": INT,
    "max_tool_calls": INT,
    "parallel_tool_calls": BOOL,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "reasoning": OBJECT,
    "text": OBJECT,
    "include": (list, type(None)),
    "metadata": OBJECT,
    "previous_response_id": TEXT,
    "conversation": (str, dict, type(None)),
    "prompt_cache_key": TEXT,
    "prompt_cache_options": OBJECT,
    "safety_identifier": TEXT,
    "service_tier": TEXT,
    "truncation": TEXT,
    "top_logprobs": INT,
    "moderation": (str, dict, type(None)),
    "image": OBJECT,
    "context_management": (dict, list, type(None)),
    "prompt": OBJECT,
    "user": TEXT,
}
_IMAGE_TOOL: Final = frozenset(
    "type model action size quality background output_format output_compression partial_images moderation "
    "input_fidelity input_image_mask complexity frame_count frame_duration_ms svg".split()
)
_MEMBERS: Final = {
    "background_options": frozenset(("completion_window", "continuation_id")),
    "stream_options": frozenset(("include_obfuscation",)),
    "reasoning": frozenset(("effort", "summary", "mode")),
    "text": frozenset(("format", "verbosity")),
}


def violations_of(body: dict[str, Any]) -> list[str]:
    """Everything in a request that no reference documents."""
    found = [f"undocumented field {name!r}" for name in body if name not in FIELDS]
    if body.get("user") is not None:
        found.append("user is deprecated: use safety_identifier")
    for tool in _image_tools(body):
        found += [f"undocumented option {name!r} of the image_generation tool" for name in tool.keys() - _IMAGE_TOOL]
        if "model" not in tool:
            found.append("the image_generation tool does not say its model")
    for name, members in _MEMBERS.items():
        given = body.get(name)
        if isinstance(given, dict):
            found += [f"undocumented field '{name}.{member}'" for member in given.keys() - members]
    if body.get("background") and body.get("store") is not True:
        found.append("background without store: true")
    return found + input_violations(body)


def fault_of(body: dict[str, Any]) -> Fault | None:
    """The first documented error of a request, or None."""
    return (
        type_fault(body, FIELDS)
        or text_model_fault(body, api="Responses", effort=(body.get("reasoning") or {}).get("effort"))
        or _tool_fault(body)
        or next(input_faults(body), None)
        or _edit_fault(body)
        or metadata_fault(body)
        or _other_fault(body)
    )


def _tool_fault(body: dict[str, Any]) -> Fault | None:
    tools = body.get("tools", [])
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            return Fault(f"Missing required parameter: 'tools[{index}].type'.", f"tools[{index}].type", None)
    for tool in _image_tools(body):
        for fault in option_faults(tool, stream=bool(body.get("stream")), where="tools[0]."):
            return fault
        if "action" in tool and (
            wrong := choice_fault(tool["action"], ("auto", "generate", "edit"), "tools[0].action")
        ):
            return wrong
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        return Fault(f"Invalid value: {choice!r}.", "tool_choice")
    if isinstance(choice, dict) and choice.get("type") not in [tool["type"] for tool in tools]:
        return Fault(f"Tool choice {choice.get('type')!r} not found in 'tools'.", "tool_choice")
    return None


def _edit_fault(body: dict[str, Any]) -> Fault | None:
    images = list(images_of(body))
    for tool in _image_tools(body):
        if tool.get("action") == "edit" and not images and not body.get("previous_response_id"):
            return Fault("There is no image in the context to edit.", "tools[0].action", "invalid_value")
        if tool.get("input_image_mask") is not None:
            data = data_of(str(images[0].get("image_url", "")), "input") if images else None
            first = looks_of(data) if isinstance(data, bytes) else None
            return next(mask_faults(tool["input_image_mask"], first, "tools[0].input_image_mask"), None)
    return None


def _other_fault(body: dict[str, Any]) -> Fault | None:
    if body.get("previous_response_id") and body.get("conversation"):
        return Fault("Use previous_response_id or conversation, not both.", "conversation")
    if body.get("stream_options") is not None and not body.get("stream"):
        return Fault("stream_options is only allowed when stream is enabled.", "stream_options")
    window = (body.get("background_options") or {}).get("completion_window", "soonest")
    if window != "soonest" and (not body.get("background") or body.get("stream")):
        return Fault("completion_window needs background and no stream.", "background_options.completion_window")
    return None


def _image_tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    tools = body.get("tools")
    found = tools if isinstance(tools, list) else []
    return [tool for tool in found if isinstance(tool, dict) and tool.get("type") == "image_generation"]
