"""The worker's settings and capabilities from the environment (queue protocol 4.1, 4.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import ConfigError
from emp_trio.worker.capabilities import Hardware, capabilities, detect_hardware, parse_nvidia_smi
from emp_trio.worker.settings import WorkerSettings, worker_settings

BOX = Hardware(gpus=2, gpu_memory_gb=24, gpu_model="A", cpu_cores=8, ram_gb=64)


def of(env: dict[str, str], **options: Any) -> dict[str, Any]:
    return capabilities(env, BOX, machine_id="m", services=["t"], models={}, **options)


@pytest.mark.parametrize(
    ("env", "name", "value"),
    [
        ({}, "job_timeout", 1800.0),
        ({"JOB_TIMEOUT_MINUTES": "0.5"}, "job_timeout", 30.0),
        ({"WORKER_POLL_INTERVAL_MS": "1000"}, "poll_every", 1.0),
        ({"WORKER_HEARTBEAT_INTERVAL_MS": "3000"}, "beat_every", 3.0),
        ({"WORKER_HEARTBEAT_INTERVAL_MS": "30000"}, "beat_every", 20.0),  # the monitor waits 30 s for the next status
        ({"HEALTH_CHECK_INTERVAL_MS": "500"}, "health_every", 0.5),
        ({"UNIFIED_MACHINE_STATUS": "true"}, "unified", True),
        ({"UNIFIED_MACHINE_STATUS": "1"}, "unified", False),
        ({"EMP_TRIO_LEASE_SECONDS": "30"}, "renew_every", 10.0),
        ({"EMP_TRIO_LEASE_SECONDS": "3"}, "lease_margin", 0.5),
        ({"EMP_TRIO_LEASE_SECONDS": "15", "EMP_TRIO_RENEW_TIMEOUT_SECONDS": "4"}, "renew_timeout", 4.0),
        ({"EMP_TRIO_REDIS_TIMEOUT_SECONDS": "6.5"}, "redis_timeout", 6.5),
        ({"EMP_TRIO_LEASE_SECONDS": "6"}, "redis_timeout", 2.5),
        ({"EMP_TRIO_DRAIN_SECONDS": "5"}, "drain", 5.0),
        ({"MACHINE_ID": " gpu-box "}, "machine_id", "gpu-box"),
    ],
)
def test_a_setting_and_its_variable(env: dict[str, str], name: str, value: Any) -> None:
    assert getattr(worker_settings({"MACHINE_ID": "m"} | env), name) == value


def test_options_beat_the_environment() -> None:
    settings = worker_settings({"MACHINE_ID": "env", "EMP_TRIO_DRAIN_SECONDS": "5"}, machine_id="option", drain=0)
    assert (settings.machine_id, settings.drain) == ("option", 0)


def test_a_lease_is_renewed_well_before_the_work_has_to_stop() -> None:
    for seconds in ("0.5", "1", "15", "600"):
        settings = worker_settings({"MACHINE_ID": "m", "EMP_TRIO_LEASE_SECONDS": seconds})
        assert 2 * settings.renew_every < settings.lease - settings.lease_margin
    default = WorkerSettings(machine_id="m")
    assert (default.lease, default.renew_every, default.lease_margin) == (15.0, 5.0, 2.0)


@given(st.floats(0.2, 1e4))
def test_a_renewal_that_gets_no_answer_is_repeated_before_the_work_has_to_stop(seconds: float) -> None:
    found = worker_settings({"MACHINE_ID": "m", "EMP_TRIO_LEASE_SECONDS": str(seconds)})
    assert found.renew_every + 2 * found.renew_timeout <= found.lease - found.lease_margin
    if seconds > 5:
        assert 2 * found.redis_timeout <= found.lease - found.lease_margin


@pytest.mark.parametrize(
    ("env", "variable", "hint"),
    [
        ({"EMP_TRIO_RENEW_TIMEOUT_SECONDS": "4.1"}, "EMP_TRIO_RENEW_TIMEOUT_SECONDS", "at most 4,"),
        ({"EMP_TRIO_REDIS_TIMEOUT_SECONDS": "7"}, "EMP_TRIO_REDIS_TIMEOUT_SECONDS", "at most 6.5,"),
        (
            {"EMP_TRIO_LEASE_SECONDS": "6", "EMP_TRIO_RENEW_TIMEOUT_SECONDS": "2"},
            "EMP_TRIO_RENEW_TIMEOUT_SECONDS",
            "1.5",
        ),
    ],
)
def test_times_that_do_not_fit_the_lease_are_refused_together(env: dict[str, str], variable: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        worker_settings({"MACHINE_ID": "m"} | env)
    (problem,) = caught.value.problems
    assert problem.variable == variable
    assert hint in problem.hint


def test_all_problems_come_at_once() -> None:
    env = {
        "MACHINE_ID": "a:b",
        "JOB_TIMEOUT_MINUTES": "soon",
        "EMP_TRIO_LEASE_SECONDS": "-1",
        "EMP_TRIO_CDN_SECONDS": "nan",
    }
    with pytest.raises(ConfigError) as caught:
        worker_settings(env, drain=-1)
    assert {p.path for p in caught.value.problems} == {
        "MACHINE_ID",
        "JOB_TIMEOUT_MINUTES",
        "EMP_TRIO_LEASE_SECONDS",
        "EMP_TRIO_CDN_SECONDS",
        "--drain",
    }


def test_a_host_name_is_made_an_id_of_the_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-1.lab.example")
    assert worker_settings({}).machine_id == "gpu-1-lab-example"


@given(st.dictionaries(st.sampled_from(["JOB_TIMEOUT_MINUTES", "MACHINE_ID", "EMP_TRIO_LEASE_SECONDS"]), st.text()))
def test_no_environment_ends_in_anything_but_settings_or_problems(env: dict[str, str]) -> None:
    try:
        settings = worker_settings(env)
    except ConfigError:
        return
    assert settings.lease > settings.lease_margin > 0


def test_capabilities_have_the_fleets_shape() -> None:
    assert of({}) | {"metadata": {}} == {
        "worker_id": "@WORKER_ID@",
        "machine_id": "m",
        "services": ["t"],
        "job_service_required_map": ["t"],
        "hardware": {"ram_gb": 64, "gpu_memory_gb": 24, "gpu_model": "A", "cpu_cores": 8},
        "models": {},
        "customer_access": {"isolation": "loose", "max_concurrent_customers": 10},
        "performance": {
            "concurrent_jobs": 1,
            "quality_levels": ["fast", "balanced", "quality"],
            "max_processing_time_minutes": 60,
        },
        "metadata": {},
    }
    assert {"version", "platform", "arch"} <= of({"VERSION": "9"})["metadata"].keys()


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({"QUALITY_LEVELS": "fast"}, {"performance": {"quality_levels": ["fast"]}}),
        ({"ALLOWED_CUSTOMERS": "a, b,,"}, {"customer_access": {"allowed_customers": ["a", "b"]}}),
        ({"CUSTOMER_ISOLATION": "strict"}, {"customer_access": {"isolation": "strict"}}),
        (
            {"WORKER_CUSTOMER_ISOLATION": "strict", "CUSTOMER_ISOLATION": "x"},
            {"customer_access": {"isolation": "strict"}},
        ),
        ({"WORKER_REGION": "eu"}, {"location": {"region": "eu", "compliance_zones": []}}),
        ({"WORKER_COST_TIER": "low", "WORKER_RATE_PER_HOUR": "0.5"}, {"cost": {"tier": "low", "rate_per_hour": 0.5}}),
        ({"WORKER_MODELS": '["a","b c"]'}, {"available_models": ["a", "b c"]}),
        ({"WORKER_FEATURES": "[a,b"}, {"features": ["[a", "b"]}),
        (
            {"DEBUGGING_ENABLED": "true", "DEVELOPMENT_MODE": "no"},
            {"debugging_enabled": True, "development_mode": False},
        ),
        ({"WORKER_MAX_BATCH_SIZE": "8"}, {"max_batch_size": 8}),
        ({"WORKER_WORKFLOW_ID": "wf1"}, {"workflow_id": "wf1"}),
        (
            {"WORKER_PERFORMANCE_TIER": "gold", "WORKER_COMFYUI_VERSION": "1"},
            {"performance_tier": "gold", "comfyui_version": "1"},
        ),
    ],
    ids=str,
)
def test_capabilities_from_variables(env: dict[str, str], found: dict[str, Any]) -> None:
    made = of(env)
    for key, value in found.items():
        assert (made[key] | value == made[key]) if isinstance(value, dict) else (made[key] == value)


def test_unset_capabilities_are_left_out() -> None:
    assert not of({}).keys() & {"location", "cost", "features", "workflow_id", "debugging_enabled", "max_batch_size"}


@given(
    st.dictionaries(
        st.sampled_from(["WORKER_RATE_PER_HOUR", "WORKER_COST_TIER", "MAX_CONCURRENT_CUSTOMERS", "WORKER_MODELS"]),
        st.one_of(st.text(), st.sampled_from(["inf", "nan", "-1e999", "[1]", "[[]]"])),
    )
)
def test_no_variable_breaks_the_capabilities(env: dict[str, str]) -> None:
    made = msgspec.json.decode(msgspec.json.encode(of(env)))
    assert made["customer_access"]["max_concurrent_customers"] is not None
    assert made.get("cost", {}).get("rate_per_hour", 0) is not None


async def test_hardware_from_variables() -> None:
    env = {"NUM_GPUS": "4", "WORKER_GPU_MEMORY_GB": "80", "WORKER_GPU_MODEL": "H100", "WORKER_RAM_GB": "512"}
    found = await detect_hardware(env)
    assert (found.gpus, found.gpu_memory_gb, found.gpu_model, found.ram_gb) == (4, 80, "H100", 512)
    for odd in ("inf", "nan", "many", ""):
        detected = await detect_hardware({"WORKER_RAM_GB": odd, "NUM_GPUS": odd})
        assert detected.ram_gb >= 8
        assert detected.gpus >= 0


async def test_a_machine_without_a_gpu_takes_what_the_fleets_workers_take(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert (await detect_hardware({})).gpu_memory_gb == 8
        assert (await detect_hardware({"WORKER_GPU_MEMORY_GB": "0"})).gpu_memory_gb == 0


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("", []),
        ("24564, NVIDIA GeForce RTX 4090\n", [(24, "NVIDIA GeForce RTX 4090")]),
        ("81559, H100\n81559, H100\n", [(80, "H100"), (80, "H100")]),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", []),
        ("[N/A], GB10\n12, \nx", []),
    ],
)
def test_what_nvidia_smi_says(text: str, gpus: list[tuple[int, str]]) -> None:
    assert parse_nvidia_smi(text) == gpus
