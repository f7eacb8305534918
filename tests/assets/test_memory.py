"""A large stream goes through a saver in constant memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import trio

from tests.assets.conftest import OpenStore

_IN_A_PROCESS: Final = """
import json, os, re, sys
import trio
from pathlib import Path
from emp_trio.assets.config import storage_settings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.jobs import Job
from emp_trio.testing.attempt import FakeAttempt

def memory(line):
    status = Path("/proc/self/status").read_text()
    return int(re.search(line + r":\\s+(\\d+) kB", status)[1]) * 1024

async def stream(size):
    block = os.urandom(65536)
    for at in range(0, size, len(block)):
        await trio.lowlevel.checkpoint()
        yield block

async def main():
    async with open_asset_storage(storage_settings(json.loads(sys.argv[1]))) as saver:
        await saver.save(b"the libraries are loaded", Job(id="small", type="t"), FakeAttempt())
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = memory("VmRSS")
        saved = await saver.save(stream(100 * 2**20), Job(id="large", type="t"), FakeAttempt(300))
        print(json.dumps([saved.file_path, saved.size, memory("VmHWM") - before]))

trio.run(main)
"""


async def test_100_mb_need_no_more_than_32_mb(open_any: OpenStore) -> None:
    async with open_any() as backend:
        command = [sys.executable, "-c", _IN_A_PROCESS, json.dumps(backend.environment)]
        with trio.fail_after(60):
            done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout
        path, size, grown = json.loads(done.stdout)
        facts = await trio.to_thread.run_sync(backend.facts, path)
    assert facts is not None
    assert len(facts.content) == size == 100 * 2**20
    assert grown <= 32 * 2**20
