"""What a server's own node classes say of a graph: outputs, classes and models that are missing, files to upload
(reference 2.5, 11). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.services.comfyui.graph import Graph
from emp_trio.services.inputs import is_url

_LONGEST_NAME: Final = 255  # of a file; a longer text is the file itself

# Classes with a validation of their own take values outside of their lists, which nothing tells; but not for models.
_MODELS: Final = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")

# Inputs that name an input file, for servers that do not tell.
_FILE_INPUTS: Final = frozenset(
    {
        ("LoadImage", "image"),
        ("LoadImageMask", "image"),
        ("LoadImageOutput", "image"),
        ("LoadAudio", "audio"),
        ("LoadVideo", "file"),
        ("VHS_LoadVideo", "video"),
        ("VHS_LoadAudioUpload", "audio"),
    }
)


class InputSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An input of a class: the values it may have, or None for any; whether it names an uploaded file."""

    options: tuple[Any, ...] | None = None
    upload: bool = False


class NodeClass(msgspec.Struct, frozen=True, kw_only=True):
    """A class of nodes."""

    inputs: dict[str, InputSpec]
    output_node: bool


class FileInput(msgspec.Struct, frozen=True, kw_only=True):
    """An input whose value is a file, and not the name of one: URL, data URL or base64."""

    node: str
    input: str
    source: str


def read_class(name: str, answer: Any) -> NodeClass | None:
    """The class ``name`` in an answer of ``GET /object_info/{name}``; None where the server does not have it."""
    found = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    kinds = found.get("input")
    kinds = kinds if isinstance(kinds, Mapping) else {}
    inputs: dict[str, InputSpec] = {}
    for kind in ("required", "optional"):
        listed = kinds.get(kind)
        if isinstance(listed, Mapping):
            inputs |= {str(field): _spec(config) for field, config in listed.items()}
    return NodeClass(inputs=inputs, output_node=found.get("output_node") is True)


def check_classes(graph: Graph, classes: Mapping[str, NodeClass | None]) -> None:
    """Look for what the server is going to refuse.

    Args:
        graph: of checked form.
        classes: every class of the graph; None for one that the server does not have.

    Raises:
        InvalidJob: no node of the graph is an output.
        ServiceError: this server lacks a class or a model; another one may have it.
    """
    missing = sorted({node["class_type"] for node in graph.values() if classes.get(node["class_type"]) is None})
    if missing:
        raise ServiceError(
            f"this server has no node class {', '.join(map(repr, missing))}: install the node pack, or send the job to "
            "a server that has it",
            type="validation_error",
            reason="component_error",
            retry=True,
        )
    absent = [text for key, node in graph.items() for text in _absent(key, node, classes[node["class_type"]])]
    if absent:
        raise ServiceError(
            f"this server lacks what the graph names: {'; '.join(absent[:10])}",
            type="validation_error",
            reason="model_not_found",
            retry=True,
        )
    if not any(found is not None and found.output_node for found in classes.values()):
        raise InvalidJob("the graph has no output node, so nothing would come out: add a save or a preview node")


def file_inputs(graph: Graph, classes: Mapping[str, NodeClass | None]) -> list[FileInput]:
    """Every input that holds a file instead of the name of one.

    Only inputs that take an uploaded file are looked at: a URL in a prompt text is text.
    """
    return [
        FileInput(node=key, input=name, source=value)
        for key, node in graph.items()
        for name, value in node["inputs"].items()
        if isinstance(value, str) and _takes_file(node["class_type"], name, classes) and _is_source(value)
    ]


def _takes_file(class_type: str, name: str, classes: Mapping[str, NodeClass | None]) -> bool:
    if (class_type, name) in _FILE_INPUTS:
        return True
    found = classes.get(class_type)
    return found is not None and name in found.inputs and found.inputs[name].upload


def _is_source(value: str) -> bool:
    return is_url(value) or value.startswith("data:") or len(value) > _LONGEST_NAME


def _spec(config: Any) -> InputSpec:
    """``[type, options]``, where the type is a list of values, or COMBO with them among the options."""
    if not isinstance(config, Sequence) or isinstance(config, str) or not config:
        return InputSpec()
    more = config[1] if len(config) > 1 and isinstance(config[1], Mapping) else {}
    upload = any(str(name).endswith("_upload") and flag for name, flag in more.items())
    values = config[0] if isinstance(config[0], list) else more.get("options") if config[0] == "COMBO" else None
    if upload or not isinstance(values, list) or more.get("multiselect") or more.get("remote"):
        return InputSpec(upload=upload)
    return InputSpec(options=tuple(values))


def _absent(id: str, node: Mapping[str, Any], found: NodeClass | None) -> list[str]:
    specs = found.inputs if found is not None else {}
    return [
        f"{value!r} for {name!r} of node {id!r} ({node['class_type']})"
        for name, value in node["inputs"].items()
        if isinstance(value, str)
        and value.lower().endswith(_MODELS)
        and name in specs
        and (options := specs[name].options) is not None
        and value not in options
    ]
