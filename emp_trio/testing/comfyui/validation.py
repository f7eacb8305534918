"""Validate prompts as ComfyUI does, with the recorded messages. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the validation: ``error`` for a 400, else the outputs that will run; node errors in both cases."""

    error: dict[str, Any] | None = None
    outputs: tuple[str, ...] = ()
    node_errors: dict[str, Any] = {}


def validate(graph: Any, class_of: Callable[[str], dict[str, Any] | None], has_input: Callable[[str], bool]) -> Verdict:
    """Validate a graph as ComfyUI does.

    Args:
        graph: ``prompt`` of the request.
        class_of: ``/object_info`` of a class, or None.
        has_input: whether an input image of that name is there.
    """
    for key, node in graph.items():
        if not isinstance(node, dict) or "class_type" not in node:
            return _invalid("Cannot execute because a node is missing the class_type property.", key)
        if class_of(node["class_type"]) is None:
            return _invalid(f"Cannot execute because node {node['class_type']} does not exist.", key)
    classes = {key: class_of(node["class_type"]) or {} for key, node in graph.items()}
    outputs = [key for key in graph if classes[key]["output_node"]]
    if not outputs:
        return Verdict(error=_error("prompt_no_outputs", "Prompt has no outputs", ""))
    own = {key: _node_errors(key, graph, classes, has_input) for key in graph}
    good: list[str] = []
    node_errors: dict[str, Any] = {}
    for output in outputs:
        reached, cyclic = _ancestors(output, graph)
        bad = [key for key in reached if own[key]]
        if not bad and not cyclic:
            good.append(output)
        for key in bad:
            entry = node_errors.setdefault(
                key, {"errors": own[key], "dependent_outputs": [], "class_type": graph[key]["class_type"]}
            )
            entry["dependent_outputs"].append(output)
    if good:
        return Verdict(outputs=tuple(good), node_errors=node_errors)
    return Verdict(
        error=_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", ""),
        node_errors=node_errors,
    )


def _invalid(message: str, id: str) -> Verdict:
    return Verdict(error=_error("invalid_prompt", message, f"Node ID '#{id}'"))


def _error(type: str, message: str, details: str) -> dict[str, Any]:
    return {"type": type, "message": message, "details": details, "extra_info": {}}


def _ancestors(output: str, graph: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Every node that an output needs, itself included; and whether there is a cycle among them."""
    reached: dict[str, None] = {}
    cyclic = False

    def walk(key: str, path: tuple[str, ...]) -> None:
        nonlocal cyclic
        if key in path:
            cyclic = True
            return
        reached[key] = None
        for value in graph[key].get("inputs", {}).values():
            if is_link(value) and value[0] in graph:
                walk(value[0], (*path, key))

    walk(output, ())
    return list(reached), cyclic


def is_link(value: Any) -> bool:
    """Whether a value is the output of another node."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _node_errors(
    id: str, graph: Mapping[str, Any], classes: Mapping[str, dict[str, Any]], has_input: Callable[[str], bool]
) -> list[dict[str, Any]]:
    node = graph[id]
    if "inputs" not in node:
        info = {"exception_type": "KeyError", "traceback": ['  File "execution.py", line 1010\n']}
        return [_found("exception_during_validation", "Exception when validating node", "'inputs'", **info)]
    declared = classes[id]["input"]
    errors = []
    for name, config in (declared["required"] | declared["optional"]).items():
        if name not in node["inputs"]:
            if name in declared["required"]:
                errors.append(_found("required_input_missing", "Required input is missing", name, input_name=name))
            continue
        errors += _value_errors(name, node["inputs"][name], config, graph, classes)
    image = node["inputs"].get("image")
    if node["class_type"] == "LoadImage" and isinstance(image, str) and not has_input(image):
        details = f"image - Invalid image file: {image}"
        errors.append(_found("custom_validation_failed", "Custom validation failed for node", details))
    return errors


def _value_errors(
    name: str, value: Any, config: list[Any], graph: Mapping[str, Any], classes: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    kind, options = config[0], config[1] if len(config) > 1 else {}
    about = {"input_name": name, "input_config": config, "received_value": value}
    if isinstance(value, list):
        if not is_link(value):
            text = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return [_found("bad_linked_input", text, name, **about)]
        if value[0] not in graph:
            text = "Exception when validating inner node"
            why = {"exception_type": "KeyError", "exception_message": repr(value[0]), "linked_node": value}
            return [_found("exception_during_inner_validation", text, repr(value[0]), **about, **why)]
        sent = classes[value[0]]["output"]
        if isinstance(kind, str) and sent and sent[0] != kind:
            text = f"{name}, received_type({sent[0]}) mismatch input_type({kind})"
            return [_found("return_type_mismatch", "Return type mismatch between linked nodes", text, **about)]
        return []
    if isinstance(kind, list) and not options.get("image_upload"):
        if value not in kind:
            return [_found("value_not_in_list", "Value not in list", f"{name}: {value!r} not in {kind}", **about)]
        return []
    if kind not in ("INT", "FLOAT"):
        return []
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        text = f"Failed to convert an input value to a {kind} value"
        return [_found("invalid_input_type", text, f"{name}, {value}, {error}", **about, exception_message=str(error))]
    if number < options["min"]:
        text = f"Value {value} smaller than min of {options['min']}"
        return [_found("value_smaller_than_min", text, name, **about)]
    if number > options["max"]:
        return [_found("value_bigger_than_max", f"Value {value} bigger than max of {options['max']}", name, **about)]
    return []


def _found(type: str, message: str, details: str, **extra: Any) -> dict[str, Any]:
    return {"type": type, "message": message, "details": details, "extra_info": extra}
