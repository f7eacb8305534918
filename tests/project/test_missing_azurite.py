"""The tests where Azurite can't be installed: one line says so, and the run fails all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.support import ROOT

WANTED = "tests/assets/test_azurite.py"


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_machine_where_npm_cannot_install_it_is_told_so_once(tmp_path: Path, processes: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("npm", "echo 'npm error network request failed' >&2; exit 1"), ("node", "exit 0")):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    shell = str(Path(shutil.which("sh") or "/bin/sh").parent)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses", processes, WANTED],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tools}:{shell}", "EMP_TRIO_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if "npm could not install Azurite" in line]
    assert len(told) == 1
    assert "npm error network request failed" in told[0]
    assert "Traceback" not in done.stdout + done.stderr
