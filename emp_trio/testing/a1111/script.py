"""Script of the fake A1111, and the images and ``info`` it generates. Pure."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Final, Literal

import msgspec

from emp_trio.testing.png import make_png

Seconds = Annotated[float, msgspec.Meta(ge=0)]

# The least that is told from other files by its first bytes.
_JPEG: Final = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_GRID, _EXTRA, _HALF = 7_001, 8_001, 9_001  # seeds that no job has


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An exception in the middle of the work, as the 500 of the reference tells it (10.5)."""

    error: str = "RuntimeError"
    errors: str = "something went wrong"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint of the server."""

    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str = ""
    config: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What the server takes for a name of it."""
        return tuple(filter(None, (self.title, self.model_name, self.hash, self.filename)))


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How work goes.

    Attributes:
        seconds: for all steps of an image.
        hold_at: the step at which work stands still until it is released or interrupted.
        deaf: nothing that is held hears an interrupt.
        failure: how every generation ends, at its last step.
        image: what the images are.
        data_urls: images come with a prefix, as those of some forks.
        extras: images that a script appends.
        lost: images that are missing at the end.
        info: whether there is any.
        info_form: how it is written: JSON in a text, with a bare NaN of Python's json in it, as a text in a text, cut
            off, or something else in its place.
        other_model: the model that is used whatever was asked for.
        answer_delay: seconds between the end of the work and the answer.
    """

    seconds: Seconds = 0.0
    hold_at: int | None = None
    deaf: bool = False
    failure: Failure | None = None
    image: Literal["png", "jpeg", "text"] = "png"
    data_urls: bool = False
    extras: int = 0
    lost: int = 0
    info: bool = True
    info_form: Literal["text", "nan", "twice", "broken", "null", "list"] = "text"
    other_model: str | None = None
    answer_delay: Seconds = 0.0


def image(seed: int, body: dict[str, Any], kind: str = "png") -> bytes:
    """The image of a seed."""
    if kind == "text":
        return f"no image at all, number {seed}".encode()
    side = {"width": 64, "height": 64} | {name: body[name] for name in ("width", "height") if name in body}
    data = make_png(min(side["width"], 64), min(side["height"], 64), seed=seed)
    return data if kind == "png" else _JPEG + data


def answer(body: dict[str, Any], model: Model, script: Script, *, seed: int, made: int, interrupted: bool) -> Any:
    """The answer of a generation.

    Args:
        body: the request.
        model: that was used.
        seed: of the first image.
        made: images that were finished.
        interrupted: there is a half one after them.
    """
    count = body.get("batch_size", 1) * body.get("n_iter", 1)
    made = min(made, count) - script.lost
    grid = body.get("save_images", False) and count > 1
    seeds = [_GRID] * grid + [seed + number for number in range(made)] + [_HALF] * (interrupted and made < count)
    seeds += [_EXTRA + number for number in range(script.extras)]
    prefix = "data:image/png;base64," if script.data_urls else ""
    images = [prefix + base64.b64encode(image(number, body, script.image)).decode() for number in seeds]
    info = {
        "prompt": body.get("prompt", ""),
        "all_prompts": [body.get("prompt", "")] * count,
        "seed": seed,
        "all_seeds": [seed + number for number in range(count)],
        "sd_model_name": model.model_name,
        "sd_model_hash": (model.hash or "")[:10],
        "index_of_first_image": int(grid),
        "infotexts": [f"{body.get('prompt', '')}, Seed: {seed + number}" for number in range(count)],
        "version": "v1.10.1",
    }
    return {
        "images": images if body.get("send_images", True) else [],
        "parameters": {name: value for name, value in body.items() if name not in ("init_images", "mask")},
        "info": _written(info, script.info_form) if script.info else "",
    }


def _written(info: dict[str, Any], form: str) -> Any:
    text = json.dumps(info)
    match form:
        case "nan":
            return json.dumps(info | {"extra_generation_params": {"eta": float("nan"), "s_tmax": float("inf")}})
        case "twice":
            return json.dumps(text)
        case "broken":
            return text[: len(text) // 2]
        case "null":
            return None
        case "list":
            return json.dumps([info])
        case _:
            return text
