"""200 jobs at 50 slots through a real connector, against a service that answers in 50 ms; ideal: 0.20 s.

    python benchmarks/connector.py            # needs redis-server on PATH, or uses the embedded Valkey

The worker is the real command with ``OpenAITextSimpleConnector``; worker, service, Redis and the submitting client
share this machine. Seconds run from the start of the first job to the end of the last one, by the job records in Redis.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import redis
import trio

from emp_trio.queue.client import open_queue
from emp_trio.testing.valkey import valkey_server

MAPPING = {
    "workers": {
        "text": {
            "services": ["text"],
            "is_gpu_bound": False,
            "job_service_required_map": [{"job_service_required": "text", "worker_service": "text"}],
        }
    },
    "connectors": {"OpenAITextSimpleConnector": {}},
    "services": {"text": {"connector": "OpenAITextSimpleConnector", "type": "external"}},
}


async def submit(url: str, jobs: int) -> list[str]:
    ids: list[str] = []
    async with open_queue(url) as queue, trio.open_nursery() as nursery:

        async def one() -> None:
            ids.append(await queue.submit("text", {"prompt": "hi"}))

        for _ in range(jobs):
            nursery.start_soon(one)
    return ids


def seconds(client: redis.Redis, ids: list[str]) -> float:
    """From the first start to the last end."""
    while client.hlen("jobs:completed") < len(ids):
        time.sleep(0.005)
    times = [client.hmget(f"job:{job_id}", "started_at", "completed_at") for job_id in ids]
    at = [[datetime.fromisoformat(value.decode()).timestamp() for value in pair] for pair in times]
    client.delete("jobs:completed")
    return max(end for _, end in at) - min(start for start, _ in at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--slots", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7, help="the first one warms up and does not count")
    given = parser.parse_args()
    here = Path(__file__).parent
    with valkey_server() as url, tempfile.TemporaryDirectory() as folder:
        mapping = Path(folder) / "mapping.json"
        mapping.write_text(json.dumps(MAPPING))
        server = subprocess.Popen([sys.executable, str(here / "chat_server.py")], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        words = ["worker", "--workers", f"text:{given.slots}", "--mapping", str(mapping), "--redis", url]
        env = {**os.environ, "OPENAI_BASE_URL": base, "OPENAI_API_KEY": "sk-bench"}
        worker = subprocess.Popen([sys.executable, "-m", "emp_trio", *words], env=env, stderr=subprocess.DEVNULL)
        try:
            with redis.Redis.from_url(url) as client:
                while client.scard("workers:active") < given.slots:
                    time.sleep(0.05)
                time.sleep(1.0)
                took = [seconds(client, trio.run(submit, url, given.jobs)) for _ in range(given.rounds)][1:]
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(20)
            server.terminate()
            server.wait(5)
    took.sort()
    middle = took[len(took) // 2]
    report = {"jobs": given.jobs, "slots": given.slots, "ideal_s": round(given.jobs / given.slots * 0.05, 3)}
    print(
        json.dumps(
            report | {"middle_s": round(middle, 3), "lowest_s": round(took[0], 3), "highest_s": round(took[-1], 3)}
        )
    )


if __name__ == "__main__":
    main()
