"""Scenarios of ``emp-trio demo``: services, workers, storage and jobs of each."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, Literal

import msgspec

from emp_trio.testing.png import make_png

SceneName = Literal["mixed", "openai", "comfyui"]
Fake = Literal["http", "websocket", "openai", "comfyui"]

_LARGE: Final = 8 * 2**20


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of job: how it is to end, and how many files it is to leave."""

    type: str
    payload: dict[str, Any]
    ends: Literal["completed", "failed", "cancelled"] = "completed"
    files: int = 1
    note: str = ""


class PlannedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job of the batch."""

    id: str
    kind: Kind


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """One scene.

    Attributes:
        fakes: the services that it needs.
        store: where its files go: a folder, or Azurite.
        routes: worker type -> job type -> connector; each job type has a service of its own.
        workers: slots by worker type, as ``--workers`` takes them.
        ordinary, special: kinds of jobs: the special ones come once, the ordinary ones in turn.
    """

    fakes: tuple[Fake, ...]
    store: Literal["local", "azure"]
    routes: dict[str, dict[str, str]]
    workers: str
    ordinary: tuple[Kind, ...]
    special: tuple[Kind, ...]

    def batch(self, count: int) -> list[PlannedJob]:
        """``count`` jobs: each kind once, the special ones among them, then the ordinary kinds in turn."""
        kinds = [*self.ordinary, *self.special]
        kinds += [self.ordinary[number % len(self.ordinary)] for number in range(max(0, count - len(kinds)))]
        return [
            PlannedJob(id=f"demo-{number:02d}-{kind.type}{kind.note}", kind=kind)
            for number, kind in enumerate(kinds[:count], start=1)
        ]

    def mapping(self) -> dict[str, Any]:
        """A service mapping with the scene's workers."""
        return {
            "workers": {
                name: {
                    "services": sorted(types),
                    "is_gpu_bound": False,
                    "job_service_required_map": [
                        {"job_service_required": job_type, "worker_service": job_type} for job_type in types
                    ],
                }
                for name, types in self.routes.items()
            },
            "connectors": {
                connector: {"description": ""} for types in self.routes.values() for connector in types.values()
            },
            "services": {
                job_type: {"connector": connector, "type": "external"}
                for types in self.routes.values()
                for job_type, connector in types.items()
            },
        }


def _openai(*, seconds: float, **script: Any) -> dict[str, str]:
    return {"fake_openai": json.dumps({"queued": 0.5, "seconds": seconds, **script})}


def _data_url(seed: int) -> str:
    return "data:image/png;base64," + base64.b64encode(make_png(seed=seed)).decode()


def _render(seconds: float, steps: int, **inputs: Any) -> dict[str, Any]:
    """A graph for ComfyUI that takes its time and saves an image."""
    slow = {"class_type": "RigSleep", "inputs": {"seconds": seconds, "steps": steps} | inputs}
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "demo"}}
    return {"workflow": {"1": slow, "2": save}}


def _load_and_invert(image: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "demo"}},
    }


_REFUSED: Final = {"code": "moderation_blocked", "message": "Your request was rejected by the safety system."}
_IMAGE: Final = Kind(
    type="openai_image", payload={"prompt": "a lighthouse in a storm", "metadata": _openai(seconds=3.0)}
)
_RESPONSES: Final = Kind(
    type="openai_responses", payload={"input": "Why is the sky blue?", "metadata": _openai(seconds=2.0)}
)
_HTTP: Final = Kind(type="simulation_http", payload={"save_assets": True, "simulate": {"seconds": 2.0, "steps": 20}})

SCENES: Final[dict[SceneName, Scene]] = {
    "mixed": Scene(
        fakes=("http", "websocket", "openai"),
        store="local",
        routes={
            "http": {"simulation_http": "SimulationHttpConnector"},
            "websocket": {"simulation_websocket": "SimulationWebsocketConnector"},
            "openai": {
                "openai_image": "OpenAIText2ImgConnector",
                "openai_responses": "OpenAIResponsesConnector",
            },
        },
        workers="http:3,websocket:3,openai:4",
        ordinary=(
            _IMAGE,
            _HTTP,
            Kind(
                type="simulation_websocket",
                payload={"save_assets": True, "simulate": {"seconds": 2.5, "steps": 25}},
            ),
            _RESPONSES,
        ),
        special=(
            Kind(
                type="simulation_http",
                payload={"simulate": {"seconds": 1.0, "fail": "the simulated GPU is on fire", "retryable": False}},
                ends="failed",
                files=0,
                note="-to-fail",
            ),
            Kind(
                type="simulation_websocket",
                payload={"simulate": {"seconds": 300.0, "steps": 300}},
                ends="cancelled",
                files=0,
                note="-to-cancel",
            ),
            Kind(
                type="simulation_http",
                payload={"save_assets": True, "simulate": {"seconds": 1.0, "bytes": _LARGE}},
                note="-large",
            ),
        ),
    ),
    "openai": Scene(
        fakes=("openai",),
        store="azure",
        routes={
            "openai": {
                "openai_text": "OpenAITextConnector",
                "openai_image": "OpenAIText2ImgConnector",
                "openai_img2img": "OpenAIImg2ImgConnector",
                "openai_responses": "OpenAIResponsesConnector",
            }
        },
        workers="openai:6",
        ordinary=(
            _IMAGE,
            Kind(type="openai_text", payload={"prompt": "Tell me of lighthouses."}, files=0),
            Kind(
                type="openai_img2img",
                payload={"prompt": "the same at night", "image": _data_url(1), "metadata": _openai(seconds=2.0)},
            ),
            _RESPONSES,
        ),
        special=(
            Kind(
                type="openai_image",
                payload={
                    "prompt": "something forbidden",
                    "metadata": _openai(seconds=1.0, status="failed", error=_REFUSED),
                },
                ends="failed",
                files=0,
                note="-refused",
            ),
            Kind(
                type="openai_image",
                payload={"prompt": "an endless staircase", "metadata": _openai(seconds=300.0)},
                ends="cancelled",
                files=0,
                note="-to-cancel",
            ),
            Kind(
                type="openai_image",
                payload={"prompt": "two boats", "metadata": _openai(seconds=1.0, images=2)},
                files=2,
                note="-two",
            ),
        ),
    ),
    "comfyui": Scene(
        fakes=("comfyui",),
        store="local",
        routes={"comfyui": {"comfyui": "ComfyUIWebSocketConnector"}},
        workers="comfyui:3",
        ordinary=(
            Kind(type="comfyui", payload=_render(1.5, 15)),
            Kind(type="comfyui", payload={"workflow": _load_and_invert(_data_url(2))}, note="-from-a-image"),
        ),
        special=(
            Kind(
                type="comfyui",
                payload={"workflow": {"1": {"class_type": "NotInstalled", "inputs": {}}}},
                ends="failed",
                files=0,
                note="-not-installed",
            ),
            Kind(type="comfyui", payload=_render(300.0, 300), ends="cancelled", files=0, note="-to-cancel"),
        ),
    ),
}
