"""The built package: complete, clean, and usable without the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.project.support import ROOT, sources


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_all_that_is_needed_and_nothing_else(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    needed = {str(path.relative_to(ROOT)) for path in sources(".py", ".lua", ".typed", under="emp_trio")}
    needed |= {"emp_trio/mapping/data/service-mapping.json"}
    assert needed <= packed
    others = {name for name in packed if not name.startswith(("emp_trio/", "emp_trio-"))}
    assert others == set()
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in packed)


def test_an_installed_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """The dependencies are those of this environment; what is tried is the package and what it brings."""
    venv.create(tmp_path, symlinks=True, with_pip=False)
    bin_ = tmp_path / "bin"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "-q",
            "--offline",
            "--no-deps",
            "--python",
            bin_ / "python",
            wheel,
        ],
        check=True,
    )
    env = {"PYTHONPATH": sysconfig.get_path("purelib"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def out(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert out(bin_ / "emp-trio", "--version").startswith("emp-trio ")
    script = (
        "import emp_trio; from emp_trio.mapping import load_mapping; print(load_mapping(None) and emp_trio.__file__)"
    )
    assert Path(out(bin_ / "python", "-c", script).strip()).is_relative_to(tmp_path)
    assert "MockConnector" in out(bin_ / "emp-trio", "connectors")
