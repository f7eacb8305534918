"""Read a job's graph from its payload, validate it and adapt it to the job. Pure.

Sources: ComfyUI reference 1, 2.1, 4.8.

One accepted prompt of the wrong form can end a server's only worker thread (4.6), so nothing of the kind is sent.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from emp_trio.errors import InvalidJob

Graph: TypeAlias = dict[str, Any]

_NAMESPACE: Final = uuid.UUID("5f0ce1d4-6d2b-4c0e-9d55-0a3f6f7d0b11")
_BESIDE: Final = frozenset("ctx extra_data extra_pnginfo client_id prompt_id include_temp".split())
_SHOWN: Final = 10  # problems in one message

PREFIX: Final = "filename_prefix"
STOCK_SAVERS: Final = frozenset(
    "SaveImage SaveAnimatedPNG SaveAnimatedWEBP SaveLatent SaveVideo SaveWEBM SaveAudio SaveAudioMP3 SaveAudioOpus "
    "SaveGLB SaveSVGNode CheckpointSave ImageOnlyCheckpointSave CLIPSave VAESave ModelSave LoraSave".split()
)
"""Stock classes that make a path of their prefix, for servers that do not say where a class comes from."""
PACK_SAVERS: Final = frozenset({"VHS_VideoCombine"})
"""Classes of node packs that do so."""


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """What a payload asks for: the graph, and the ``extra_data`` that goes along with it."""

    graph: Graph
    extra_data: dict[str, Any]


def prompt_id_of(job_id: str) -> str:
    """The prompt's id: a function of the job alone, so that every attempt finds what an earlier one has started.

    A UUID in canonical form, as later servers demand (ComfyUI reference 1).
    """
    return str(uuid.uuid5(_NAMESPACE, job_id))


def read_workflow(payload: Mapping[str, Any]) -> Workflow:
    """The graph in a payload: ``workflow``, ``prompt``, or the payload itself (connector reference 5.1).

    ``extra_data``, or ``extra_pnginfo`` alone, may stand beside it or, with the body of a POST /prompt, inside.

    Raises:
        InvalidJob: there is none, it is the editor's own format, or its nodes are not of the form that can be sent.
    """
    beside: dict[str, Any] = dict(payload)
    found: Any = payload
    for name in ("workflow", "prompt", "workflow"):  # each may hold the next: bodies are pasted into payloads
        if isinstance(found, Mapping) and _wraps(found.get(name)):
            beside, found = {**beside, **found}, found[name]
    if not isinstance(found, Mapping):
        raise InvalidJob(f"the workflow is {type(found).__name__} where a graph was expected: an object of nodes by id")
    if isinstance(found.get("nodes"), list) and "links" in found:
        raise InvalidJob(
            "the workflow is in the editor's format (nodes and links): save it with Export (API) and send that",
            reason="invalid_format",
        )
    graph = {key: node for key, node in found.items() if found is not payload or key not in _BESIDE}
    _check_form(graph)
    extra = beside.get("extra_data")
    extra_data = dict(extra) if isinstance(extra, Mapping) else {}
    if "extra_pnginfo" not in extra_data and isinstance(beside.get("extra_pnginfo"), Mapping):
        extra_data["extra_pnginfo"] = dict(beside["extra_pnginfo"])
    return Workflow(graph=copy.deepcopy(graph), extra_data=extra_data)


def with_saved_images(graph: Graph) -> Graph:
    """A copy in which ``SaveImageWebsocket``, whose images a lost socket would lose, is ``SaveImage`` (3.3): the
    class that the server must have."""
    graph = copy.deepcopy(graph)
    for node in graph.values():
        if node["class_type"] == "SaveImageWebsocket":
            node["class_type"] = "SaveImage"
            node["inputs"].setdefault("filename_prefix", "ComfyUI")
    return graph


def saves_by_name(node: Mapping[str, Any]) -> bool:
    """Whether a node's class has a name that is known to make a path of its ``filename_prefix``."""
    return node["class_type"] in STOCK_SAVERS | PACK_SAVERS


def made_unique(graph: Graph, folder: str, takes_path: Callable[[Mapping[str, Any]], bool] = saves_by_name) -> Graph:
    """A copy whose files are nobody else's: every ``filename_prefix`` that is a path begins with ``folder``.

    Otherwise a cached node names a file that may be another job's by now (ComfyUI reference 4.8).

    Args:
        graph: of checked form.
        folder: path of its own for this submission, without a slash at its ends.
        takes_path: whether a node is known to make a path of its prefix.
    """
    graph = with_saved_images(graph)
    for node in graph.values():
        prefix = node["inputs"].get(PREFIX)
        if isinstance(prefix, str) and takes_path(node):
            steps = [step for step in prefix.replace("\\", "/").split("/") if step not in ("", ".", "..")]
            node["inputs"][PREFIX] = "/".join([folder, *steps])
    return graph


def needed_by(graph: Graph, outputs: Iterable[str]) -> set[str]:
    """Ids of the nodes that some outputs need, themselves included; all that a server looks at (2.1)."""
    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        key = waiting.pop()
        if key in graph and key not in needed:
            needed.add(key)
            waiting += [value[0] for value in graph[key]["inputs"].values() if is_link(value)]
    return needed


def broken_links(graph: Graph, key: str) -> list[str]:
    """What is wrong with the links of one node: each that comes from a node that is not in the graph."""
    node = graph[key]
    return [
        f"input {name!r} of node {key!r} ({node['class_type']}) comes from node {value[0]!r}, which is missing"
        for name, value in node["inputs"].items()
        if is_link(value) and value[0] not in graph
    ]


def with_inputs(graph: Graph, values: Mapping[tuple[str, str], Any]) -> Graph:
    """A copy with other values of some inputs, given by node id and input name."""
    graph = copy.deepcopy(graph)
    for (node, name), value in values.items():
        graph[node]["inputs"][name] = value
    return graph


def _wraps(value: Any) -> bool:
    return value is not None and not (isinstance(value, Mapping) and isinstance(value.get("class_type"), str))


def _check_form(graph: Graph) -> None:
    """Raise InvalidJob for all that must not reach a server (ComfyUI reference 2.1, 4.6)."""
    if not graph:
        raise InvalidJob("the payload has no graph: put it under workflow", reason="missing_required_field")
    problems: list[str] = []
    for key, node in graph.items():
        if not isinstance(node, Mapping) or not isinstance(node.get("class_type"), str):
            problems.append(f"node {key!r} is not an object with a class_type")
        elif not isinstance(node.get("inputs"), Mapping):
            problems.append(f"node {key!r} ({node['class_type']}) has no inputs object")
    if problems:
        raise unsendable(problems)


def unsendable(problems: Sequence[str]) -> InvalidJob:
    """The error for a graph that no server should get."""
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return InvalidJob(f"the graph can't be sent: {'; '.join(problems[:_SHOWN])}{more}")


def is_link(value: Any) -> bool:
    """Whether an input's value is the output of another node: ``[id, number]``."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )
