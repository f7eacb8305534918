"""``check``, ``explain`` and ``schema`` as an operator calls them: the real program, that inherits nothing but PATH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
FLEET_FILE = REPOSITORY / "tests" / "data" / "fleet-service-mapping.json"

BROKEN: dict[str, Any] = {
    "workers": {
        "art": {
            "job_service_required_map": [{"job_service_required": "openai_image", "worker_service": "openai-image"}],
            "required_env": ["ART_LICENSE"],
            "gpu_bound": False,
        }
    },
    "connectors": {"OpenAIText2ImgConnector": {"path": "./redis-direct-worker.js"}},
    "services": {
        "openai-image": {
            "connector": "OpenAIText2ImgConnector",
            "type": "external_api",
            "is_gpu_bound": "no",
            "api_config": {"base_url": "${OPENAI_BASE_ULR}", "timeout": "${SLOW}", "max_retries": "${N"},
        }
    },
}


def run(*words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run ``python -m emp_trio WORDS``: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "emp_trio", *words],
        env={"PATH": os.environ["PATH"], **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def broken(tmp_path: Path) -> str:
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(BROKEN), encoding="utf-8")
    return str(path)


def test_a_complete_configuration() -> None:
    code, out, err = run("check", "--workers", "simulation-http:2,mock:10")
    assert (code, err) == (0, "")
    assert out == "ready to start 2 simulation-http, 10 mock for jobs of type simulation, mock\n"


def test_every_problem_at_once(broken: str) -> None:
    env = {"WORKERS": "art:2,ark", "SLOW": "soon", "OPENAI_BASE_URI": "http://x", "JOB_TIMEOUT_MINUTES": "-3"}
    code, out, _ = run("check", "--mapping", broken, env=env)
    assert code == 2
    place = '$.services["openai-image"]'
    assert out.splitlines() == [
        f"error: {place}.api_config.max_retries column 1: `${{` at column 1 is not closed "
        "(add the missing `}`, or write `$${` for a literal `${`)",
        f"error: {place}.is_gpu_bound: Expected `bool`, got `str`",
        "error: WORKERS column 7: there is no worker type 'ark' (known types: art)",
        f"error: {place}.api_config.base_url column 1: OPENAI_BASE_ULR is not set (did you mean OPENAI_BASE_URI?)",
        f'error: {place}.api_config.timeout: "soon" does not fit timeout: a number is wanted',
        "error: $.workers.art.required_env: ART_LICENSE is not set; needed by worker type art "
        "(set it in the environment of the worker)",
        f"error: {place}.connector: OPENAI_API_KEY is not set; needed by OpenAIText2ImgConnector "
        "(set it in the environment of the worker)",
        "error: JOB_TIMEOUT_MINUTES: '-3' is not a positive number",
        "warning: $.workers.art.gpu_bound: unknown field (did you mean is_gpu_bound?)",
        "8 problems to solve before a worker can start",
    ]


def test_problems_as_json(broken: str) -> None:
    code, out, _ = run("check", "--mapping", broken, "--workers", "art", "--json", "--strict", env={"SLOW": "5"})
    found = json.loads(out)
    assert code == 2
    assert (found["ok"], found["mapping"], found["workers"]) == (False, broken, {})
    assert {
        "path": '$.services["openai-image"].api_config.base_url',
        "column": 1,
        "variable": "OPENAI_BASE_ULR",
        "message": "OPENAI_BASE_ULR is not set",
        "hint": "set it, or write ${OPENAI_BASE_ULR:-default}",
        "severity": "error",
    } in found["problems"]
    assert ("$.workers.art.gpu_bound", "error") in {(p["path"], p["severity"]) for p in found["problems"]}


def test_the_fleets_file_with_one_process_per_worker() -> None:
    env = {"SERVICE_MAPPING": str(FLEET_FILE), "WORKER_ID": "m1-worker-mock-0", "CONNECTORS": "mock"}
    code, out, _ = run("check", "--json", env=env)
    found = json.loads(out)
    assert code == 0
    assert (found["ok"], found["workers"]) == (True, {"mock": 1})
    assert {p["severity"] for p in found["problems"]} == {"warning"}


def test_without_workers_only_the_file_is_checked() -> None:
    code, out, _ = run("check")
    assert code == 0
    assert "name workers" in out


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such file"), (b"", "is empty"), (b"{" * 20_000, "not JSON"), (b"\xff{}", "UTF-8")]
)
def test_a_mapping_that_cannot_be_read(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "mapping.json"
    if content is not None:
        path.write_bytes(content)
    for command in (("check",), ("explain", "mock")):
        code, out, err = run(*command, "--mapping", str(path))
        assert code == 2
        assert words in out + err


def test_secrets_in_wrong_places_are_not_printed() -> None:
    env = {"WORKERS": "openai", "OPENAI_API_KEY": "k" * 20, "OPENAI_TIMEOUT_SECONDS": "sk-abcdefghijkl"}
    code, out, err = run("check", env=env)
    assert code == 2
    assert "does not fit timeout" in out
    assert "abcdefghijkl" not in out + err


def test_explain_shows_the_whole_chain() -> None:
    env = {"OPENAI_API_KEY": "key-of-mine", "OPENAI_BASE_URL": "http://localhost:9/v1"}
    code, out, err = run("explain", "openai_image", env=env)
    assert (code, err) == (0, "")
    assert [line.split("  ", 1) for line in out.splitlines()[:5]] == [
        ["job type", "   openai_image"],
        ["worker type", "openai, by $.workers.openai.job_service_required_map[1]"],
        ["service", "    openai-image (external_api)"],
        ["connector", "  OpenAIText2ImgConnector, emp_trio.services.openai.images.text2img:OpenAIText2ImgConnector"],
        ["requires", "   OPENAI_API_KEY, set, for worker type openai, service openai-image"],
    ]
    rows = {line.split("\t")[0]: line.split("\t")[1:3] for line in out.splitlines()[5:] if "\t" in line}
    assert rows["openai.api_key"] == ["***", "environment"]
    assert rows["http.base_url"] == ["http://localhost:9/v1", "environment"]
    assert rows["http.connect_timeout"][1] == "default"
    assert "key-of-mine" not in out


def test_explain_as_json_and_what_is_missing() -> None:
    code, out, _ = run("explain", "openai_image", "--json")
    (chain,) = json.loads(out)["chains"]
    assert code == 0
    assert chain["required"][0] == {"variable": "OPENAI_API_KEY", "by": "worker type openai", "is_set": False}
    assert chain["problems"][0]["variable"] == "OPENAI_API_KEY"


def test_explain_an_unknown_job_type() -> None:
    code, out, err = run("explain", "openai_imag")
    assert (code, out) == (2, "")
    assert "did you mean openai_image?" in err


def test_schema_is_the_committed_one() -> None:
    code, out, _ = run("schema")
    assert code == 0
    assert out == (REPOSITORY / "mappings" / "service-mapping.schema.json").read_text(encoding="utf-8")
