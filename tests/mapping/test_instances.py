"""Several processes of one service: which slot talks to which port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emp_trio.errors import ConfigError
from emp_trio.mapping import Plan

from .support import planned, said, worker

PORTS: dict[str, Any] = {"ports": ["${GPU_BASE_PORT:-8188}"], "port_increment": "${GPU_STEP:-1}"}


def rig(*, gpu_bound: bool = True, **service: Any) -> dict[str, Any]:
    return {
        "workers": {"render": worker("image>gpu", is_gpu_bound=gpu_bound)},
        "services": {"gpu": {"connector": "GpuConnector", **PORTS, **service}},
    }


def ports(found: Plan) -> dict[int, int]:
    """Slot number -> port."""
    return {number: lane.routes["image"].settings.port for lane in found.workers for number in lane.numbers}


@pytest.mark.parametrize(
    ("wanted", "gpus", "service", "env", "expected"),
    [
        ("render:auto", 3, {}, {}, {0: 8188, 1: 8189, 2: 8190}),
        ("render:1", 3, {}, {}, {0: 8188}),
        ("render:auto", 2, {"service_instances_per_gpu": "${N:-2}"}, {}, {0: 8188, 1: 8189, 2: 8190, 3: 8191}),
        ("render:auto", 2, {"service_instances_per_gpu": "${N:-2}"}, {"N": "1"}, {0: 8188, 1: 8189}),
        ("render:9", 2, {"service_instances_per_gpu": 2}, {}, {0: 8188, 1: 8189, 2: 8190, 3: 8191}),
        ("render:auto", 2, {}, {"GPU_STEP": "10"}, {0: 8188, 1: 8198}),
        ("render:auto", 2, {}, {"GPU_STEP": "0"}, {0: 8188, 1: 8188}),
        ("render:auto", 2, {}, {"GPU_BASE_PORT": "9000"}, {0: 9000, 1: 9001}),
        ("render:auto", 2, {}, {"GPU_PORT": "7000"}, {0: 7000, 1: 7001}),
        ("render:auto", 2, {"ports": []}, {}, {0: 8188, 1: 8188}),
        ("render:2", 0, {}, {"GPU_MODE": "mock"}, {0: 8188, 1: 8189}),
    ],
)
def test_slot_n_talks_to_the_base_port_plus_n(
    tmp_path: Path, wanted: str, gpus: int, service: dict[str, Any], env: dict[str, str], expected: dict[int, int]
) -> None:
    assert ports(planned(tmp_path, wanted, env=env, gpus=gpus, **rig(**service))) == expected


def test_each_instance_is_a_service_of_the_plan_and_slots_are_counted_once(tmp_path: Path) -> None:
    found = planned(tmp_path, "render:auto", gpus=2, **rig())
    assert list(found.services) == ["gpu#0", "gpu#1"]
    assert [service.worker_service for service in found.services.values()] == ["gpu", "gpu"]
    assert found.slots() == {"render": 2}


@pytest.mark.parametrize(
    ("service", "env", "text"),
    [
        ({"port_increment": "${GPU_STEP:-x}"}, {}, "$.services.gpu.port_increment: 'x' is not a whole number"),
        ({"service_instances_per_gpu": "${N}"}, {}, "$.services.gpu.service_instances_per_gpu"),
        ({}, {"GPU_BASE_PORT": "65535"}, "instance 1 would be at port 65536"),
    ],
)
def test_numbers_that_are_none_are_named(
    tmp_path: Path, service: dict[str, Any], env: dict[str, str], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(tmp_path, "render:auto", env=env, gpus=2, **rig(**service))
    assert any(text in line for line in said(caught.value.problems))


def test_slots_that_a_limit_keeps_idle_are_worth_a_warning(tmp_path: Path) -> None:
    parts = rig(ports=[])
    parts["services"]["gpu"]["api_config"] = {"max_concurrent_jobs": 2}
    found = planned(tmp_path, "render:auto", gpus=3, **parts)
    [line] = said(found.warnings)
    assert "$.services.gpu.api_config.max_concurrent_jobs: lets 2 of the 3 slots of render work at a time" in line
    assert planned(tmp_path, "render:auto", gpus=2, **parts).warnings == ()


@pytest.mark.parametrize(("instances", "able"), [(2, None), (1, 2)])
def test_a_limit_counts_for_each_instance(tmp_path: Path, instances: int, able: int | None) -> None:
    """Four slots on two GPUs, and a service that works at one job at a time: in four processes, or in two."""
    parts = rig(service_instances_per_gpu=2)
    parts["services"]["slow"] = parts["services"]["gpu"] | {
        "service_instances_per_gpu": instances,
        "api_config": {"max_concurrent_jobs": 1},
    }
    parts["workers"]["render"] = worker("image>gpu", "film>slow", is_gpu_bound=True)
    found = planned(tmp_path, "render:4", gpus=2, **parts)
    lines = [line for line in said(found.warnings) if "at a time" in line]
    assert len(lines) == (able is not None)
    assert all(f"services.slow.api_config.max_concurrent_jobs: lets {able} of the 4 slots" in line for line in lines)
