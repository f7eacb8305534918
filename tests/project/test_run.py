"""``./run`` in a checkout that nobody has set up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.support import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("run", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def call(checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHON"} | environment
    return subprocess.run([checkout / "run", *words], cwd="/", env=env, capture_output=True, text=True)


def test_it_teaches_and_names_a_wrong_command_before_it_sets_anything_up(checkout: Path) -> None:
    assert "./run test tests/queue" in call(checkout).stdout
    wrong = call(checkout, "tets")
    assert wrong.returncode == 2
    assert wrong.stderr.endswith("run: there is no command tets\n")
    assert not (checkout / ".venv").exists()


def test_a_machine_without_a_fitting_python_is_told_so(checkout: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")  # what "is this a Python 3.11 to 3.13?" makes of an older one
    old.chmod(0o755)
    done = call(checkout, "test", PYTHON=str(old))
    assert done.returncode == 2
    assert f"PYTHON={old} is not a Python 3.11, 3.12 or 3.13" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_set_up_that_fails_is_not_taken_for_done(checkout: Path) -> None:
    (checkout / "constraints.txt").write_text(f"nothing-of-this-name==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    environment = {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    for _ in range(2):
        done = call(checkout, "emp-trio", "--version", **environment)
        assert done.returncode == 1
        assert "nothing-of-this-name" in done.stderr
    assert not (checkout / ".venv" / ".set-up").exists()
