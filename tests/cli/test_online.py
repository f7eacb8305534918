"""``check --online`` against a fake OpenAI: the real program asks a real service."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from emp_trio.queue.embedded import free_port
from emp_trio.testing.openai import open_fake_openai
from emp_trio.testing.openai.fake import FakeOpenAI
from emp_trio.testing.valkey import valkey_server


async def check(openai: FakeOpenAI, **env: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and problems of ``check --online`` for the image service."""
    given = {"PATH": os.environ["PATH"], "OPENAI_BASE_URL": openai.base_url, "OPENAI_API_KEY": openai.api_key.reveal()}
    words = [sys.executable, "-m", "emp_trio", "check", "--workers", "openai:1", "--online", "--json"]
    with trio.fail_after(60):
        done = await trio.run_process(
            words, env=given | env, capture_stdout=True, stderr=subprocess.DEVNULL, check=False
        )
    return done.returncode, json.loads(done.stdout)["problems"]


async def test_an_account_that_works_and_keeps_its_models() -> None:
    async with open_fake_openai() as openai:
        code, problems = await check(openai)
    assert code == 0, problems
    assert [p for p in problems if p["severity"] == "error" or "model" in p["message"]] == []


_SOON = re.compile("in (?:19|20) days")  # midnight may pass meanwhile


async def test_a_model_that_goes_within_sixty_days_is_a_warning() -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    async with open_fake_openai() as openai:
        openai.shutdown_dates["gpt-6.2-sol"] = str(today + datetime.timedelta(days=20))
        openai.shutdown_dates["gpt-image-2.6-flare"] = str(today + datetime.timedelta(days=200))
        code, problems = await check(openai, OPENAI_RESPONSES_MODEL="gpt-6.2-sol")
    assert code == 0, problems
    told = [p for p in problems if "gpt-6.2-sol" in p["message"]]
    assert told
    assert all(p["severity"] == "warning" and _SOON.search(p["message"]) for p in told)
    assert not any("flare" in p["message"] for p in problems)


async def test_a_service_that_refuses_the_key_is_an_error() -> None:
    async with open_fake_openai() as openai:
        code, problems = await check(openai, OPENAI_API_KEY="sk-wrong-0123456789")
    assert code == 2
    wrong = [p for p in problems if p["severity"] == "error"]
    assert any(p["path"] == '$.services["openai-image"]' and "401" in p["message"] for p in wrong)
    assert "sk-wrong-0123456789" not in json.dumps(problems)


BROKEN = """
from typing import Annotated
import msgspec
from emp_trio.secrets import Secret
from emp_trio.services.connector import Connector
from emp_trio.settings import Env

class BrokenConnector(Connector):
    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        api_key: Annotated[Secret, Env("${BROKEN_KEY}")]

    async def run(self, job, progress):
        raise ValueError("never")

    async def health(self):
        raise ValueError("can't use " + self.settings.api_key.reveal())
"""


async def test_an_error_of_any_kind_is_shown_without_the_key(tmp_path: Path) -> None:
    (tmp_path / "broken_connector.py").write_text(BROKEN)
    mapping = {
        "workers": {
            "x": {"services": ["s"], "job_service_required_map": [{"job_service_required": "x", "worker_service": "s"}]}
        },
        "services": {"s": {"type": "external_api", "connector": "BrokenConnector"}},
        "connectors": {"BrokenConnector": {"path": "broken_connector:BrokenConnector"}},
    }
    (tmp_path / "mapping.json").write_text(json.dumps(mapping))
    words = [
        sys.executable,
        "-m",
        "emp_trio",
        "check",
        "--workers",
        "x:1",
        "--online",
        "--mapping",
        str(tmp_path / "mapping.json"),
    ]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "BROKEN_KEY": "Kq7Wm2Xv9Lp4Kt8Rb3Ny"}
    with trio.fail_after(60):
        done = await trio.run_process(words, env=env, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    assert b"can't use ***" in done.stdout


async def test_redis_is_asked_too_where_one_is_named(valkey: str) -> None:
    async with open_fake_openai() as openai:
        code, problems = await check(openai, HUB_REDIS_URL=valkey)
        assert code == 0, problems
        (warning,) = [p for p in problems if p["path"] == "HUB_REDIS_URL"]
        assert warning["severity"] == "warning"
        assert "Redis may lose all jobs, when it stops" in warning["message"]
        with valkey_server("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as cluster:
            code, problems = await check(openai, HUB_REDIS_URL=cluster)
        assert code == 2
        (error,) = [p for p in problems if p["path"] == "HUB_REDIS_URL"]
        assert "cluster mode, which emp-trio does not support" in error["message"]
