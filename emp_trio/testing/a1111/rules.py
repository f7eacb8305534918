"""Validate requests as A1111 does (A1111 reference 10.2, 10.5). Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

_NUMBER: Final = (int, float)
_BOTH: Final[dict[str, tuple[type, ...]]] = {
    "prompt": (str,),
    "negative_prompt": (str,),
    "seed": (int,),
    "subseed": (int,),
    "subseed_strength": _NUMBER,
    "width": (int,),
    "height": (int,),
    "steps": (int,),
    "cfg_scale": _NUMBER,
    "sampler_name": (str,),
    "scheduler": (str,),
    "batch_size": (int,),
    "n_iter": (int,),
    "restore_faces": (bool,),
    "tiling": (bool,),
    "styles": (list,),
    "denoising_strength": _NUMBER,
    "override_settings": (dict,),
    "override_settings_restore_afterwards": (bool,),
    "script_name": (str,),
    "script_args": (list,),
    "alwayson_scripts": (dict,),
    "send_images": (bool,),
    "save_images": (bool,),
    "force_task_id": (str,),
    "infotext": (str,),
}
FIELDS: Final[dict[str, dict[str, tuple[type, ...]]]] = {
    "txt2img": _BOTH
    | {"enable_hr": (bool,), "hr_scale": _NUMBER, "hr_upscaler": (str,), "hr_second_pass_steps": (int,)},
    "img2img": _BOTH
    | {
        "init_images": (list,),
        "mask": (str,),
        "mask_blur": (int,),
        "inpainting_fill": (int,),
        "inpaint_full_res": (bool,),
        "inpaint_full_res_padding": (int,),
        "inpainting_mask_invert": (int,),
        "resize_mode": (int,),
        "include_init_images": (bool,),
    },
}
SAMPLERS: Final = ("Euler", "Euler a", "DPM++ 2M")


def fault_of(endpoint: str, body: Any) -> tuple[int, Any] | None:
    """Status and body of the error that a request deserves, or None."""
    if not isinstance(body, dict):
        return 422, {"detail": [_wrong([], "value is not a valid dict")]}
    wrong = [
        _wrong([name], f"value is not a valid {types[0].__name__}")
        for name, types in FIELDS[endpoint].items()
        if name in body and not (isinstance(body[name], types) and (bool in types or not isinstance(body[name], bool)))
    ]
    if wrong:
        return 422, {"detail": wrong}
    if body.get("script_name"):
        return 422, http_exception(f"Script '{body['script_name']}' not found")
    if body.get("sampler_name", SAMPLERS[0]) not in SAMPLERS:
        return 400, http_exception("Sampler not found")
    if endpoint == "img2img":
        if not body.get("init_images"):
            return 404, http_exception("Init image not found")
        mask = [body["mask"]] if "mask" in body else []
        if not all(_is_base64(image) for image in [*body["init_images"], *mask]):
            return 500, http_exception("Invalid encoded image")
    return None


def http_exception(detail: str, *, error: str = "HTTPException", errors: str = "") -> dict[str, str]:
    """A1111's own form of an error."""
    return {"error": error, "detail": detail, "body": "", "errors": errors}


def openapi() -> dict[str, Any]:
    """As much of ``/openapi.json`` as tells the parameters."""
    names = {"txt2img": "StableDiffusionTxt2ImgProcessingAPI", "img2img": "StableDiffusionImg2ImgProcessingAPI"}
    return {
        "openapi": "3.1.0",
        "paths": {
            f"/sdapi/v1/{endpoint}": {
                "post": {
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
                    }
                }
            }
            for endpoint, name in names.items()
        },
        "components": {
            "schemas": {
                name: {"type": "object", "properties": {field: {"title": field} for field in FIELDS[endpoint]}}
                for endpoint, name in names.items()
            }
        },
    }


def _wrong(place: list[str], message: str) -> dict[str, Any]:
    return {"loc": ["body", *place], "msg": message, "type": "type_error"}


def _is_base64(image: Any) -> bool:
    try:
        return bool(base64.b64decode(image.removeprefix("data:image/png;base64,"), validate=True))
    except (AttributeError, binascii.Error, ValueError):
        return False
