"""What an idle worker costs: start-up, memory, processor time; and the price of a claim past jobs it can't take.

    python benchmarks/footprint.py            # needs redis-server on PATH, or uses the embedded Valkey

Every figure comes from the real command on a server of its own, on loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import redis

from emp_trio.testing.valkey import valkey_server


def status_mib(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(url: str, slots: int, idle: float) -> dict[str, float]:
    began = time.monotonic()
    command = [sys.executable, "-m", "emp_trio", "worker", "--workers", f"mock:{slots}", "--redis", url]
    environment = {**os.environ, "MACHINE_ID": f"bench{slots}"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        with redis.Redis.from_url(url) as client:
            while client.scard("workers:active") < slots:
                time.sleep(0.005)
            registered = time.monotonic() - began
            time.sleep(1.0)
            before, at = cpu_seconds(process.pid), time.monotonic()
            client.config_resetstat()
            time.sleep(idle)
            used = (cpu_seconds(process.pid) - before) / (time.monotonic() - at)
            commands = sum(s["calls"] for s in client.info("commandstats").values())
            return {
                "slots": slots,
                "registered_s": round(registered, 2),
                "rss_mib": round(status_mib(process.pid, "VmRSS"), 1),
                "idle_cpu_percent": round(100 * used, 2),
                "redis_commands_per_s": round(commands / idle, 1),
            }
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def claim_past(url: str, jobs: int, size: int) -> dict[str, float]:
    """Redis time of one claim that looks past waiting jobs which it can't take."""
    from emp_trio.queue import library

    text, _ = library.source()
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.function_load(text, replace=True)
        payload = json.dumps({"x": "y" * size})
        for number in range(jobs):
            fields = {
                "id": f"j{number}",
                "service_required": "other",
                "payload": payload,
                "priority": 50,
                "status": "pending",
            }
            client.hset(f"job:j{number}", mapping=fields)
            client.zadd("jobs:pending", {f"j{number}": number})
        capabilities = json.dumps({"job_service_required_map": ["mock"]})
        found = []
        for number in range(50):
            client.config_resetstat()
            client.fcall("emp_trio_claim", 0, capabilities, "m", 15000, 0, 512, "0", "m-worker-mock-0", f"n{number}")
            found.append(client.info("commandstats")["cmdstat_fcall"]["usec"] / 1000)
        return {
            "waiting": jobs,
            "payload_bytes": size,
            "median_ms": round(sorted(found)[25], 3),
            "worst_ms": round(max(found), 3),
        }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--slots", type=int, nargs="*", default=[10, 100, 500])
    arguments.add_argument("--idle", type=float, default=15.0, help="seconds to watch each idle worker")
    given = arguments.parse_args()
    for slots in given.slots:
        with valkey_server() as url:
            print(json.dumps(measure(url, slots, given.idle)), flush=True)
    with valkey_server() as url:
        print(json.dumps(claim_past(url, 100, 2**20)))


if __name__ == "__main__":
    main()
