"""Nodes that save files: redirect their folders, and find those that saved nothing. Pure.

Sources: ComfyUI reference 4.8, 5; real servers 1.

Stock classes make a path of ``filename_prefix``. Classes of node packs may take it as a bare name beside a folder of
their own, and write nothing at all where it holds a slash; so it is changed only where it is known to be a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from emp_trio.services.comfyui.classes import NodeClass
from emp_trio.services.comfyui.graph import PACK_SAVERS, PREFIX, STOCK_SAVERS, saves_by_name
from emp_trio.services.comfyui.outputs import lists_files

_STOCK_MODULES: Final = ("comfy_extras.", "comfy_api_nodes.")
_BARE: Final = frozenset({"LossGraphNode"})  # stock, and yet it makes a file name of its prefix
_UNLISTED: Final = frozenset("CheckpointSave ImageOnlyCheckpointSave CLIPSave VAESave ModelSave LoraSave".split())

# Other inputs that say where files go.
_PLACE: Final = re.compile(r"(^|_)(sub|out|output|save)?_?(path|folder|dir|directory|location|destination)(_|$)")
_SAVES: Final = re.compile(r"(?i)save|writ|export|store|dump|record")
_KINDS: Final = frozenset("IMAGE MASK VIDEO AUDIO LATENT MESH VOXEL SVG GLB *".split())


def takes_path(node: Mapping[str, Any], found: NodeClass | None) -> bool:
    """Whether a node is known to make a path of its ``filename_prefix``: slashes in it become folders.

    Args:
        node: of checked form.
        found: what the server says of its class; None where it does not say.
    """
    class_type = node["class_type"]
    inputs = found.inputs if found is not None else {}
    if class_type in _BARE or any(_PLACE.search(str(name).lower()) for name in {*inputs, *node["inputs"]}):
        return False
    prefix = inputs.get(PREFIX)
    if prefix is not None and isinstance(prefix.default, str) and "/" in prefix.default:
        return True
    if found is None or not found.module:
        return saves_by_name(node)
    return class_type in PACK_SAVERS or found.module == "nodes" or found.module.startswith(_STOCK_MODULES)


def silent_nodes(graph: Mapping[str, Any], outputs: Mapping[str, Any], targets: Iterable[str] | None) -> dict[str, str]:
    """Nodes of a finished prompt that have listed no file, whatever else they say.

    Args:
        graph: as it was sent.
        outputs: of the history entry.
        targets: ids of the outputs that ran; None where the server does not say.

    Returns:
        their classes by id, in the graph's order.
    """
    ran = set(graph) if targets is None else set(targets)
    return {key: node["class_type"] for key, node in graph.items() if key in ran and not lists_files(outputs.get(key))}


def saves(class_type: str, found: NodeClass | None) -> bool:
    """Whether a class saves images, films or sounds, and lists them where it works as it should.

    Args:
        class_type: its name.
        found: what the server says of it; None where it does not say.
    """
    if class_type in _UNLISTED:
        return False
    if found is None:
        return class_type in STOCK_SAVERS | PACK_SAVERS
    named = _SAVES.search(class_type) or any(name == PREFIX or _PLACE.search(name.lower()) for name in found.inputs)
    return found.output_node and bool(named) and any(spec.kinds & _KINDS for spec in found.inputs.values())
