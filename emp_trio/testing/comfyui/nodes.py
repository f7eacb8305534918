"""The node classes of the fake ComfyUI: what ``/object_info`` says of them, and what each does when it runs. Pure.

Stock classes are as in the recordings of a real server, the test classes (``Rig…``) likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

SAVES_ANYTHING: Final = ("Save", "Preview", "VHS_VideoCombine")  # how the classes of output nodes begin


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What a node does.

    Attributes:
        seconds: how long it takes.
        steps: how often it reports meanwhile; 0 for a node that does not report, and so does not hear an interrupt.
        previews: whether it sends previews.
        raises: exception type and message it ends with.
        files: files it saves, as (key in the outputs, extension, folder type).
        shows: what it shows beside files, by key.
        says: a text it sends while it runs.
        bare: it makes a file name of its prefix, and saves nothing where that is a path.
    """

    seconds: float = 0.0
    steps: int = 0
    previews: bool = False
    raises: tuple[str, str] | None = None
    files: tuple[tuple[str, str, str], ...] = ()
    shows: dict[str, list[Any]] = {}
    says: str = ""
    bare: bool = False


def _int(least: int, most: int, default: int) -> list[Any]:
    return ["INT", {"default": default, "min": least, "max": most, "step": 1}]


def _class(
    required: dict[str, Any] | None = None,
    optional: dict[str, Any] | None = None,
    *,
    out: str = "IMAGE",
    output_node: bool = False,
    module: str = "nodes",
) -> dict[str, Any]:
    return {
        "input": {"required": required or {}, "optional": optional or {}},
        "output": [out] if out else [],
        "output_node": output_node,
        "python_module": module,
        "category": "image",
    }


_IMAGE: Final = ["IMAGE", {}]
_TEXT: Final = ["STRING", {}]
_SECONDS: Final = ["FLOAT", {"default": 1.0, "min": 0.0, "max": 86400.0}]
_SALT: Final = _int(0, 2**31, 0)
_SAVE: Final = {"images": _IMAGE, "filename_prefix": ["STRING", {"default": "ComfyUI"}]}

CLASSES: Final[dict[str, dict[str, Any]]] = {
    "EmptyImage": _class(
        {
            "width": _int(1, 16384, 512),
            "height": _int(1, 16384, 512),
            "batch_size": _int(1, 4096, 1),
            "color": _int(0, 0xFFFFFF, 0),
        }
    ),
    "EmptyLatentImage": _class({"width": _int(16, 16384, 512), "height": _int(16, 16384, 512)}, out="LATENT"),
    "ImageInvert": _class({"image": _IMAGE}),
    "ImageScale": _class(
        {
            "image": _IMAGE,
            "upscale_method": [["nearest-exact", "bilinear", "area", "bicubic", "lanczos"], {}],
            "width": _int(0, 16384, 512),
            "height": _int(0, 16384, 512),
            "crop": [["disabled", "center"], {}],
        }
    ),
    "LoadImage": _class({"image": [["example.png"], {"image_upload": True}]}),
    "SaveImage": _class(_SAVE, out="", output_node=True),
    "PreviewImage": _class({"images": _IMAGE}, out="", output_node=True),
    "SaveImageWebsocket": _class(
        {"images": _IMAGE}, out="", output_node=True, module="custom_nodes.websocket_image_save"
    ),
    "SaveVideo": _class(
        {"video": _IMAGE, "filename_prefix": _TEXT}, out="", output_node=True, module="comfy_extras.nodes_video"
    ),
    "SaveAudio": _class({"filename_prefix": _TEXT}, out="", output_node=True, module="comfy_extras.nodes_audio"),
    "LossGraphNode": _class(
        {"images": _IMAGE, "filename_prefix": ["STRING", {"default": "loss_graph"}]},
        out="",
        output_node=True,
        module="comfy_extras.nodes_train",
    ),
    "Image Save": _class(
        {
            "images": _IMAGE,
            "output_path": ["STRING", {"default": "[time(%Y-%m-%d)]"}],
            "filename_prefix": ["STRING", {"default": "ComfyUI"}],
        },
        out="",
        output_node=True,
        module="custom_nodes.was-node-suite-comfyui",
    ),
    "CheckpointLoaderSimple": _class({"ckpt_name": [["fake.safetensors"], {}]}, out="MODEL"),
    "RigSleep": _class(
        {"seconds": _SECONDS, "steps": _int(0, 1000, 4)},
        {"preview": ["BOOLEAN", {}], "salt": _SALT, "image": _IMAGE},
        module="custom_nodes.rig",
    ),
    "RigSay": _class({"text": _TEXT}, {"salt": _SALT}, out="", output_node=True, module="custom_nodes.rig"),
    "RigRaise": _class(
        {"image": _IMAGE, "message": _TEXT},
        {"kind": _TEXT, "salt": _SALT},
        out="",
        output_node=True,
        module="custom_nodes.rig",
    ),
    "RigFiles": _class(
        {"key": _TEXT, "extension": _TEXT, "filename_prefix": _TEXT},
        out="",
        output_node=True,
        module="custom_nodes.rig",
    ),
    "RigNothing": _class(None, {"salt": _SALT}, out="", output_node=True, module="custom_nodes.rig"),
    "RigShow": _class({"value": _TEXT}, {"salt": _SALT}, out="", output_node=True, module="custom_nodes.rig"),
}


def class_of(name: str, *, any_class: bool) -> dict[str, Any] | None:
    """What ``/object_info`` says of a class; where ``any_class``, of unknown ones too."""
    found = CLASSES.get(name)
    if found is not None and name == "CheckpointLoaderSimple" and any_class:
        return _class({"ckpt_name": _TEXT}, out="MODEL")
    if found is None and any_class:
        return _class(output_node=name.startswith(SAVES_ANYTHING))
    return found


def act_of(class_type: str, inputs: Mapping[str, Any], *, seconds: float) -> Act:
    """What a node does.

    Args:
        class_type: its class.
        inputs: its inputs.
        seconds: how long a sampler takes.
    """
    match class_type:
        case "SaveImage":
            return Act(files=(("images", "png", "output"),))
        case "Image Save" | "LossGraphNode":
            return Act(files=(("images", "png", "output"),), bare=True)
        case "PreviewImage":
            return Act(files=(("images", "png", "temp"),))
        case "SaveVideo":
            return Act(files=(("images", "mp4", "output"),), shows={"animated": [True]})
        case "SaveAudio":
            return Act(files=(("audio", "flac", "output"),))
        case "RigFiles":
            return Act(files=((str(inputs["key"]), str(inputs["extension"]), "output"),))
        case "RigSleep":
            steps, previews = int(inputs["steps"]), inputs.get("preview") is True
            return Act(seconds=float(inputs["seconds"]), steps=steps, previews=previews)
        case "RigSay":
            return Act(says=str(inputs["text"]), shows={"text": [inputs["text"]]})
        case "RigShow":
            return Act(shows={"value": [float(str(inputs["value"]))]})
        case "RigRaise":
            return Act(raises=(str(inputs.get("kind", "RuntimeError")), f"{inputs['message']}\n"))
        case _ if "Sampler" in class_type:
            given = inputs.get("steps")
            return Act(seconds=seconds, steps=given if isinstance(given, int) and 0 < given <= 1000 else 20)
        case _ if class_type.startswith(SAVES_ANYTHING):
            return Act(files=(("images", "png", "output"),))
        case _:
            return Act()
