"""Check a graph against the server's node classes (ComfyUI reference 2.5, 11). Pure.

Finds outputs, missing classes and models, and files to upload.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.services.comfyui.graph import Graph, broken_links, needed_by, unsendable
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
    """An input of a class.

    Attributes:
        kinds: its types, such as ``IMAGE``; none for a list of values.
        default: its value where a node gives none.
        options: the values it may have, or None for any.
        upload: whether it names an uploaded file.
    """

    kinds: frozenset[str] = frozenset()
    default: Any = None
    options: tuple[Any, ...] | None = None
    upload: bool = False


class NodeClass(msgspec.Struct, frozen=True, kw_only=True):
    """A class of nodes.

    Attributes:
        inputs: by name; empty for one of which the server does not tell them.
        output_node: whether the server runs it for its own sake.
        module: where it comes from (``nodes``, ``custom_nodes.some-pack``), where that is told.
        replaced: the server puts another class in its place, or may do so.
    """

    inputs: dict[str, InputSpec]
    output_node: bool
    module: str = ""
    replaced: bool = False


UNTOLD: Final = NodeClass(inputs={}, output_node=True, replaced=True)
"""A class that a server does not list and may take all the same: it has not said what it replaces."""


class FileInput(msgspec.Struct, frozen=True, kw_only=True):
    """An input whose value is a file, and not the name of one: URL, data URL or base64."""

    node: str
    input: str
    source: str


class _Inputs(msgspec.Struct, frozen=True):
    required: Lenient[dict[str, Any]] = {}
    optional: Lenient[dict[str, Any]] = {}


class _Class(msgspec.Struct, frozen=True):
    """An entry of ``/object_info``."""

    input: Lenient[_Inputs] = _Inputs()
    output_node: Lenient[bool] = False
    python_module: Lenient[str] = ""


class _Config(msgspec.Struct, frozen=True, array_like=True):
    """An input: its type, or a list of its values, and options of any names. COMBO has its values among those."""

    kind: Any = None
    options: Any = None


class _Options(msgspec.Struct, frozen=True):
    options: Lenient[list[Any] | None] = None
    default: Any = None
    multiselect: Any = None
    remote: Any = None


class _Replacement(msgspec.Struct, frozen=True):
    new_node_id: Lenient[str] = ""


def read_class(name: str, answer: Any) -> NodeClass | None:
    """The class ``name`` in an answer of ``GET /object_info/{name}``; None where the server does not have it."""
    found = parse_or_empty(dict[str, Lenient[_Class]], answer).get(name)
    if found is None:
        return None
    inputs = {field: _spec(config) for field, config in (found.input.required | found.input.optional).items()}
    return NodeClass(inputs=inputs, output_node=found.output_node, module=found.python_module)


def read_replacements(table: Any) -> dict[str, str]:
    """An answer of ``GET /node_replacements``: for each class that is replaced, the class that a server takes, which is
    the first in its list."""
    found = parse_or_empty(dict[str, Any], table)
    first = {old: choices[0] if isinstance(choices, list) and choices else choices for old, choices in found.items()}
    return {old: new for old, choice in first.items() if (new := parse_or_empty(_Replacement, choice).new_node_id)}


def with_titles(graph: Graph, classes: Mapping[str, NodeClass | None]) -> Graph:
    """A copy in which every node of a class that is replaced has a ``_meta``: a server that copies it fails without."""
    return {
        key: {**node, "_meta": {"title": node["class_type"]}}
        if (found := classes.get(node["class_type"])) is not None
        and found.replaced
        and not isinstance(node.get("_meta"), Mapping)
        else node
        for key, node in graph.items()
    }


def check_classes(graph: Graph, classes: Mapping[str, NodeClass | None], *, partial: bool = False) -> Graph:
    """Look for what the server is going to refuse, or what would harm it. Nodes that no output needs are not looked at
    by a server, so their links and values are their own affair.

    Args:
        graph: of checked form.
        classes: every class of the graph; None for one that the server does not have. Empty where it does not say: then
            any node may be an output.
        partial: run what is left without the outputs that can't be run.

    Returns:
        the graph, or with ``partial`` a copy without what can't be run.

    Raises:
        InvalidJob: no node of the graph is an output, or an output needs a node that is not there.
        ServiceError: this server lacks a class or a model; another one may have it.
    """
    known = {key: classes.get(node["class_type"]) for key, node in graph.items()} if classes else {}
    missing = {key for key, found in known.items() if found is None}
    outputs = [key for key in graph if not classes or (found := known[key]) is None or found.output_node]
    broken = {key: links for key in graph if (links := broken_links(graph, key))}
    if partial:
        needs = {output: needed_by(graph, [output]) for output in outputs}
        good = [output for output in outputs if needs[output].isdisjoint(missing | broken.keys())]
        if good and (len(good) < len(outputs) or missing):
            left = set(graph) - set().union(missing, *(needs[output] for output in outputs))
            left |= needed_by(graph, good)
            return check_classes({key: node for key, node in graph.items() if key in left}, classes, partial=True)
    if missing:
        raise _lacks_classes({graph[key]["class_type"] for key in missing})
    needed = needed_by(graph, outputs)
    if links := [text for key in graph if key in needed for text in broken.get(key, ())]:
        raise unsendable(links)
    absent = {key: texts for key in needed if (texts := _absent(key, graph[key], known.get(key)))}
    if absent and not (partial and any(needs[output].isdisjoint(absent) for output in outputs)):
        raise _lacks_models([text for key in graph for text in absent.get(key, ())])
    if not outputs:
        raise InvalidJob("the graph has no output node, so nothing would come out: add a save or a preview node")
    return graph


def _lacks_classes(names: Collection[str]) -> ServiceError:
    return ServiceError(
        f"this server has no node class {', '.join(map(repr, sorted(names)))}: install the node pack, or send the job "
        "to a server that has it",
        type="validation_error",
        reason="component_error",
        retry=True,
    )


def _lacks_models(absent: Sequence[str]) -> ServiceError:
    return ServiceError(
        f"this server lacks what the graph names: {'; '.join(absent[:10])}",
        type="validation_error",
        reason="model_not_found",
        retry=True,
    )


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
    found = parse_or_empty(_Config, config)
    more = found.options if isinstance(found.options, dict) else {}
    upload = any(name.endswith("_upload") and flag for name, flag in more.items())
    about = parse_or_empty(_Options, more)
    values = found.kind if isinstance(found.kind, list) else about.options if found.kind == "COMBO" else None
    free = upload or values is None or about.multiselect or about.remote
    return InputSpec(
        kinds=frozenset(found.kind.split(",")) if isinstance(found.kind, str) else frozenset(),
        default=about.default,
        options=None if free or values is None else tuple(values),
        upload=upload,
    )


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
