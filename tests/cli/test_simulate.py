"""``emp-trio simulate``: a service that workers can talk to, for as long as it is wanted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import httpx
import pytest

from emp_trio.cli import run


@pytest.mark.parametrize(
    ("service", "variable", "stop"),
    [
        ("http", "SIMULATION_HTTP_URL", signal.SIGINT),
        ("websocket", "SIMULATION_WEBSOCKET_URL", signal.SIGTERM),
        ("openai", "OPENAI_BASE_URL", signal.SIGINT),
        ("gemini", "GEMINI_NANO_BANANA_URL", signal.SIGTERM),
        ("ollama", "OLLAMA_BASE_URL", signal.SIGTERM),
        ("comfyui", "COMFYUI_WS_URL", signal.SIGINT),
        ("a1111", "A1111_BASE_URL", signal.SIGTERM),
    ],
)
def test_a_simulated_service_serves_until_it_is_told_to_stop(service: str, variable: str, stop: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "emp_trio", "simulate", service, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        url = said["environment"][variable]
        assert httpx.get(url.replace("ws://", "http://")).status_code < 500
        process.send_signal(stop)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_simulated_service_says_why_it_can_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "http", "--host", "192.0.2.1", "--port", "0"]) == 2
    assert "can't listen at 192.0.2.1, port 0" in capsys.readouterr().err
