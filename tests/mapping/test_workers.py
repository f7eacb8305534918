"""Worker strings, row by row of the fleet's table, with its defects fixed."""

import pytest

from emp_trio.mapping import ServiceMapping, workers_from_env
from emp_trio.mapping.diagnostics import Diagnostics
from emp_trio.mapping.schema import Service, WorkerType
from emp_trio.mapping.workers import WorkerCount, parse_workers, single_worker

MAPPING = ServiceMapping(
    workers={
        "gpu": WorkerType(job_service_required_map=(), is_gpu_bound=True),
        "cpu": WorkerType(job_service_required_map=()),
        "comfyui-remote": WorkerType(job_service_required_map=()),
        "remote": WorkerType(job_service_required_map=()),
        "open-ai": WorkerType(job_service_required_map=(), type="service_client", scaling_strategy="concurrency"),
        "client": WorkerType(job_service_required_map=(), type="service_client"),
        "ollama": WorkerType(
            job_service_required_map=(), services=("daemon",), type="daemon_client", scaling_strategy="concurrency"
        ),
        "lonely": WorkerType(job_service_required_map=(), type="daemon_client", scaling_strategy="concurrency"),
    },
    services={"daemon": Service(connector="C", type="daemon_service")},
)
MOCK = {"GPU_MODE": "mock"}

COUNTS: list[tuple[str, dict[str, str], int, dict[str, int]]] = [
    # type, comma, white space, order
    ("cpu", {}, 0, {"cpu": 1}),
    ("gpu:2,cpu:auto", {}, 4, {"gpu": 2, "cpu": 1}),
    (" cpu : 3 ,, gpu:1, ", {}, 4, {"cpu": 3, "gpu": 1}),
    ("cpu:007", {}, 0, {"cpu": 7}),
    # a number, GPU-bound
    ("gpu", {}, 4, {"gpu": 1}),
    ("gpu:8", {}, 4, {"gpu": 4}),
    ("gpu:8", MOCK, 4, {"gpu": 8}),
    ("gpu:2", {}, 0, {"gpu": 2}),
    # auto
    ("gpu:auto", {}, 4, {"gpu": 4}),
    ("gpu:AUTO", {}, 4, {"gpu": 4}),
    ("gpu:auto", MOCK, 4, {"gpu": 1}),
    ("gpu:auto,cpu", {}, 0, {"cpu": 1}),
    ("cpu:auto", {}, 4, {"cpu": 1}),
    ("open-ai:auto", {}, 4, {"open-ai": 2}),
    ("open-ai:auto", {"OPEN_AI_CONCURRENCY": "7"}, 4, {"open-ai": 7}),
    ("client:auto", {"CLIENT_CONCURRENCY": "7"}, 4, {"client": 1}),
    ("open-ai:9", {}, 0, {"open-ai": 9}),
    ("ollama:auto", {}, 4, {"ollama": 4}),
    ("ollama:auto", {}, 0, {"ollama": 1}),
    ("ollama:auto", {**MOCK, "NUM_GPUS": "3"}, 0, {"ollama": 3}),
    ("ollama:auto", MOCK, 0, {"ollama": 1}),
    ("lonely:auto", {}, 4, {"lonely": 2}),
    # zero is zero
    ("cpu:0,gpu:1", {}, 4, {"gpu": 1}),
]


def parse(text: str, env: dict[str, str], gpus: int) -> tuple[tuple[WorkerCount, ...], Diagnostics]:
    diagnostics = Diagnostics()
    return parse_workers(text, MAPPING, env=env, gpus=gpus, diagnostics=diagnostics), diagnostics


@pytest.mark.parametrize(("text", "env", "gpus", "counts"), COUNTS)
def test_counts(text: str, env: dict[str, str], gpus: int, counts: dict[str, int]) -> None:
    found, diagnostics = parse(text, env, gpus)
    assert {w.name: w.count for w in found} == counts
    assert [w.name for w in found] == list(counts)
    assert diagnostics.errors == ()


ERRORS: list[tuple[str, dict[str, str], str]] = [
    ("", {}, "WORKERS: is not set"),
    (" , ", {}, "WORKERS: is not set"),
    ("cpu:0", {}, "WORKERS: asks for no worker at all"),
    ("gpu:auto", {}, "WORKERS: asks for no worker at all"),
    ("cpuu:2", {}, "WORKERS column 1: there is no worker type 'cpuu' (did you mean cpu?)"),
    ("gpu,  Ollama", {}, "WORKERS column 7: there is no worker type 'Ollama' (did you mean ollama?)"),
    ("simulation", {}, "known types: gpu, cpu"),
    ("cpu:two", {}, "the count 'two' is neither a whole number nor auto"),
    ("cpu:-1", {}, "the count '-1'"),
    ("cpu:2.5", {}, "the count '2.5'"),
    ("cpu:2x", {}, "the count '2x'"),
    ("cpu:", {}, "the count ''"),
    ("cpu:2:3", {}, "the count '2:3'"),
    ("cpu:٣", {}, "the count '٣'"),
    ("cpu:1000000", {}, "1000000 workers are more than the 10000 allowed"),
    ("cpu:1,gpu,cpu:2", {}, "WORKERS column 11: cpu is named twice"),
    ("open-ai:auto", {"OPEN_AI_CONCURRENCY": "many"}, "OPEN_AI_CONCURRENCY: must be a whole number"),
]


@pytest.mark.parametrize(("text", "env", "words"), ERRORS)
def test_errors(text: str, env: dict[str, str], words: str) -> None:
    _, diagnostics = parse(text, env, 0)
    assert len(diagnostics.errors) == 1
    assert words in str(diagnostics.errors[0])


def test_all_errors_of_a_string_come_out() -> None:
    _, diagnostics = parse("cpy,gpu:x,cpu", {}, 0)
    assert [p.column for p in diagnostics.errors] == [1, 5]


@pytest.mark.parametrize(
    ("text", "gpus", "words"),
    [
        ("gpu:8", 4, "gpu is GPU-bound: 4 instead of 8, one per GPU"),
        ("gpu:2", 0, "gpu is GPU-bound and no GPU was found; starting 2 as asked"),
        ("gpu:auto,cpu", 0, "gpu:auto starts no worker"),
    ],
)
def test_what_differs_from_the_string_is_said(text: str, gpus: int, words: str) -> None:
    _, diagnostics = parse(text, {}, gpus)
    (warning,) = diagnostics.problems
    assert (warning.severity, warning.column) == ("warning", 1)
    assert words in warning.message
    assert parse(text, MOCK, gpus)[1].problems == []


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        ({}, ("", None)),
        ({"WORKERS": "cpu:2"}, ("cpu:2", None)),
        ({"WORKERS": " ", "WORKER_CONNECTORS": "cpu", "CONNECTORS": "gpu"}, ("cpu", None)),
        ({"CONNECTORS": "gpu"}, ("gpu", None)),
        ({"WORKER_ID": "m-worker-cpu-0"}, ("", ("m-worker-cpu-0", ""))),
        ({"WORKER_ID": "w1", "CONNECTORS": "cpu", "WORKERS": "gpu:4,cpu:2"}, ("", ("w1", "cpu"))),
    ],
)
def test_what_the_environment_asks_for(env: dict[str, str], asked: tuple[str, tuple[str, str] | None]) -> None:
    assert workers_from_env(env) == asked


@pytest.mark.parametrize(
    ("worker_id", "connectors", "name"),
    [
        ("anything", "cpu", "cpu"),
        ("anything", " cpu:3 ", "cpu"),
        ("m1-worker-gpu-0", "cpu", "cpu"),
        ("m1-worker-gpu-0", "", "gpu"),
        ("worker-gpu-12", "", "gpu"),
        ("m-worker-gpu-worker-cpu-3", "", "cpu"),
        ("m1-worker-comfyui-remote-0", "", "comfyui-remote"),
    ],
)
def test_single_worker(worker_id: str, connectors: str, name: str) -> None:
    diagnostics = Diagnostics()
    assert single_worker(worker_id, connectors, MAPPING, diagnostics) == (WorkerCount(name, 1, worker_id),)
    assert diagnostics.problems == []


@pytest.mark.parametrize(
    ("worker_id", "connectors", "path"),
    [
        ("w", "cpy", "CONNECTORS"),
        ("w", "cpu,gpu", "CONNECTORS"),
        ("w", "", "WORKER_ID"),
        ("m-worker-cpu", "", "WORKER_ID"),
        ("m-worker-nothing-0", "", "WORKER_ID"),
        ("m-worker-cpu-0x", "", "WORKER_ID"),
        ("notworker-cpu-0", "", "WORKER_ID"),
    ],
)
def test_single_worker_of_no_known_type(worker_id: str, connectors: str, path: str) -> None:
    diagnostics = Diagnostics()
    assert single_worker(worker_id, connectors, MAPPING, diagnostics) == ()
    assert [p.path for p in diagnostics.errors] == [path]
