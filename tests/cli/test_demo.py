"""``emp-trio demo``: everything at work on one machine, and nothing of it left afterwards."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.cli.client_support import open_command, run_command


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that were started with ``TMPDIR`` being that folder, as all children of a demo are."""
    mark, found = f"TMPDIR={folder}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it has ended meanwhile, or is somebody else's
    return found


async def test_every_kind_of_job_ends_as_planned_and_its_files_are_what_they_say(tmp_path: Path) -> None:
    files, scratch = tmp_path / "files", tmp_path / "scratch"
    scratch.mkdir()
    code, out, err = await run_command(
        "demo", "--json", "--jobs", "7", "--output", str(files), env={"TMPDIR": str(scratch)}
    )
    assert code == 0, err
    report = json.loads(out)
    counts = {name: report[name] for name in ("submitted", "completed", "failed", "cancelled", "lost")}
    assert counts == {"submitted": 7, "completed": 5, "failed": 1, "cancelled": 1, "lost": 0}
    assert 0 < report["seconds"] < 60
    assert len(report["assets"]) == 5
    assert max(asset["size"] for asset in report["assets"]) == 8 * 2**20
    for asset in report["assets"]:
        content = Path(asset["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (asset["size"], asset["sha256"])
        assert asset["url"].startswith("http://127.0.0.1:")
        assert asset["job_id"] in asset["path"]
    assert sorted(files.iterdir()) == sorted(Path(asset["path"]) for asset in report["assets"])
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == []


async def test_the_openai_family_leaves_its_files_in_azurite(tmp_path: Path, azurite_cache: Path) -> None:
    """Text, images, edited images and responses; the store is a real Azurite with a CDN in front."""
    scratch = tmp_path / "scratch"
    (scratch / "cache").mkdir(parents=True)
    (scratch / "cache" / "emp-trio").symlink_to(azurite_cache)  # where the tests of the store have installed it
    env = {"TMPDIR": str(scratch), "XDG_CACHE_HOME": str(scratch / "cache")}
    code, out, err = await run_command(
        "demo", "--services", "openai", "--json", "--jobs", "7", "--output", str(tmp_path / "files"), env=env
    )
    assert code == 0, err
    report = json.loads(out)
    counts = {name: report[name] for name in ("submitted", "completed", "failed", "cancelled", "lost")}
    assert counts == {"submitted": 7, "completed": 5, "failed": 1, "cancelled": 1, "lost": 0}
    assert len(report["assets"]) == 5
    assert len({asset["job_id"] for asset in report["assets"]}) == 4
    assert processes_of(scratch) == []


async def test_graphs_run_by_comfyui(tmp_path: Path) -> None:
    code, out, err = await run_command(
        "demo", "--services", "comfyui", "--json", "--jobs", "4", "--output", str(tmp_path)
    )
    assert code == 0, err
    report = json.loads(out)
    counts = {name: report[name] for name in ("submitted", "completed", "failed", "cancelled", "lost")}
    assert counts == {"submitted": 4, "completed": 2, "failed": 1, "cancelled": 1, "lost": 0}
    assert len(report["assets"]) == 2


async def test_people_get_a_table(tmp_path: Path) -> None:
    code, out, err = await run_command("demo", "--jobs", "2", "--output", str(tmp_path))
    assert code == 0, err
    assert "demo-01-openai_image\tcompleted\tdemo-01-openai_image_0.png" in out
    assert "2 completed, 0 failed, 0 cancelled, 0 lost" in out
    assert f"the files are in {tmp_path}" in out


async def test_an_interrupt_ends_it_without_a_trace(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    async with open_command("demo", "--output", str(tmp_path / "files"), env={"TMPDIR": str(scratch)}) as demo:
        await demo.until("err", "running")
        demo.interrupt()
        assert await demo.code() == 130
    assert "Traceback" not in demo.err
    assert list(scratch.iterdir()) == []
    assert processes_of(scratch) == []


@pytest.mark.parametrize("words", [("--jobs", "0"), ("--output", "/proc/none/here")], ids=" ".join)
async def test_wrong_usage_is_explained(words: tuple[str, str]) -> None:
    code, out, err = await run_command("demo", *words)
    assert code == 2
    assert out == ""
    assert words[1] in err or words[0] in err
    assert "Traceback" not in err
