"""Which job a worker may take: every row of queue protocol 8.2, and the rules of 3.4 behind them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.queue.support import CAPABILITIES, Library

# (requirements, changes to the job, changes to the worker, whether it matches)
VECTORS: list[tuple[Any, dict[str, Any], dict[str, Any], bool]] = [
    ("", {}, {}, True),
    ("", {"service_required": "a1111"}, {}, False),
    ("", {"service_required": ""}, {}, False),
    ("", {"service_required": None}, {}, True),
    ("", {}, {"job_service_required_map": None}, False),
    ("", {}, {"job_service_required_map": []}, False),
    ({"service_type": "other"}, {}, {}, True),
    ({"component": "all"}, {}, {}, False),
    ({"workflow": "all"}, {}, {}, False),
    ({"timeout_minutes": 30}, {}, {}, False),
    ({"quality_level": "fast"}, {}, {}, False),
    ({"component": "all"}, {}, {"component": "all"}, True),
    ({"performance.quality_levels": "fast"}, {}, {}, True),
    ({"performance": {"quality_levels": ["fast", "balanced"]}}, {}, {}, True),
    ({"hardware": {"gpu_memory_gb": 24}}, {}, {}, True),
    ({"hardware": {"gpu_memory_gb": 25}}, {}, {}, False),
    ({"hardware": {"gpu_memory_gb": "all"}}, {}, {}, True),
    ({"hardware": {"cpu_cores": 1}}, {}, {}, False),
    ({"hardware": {"gpu_model": "B"}}, {}, {}, True),
    ({"hardware.gpu_model": "B"}, {}, {}, False),
    ({"hardware.gpu_model": "A"}, {}, {}, True),
    ("[]", {}, {}, True),
    ("{bad", {}, {}, True),
    ({"models": ["x"]}, {}, {}, False),
    ({"models": ["x"]}, {}, {"models": {"comfyui": ["x", "y"]}}, True),
    ({"models": ["x"]}, {}, {"models": "all"}, False),
    ({"customer_isolation": "strict"}, {}, {}, False),
    ({"customer_isolation": "strict"}, {}, {"customer_access": {"isolation": "strict"}}, True),
    ({"customer_isolation": "loose"}, {}, {"customer_access": {"allowed_customers": ["c1"]}}, False),
    ("", {"customer_id": "c2"}, {"customer_access": {"isolation": "strict", "allowed_customers": ["c1"]}}, True),
    ({"positive_requirements": {"features": "a"}}, {}, {"features": ["a", "b"]}, True),
    ({"positive_requirements": {"features": ["a", "c"]}}, {}, {"features": ["a", "b"]}, False),
    ({"positive_requirements": {"max_batch_size": 4}}, {}, {"max_batch_size": 8}, True),
    ({"positive_requirements": {"debugging_enabled": False}}, {}, {}, False),
    ({"negative_requirements": {"development_mode": True}}, {}, {}, False),
    ({"positive_requirements": {}, "negative_requirements": {"development_mode": True}}, {}, {}, True),
    (
        {"positive_requirements": {}, "negative_requirements": {"development_mode": True}},
        {},
        {"development_mode": True},
        False,
    ),
    ({"positive_requirements": {}, "negative_requirements": {"hardware": {"gpu_memory_gb": 16}}}, {}, {}, False),
    ("", {}, {"workflow_id": "wf1"}, False),
    ("", {"workflow_id": "wf1"}, {"workflow_id": "wf1"}, True),
    ("", {"workflow_id": "wf2"}, {"workflow_id": "wf1"}, False),
]

# Rules of 3.4 that 8.2 has no row for.
RULES: list[tuple[Any, dict[str, Any], dict[str, Any], bool]] = [
    ({"services": "comfyui"}, {}, {}, True),  # a capability like any other, although routing does not use it
    ({"services": ["comfyui", "a1111"]}, {}, {}, False),
    ({"services": ["other"]}, {}, {"services": ["other"]}, True),
    ({"customer_isolation": "loose"}, {"customer_id": "c1"}, {"customer_access": {"denied_customers": ["c1"]}}, False),
    ({"customer_isolation": "loose"}, {"customer_id": "c2"}, {"customer_access": {"denied_customers": ["c1"]}}, True),
    ({"customer_isolation": None}, {"customer_id": "c2"}, {"customer_access": {"allowed_customers": ["c1"]}}, False),
    ({"customer_isolation": False}, {"customer_id": "c2"}, {"customer_access": {"allowed_customers": ["c1"]}}, True),
    ({"models": None}, {}, {}, True),
    ({"models": "x"}, {}, {}, True),  # only a list of models is looked at
    ({"models": []}, {}, {}, True),
    ({"models": ["x"]}, {"service_required": None}, {"models": {"comfyui": ["x"]}}, False),
    ({"hardware": {"gpu_memory_gb": False}}, {}, {}, True),
    ({"hardware": False}, {}, {}, True),
    ({"hardware": "big"}, {}, {}, True),
    ({"hardware": {"ram_gb": 64, "gpu_memory_gb": 1.5}}, {}, {}, True),
    ({"hardware": {"ram_gb": 64.5}}, {}, {}, False),
    ({"positive_requirements": False, "negative_requirements": {"x": 1}}, {}, {}, False),
    ({"sla_tier": "gold"}, {}, {"sla_tier": "gold"}, True),
    ({"sla_tier": "gold"}, {}, {"sla_tier": "Gold"}, False),
    ({"max_batch_size": "8"}, {}, {"max_batch_size": 8}, False),
    ({"unknown": None}, {}, {}, False),
    ({"location": {"region": "eu"}}, {}, {"location": {"region": "eu", "country": "NL"}}, True),
    ({"location": {"region": "eu", "country": "NL"}}, {}, {"location": {"region": "eu"}}, False),
    ({"location": {"region": "eu"}}, {}, {"location": "eu"}, False),
    ({"location.region": ["eu"]}, {}, {"location": {"region": "eu"}}, False),
    ({"features": []}, {}, {"features": ["a"]}, True),
    ({"features": {}}, {}, {"features": ["a"]}, True),
    ({"features": []}, {}, {"features": "a"}, False),
    ({"features": []}, {}, {"features": {"a": 1}}, False),
    ({"features": []}, {}, {}, False),
    ({"a.b": 1}, {}, {"a": {"b": 2}, "a.b": 0}, True),  # a dotted key walks; a capability of that very name is not seen
    (
        {"positive_requirements": {"features": "a"}, "negative_requirements": {"location": {"region": "eu"}}},
        {},
        {"features": ["a"], "location": {"region": "us"}},
        True,
    ),
    ({"positive_requirements": {}, "negative_requirements": {"hardware": {"gpu_model": "A"}}}, {}, {}, False),
    ({"positive_requirements": {}, "negative_requirements": {"hardware": {"gpu_memory_gb": 48}}}, {}, {}, True),
    ({"positive_requirements": {}, "negative_requirements": False}, {}, {}, True),
]


def matches(lib: Library, requirements: Any, job: dict[str, Any], worker: dict[str, Any]) -> bool:
    lib.submit("j", requirements=requirements, **job)
    return "j" in lib.claim("w1", capabilities=CAPABILITIES | worker)["jobs"]


@pytest.mark.parametrize(("requirements", "job", "worker", "expected"), VECTORS)
def test_matching_vectors_of_the_fleet(
    lib: Library, requirements: Any, job: dict[str, Any], worker: dict[str, Any], expected: bool
) -> None:
    assert matches(lib, requirements, job, worker) is expected
    assert lib.job("j")["status"] == ("assigned" if expected else "pending")
    assert lib.db.zcard("jobs:pending") == (0 if expected else 1)


@pytest.mark.parametrize(("requirements", "job", "worker", "expected"), RULES)
def test_matching_rules(
    lib: Library, requirements: Any, job: dict[str, Any], worker: dict[str, Any], expected: bool
) -> None:
    assert matches(lib, requirements, job, worker) is expected


def test_worker_without_capabilities_takes_nothing_and_breaks_nothing(lib: Library) -> None:
    for number, requirements in enumerate([v[0] for v in VECTORS + RULES]):
        lib.submit(f"j{number}", requirements=requirements)
    assert lib.claim("w1", capabilities={})["jobs"] == {}
