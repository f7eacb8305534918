"""Runs every peer on one Redis of its own and writes results.json + RESULTS.md.

Standard library only. See README.md for the environment variables.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
SCRATCH = os.environ["BENCH_SCRATCH"]
PORT = int(os.environ.get("BENCH_REDIS_PORT", "6397"))
HTTP_PORT = int(os.environ.get("BENCH_HTTP_PORT", "6398"))
MARKS = os.path.join(SCRATCH, "marks.bin")
LOGS = os.path.join(SCRATCH, "logs")


@dataclass
class Peer:
    name: str
    venv: str                      # which environment below BENCH_SCRATCH
    script: str
    worker: list[str]              # {c} is replaced by the concurrency
    concurrency: tuple[int, ...] = (1, 50)
    jobs: dict[int, int] = field(default_factory=lambda: {1: 3000, 50: 5000})
    env: dict[str, str] = field(default_factory=dict)
    worker_by_c: dict[int, list[str]] = field(default_factory=dict)
    notes: str = ""


PEERS = [
    Peer("emp-trio", "emp-trio", "peer_emp_trio.py",
         ["{bin}/emp-trio", "worker", "--workers", "bench:{c}", "--mapping", "emp_trio_mapping.json", "--redis", "{url}"],
         env={"MACHINE_ID": "bench"}, jobs={1: 3000, 50: 10000},
         notes="lease renewed every 5 s, every event and record of the fleet written"),
    Peer("floor", "rq", "peer_floor.py", ["{bin}/python", "peer_floor.py", "worker"], concurrency=(1,),
         notes="yardstick, not a library: blocking redis-py loop, 3 round trips per job"),
    Peer("bullmq", "node", "peer_bullmq.mjs", ["{node}", "peer_bullmq.mjs", "worker", "{c}"],
         notes="lock + active list, finished jobs and return values kept for ever"),
    Peer("streaq-asyncio", "streaq", "peer_streaq.py", ["{bin}/streaq", "run", "peer_streaq:worker"],
         env={"BENCH_ANYIO": "asyncio"}, notes="stream ack after the job, prefetch = concurrency, results kept 300 s"),
    Peer("streaq-trio", "streaq", "peer_streaq.py", ["{bin}/streaq", "run", "peer_streaq:worker"],
         env={"BENCH_ANYIO": "trio"}, notes="as above on the Trio backend"),
    Peer("saq", "saq", "peer_saq.py", ["{bin}/saq", "peer_saq.settings"],
         notes="active list until finished, results kept 600 s"),
    Peer("arq", "arq", "peer_arq.py", ["{bin}/arq", "peer_arq.WorkerSettings"], jobs={1: 100, 50: 3000},
         notes="polls every 0.5 s, results kept 3600 s"),
    Peer("taskiq", "taskiq", "peer_taskiq.py",
         ["{bin}/taskiq", "worker", "peer_taskiq:broker", "--workers", "1", "--max-async-tasks", "{c}"],
         notes="stream ack after the result step, no result backend by default"),
    Peer("dramatiq", "dramatiq", "peer_dramatiq.py",
         ["{bin}/dramatiq", "peer_dramatiq", "--processes", "1", "--threads", "{c}"],
         notes="ack after the actor, prefetch, no results by default; threads"),
    Peer("celery", "celery", "peer_celery.py",
         ["{bin}/celery", "-A", "peer_celery", "worker", "-c", "{c}", "-P", "threads"],
         worker_by_c={1: ["{bin}/celery", "-A", "peer_celery", "worker", "-c", "1"]}, jobs={1: 2000, 50: 3000},
         notes="late ack switched on (default: early), prefetch x4, no result backend by default; "
               "prefork at 1, thread pool at 50"),
    Peer("rq-simple", "rq", "peer_rq.py", ["{bin}/rq", "worker", "-u", "{url}", "-w", "rq.SimpleWorker"],
         concurrency=(1,), jobs={1: 1000}, notes="no fork; one job at a time; results kept 500 s"),
    Peer("rq", "rq", "peer_rq.py", ["{bin}/rq", "worker", "-u", "{url}"], concurrency=(1,), jobs={1: 150},
         notes="default worker: one fork per job; results kept 500 s"),
]


def cli(*args: str) -> str:
    return subprocess.run(["redis-cli", "-p", str(PORT), *args], check=True, capture_output=True, text=True).stdout


def commandstats() -> dict[str, int]:
    out = {}
    for line in cli("info", "commandstats").splitlines():
        if line.startswith("cmdstat_"):
            name, rest = line[8:].split(":", 1)
            out[name] = int(rest.split(",")[0].split("=")[1])
    return out


def reads() -> int:
    for line in cli("info", "stats").splitlines():
        if line.startswith("total_reads_processed"):
            return int(line.split(":")[1])
    return 0


def marks() -> list[int]:
    data = open(MARKS, "rb").read()
    return list(struct.unpack(f"<{len(data) // 8}q", data[: len(data) // 8 * 8]))


def tree(pid: int) -> list[int]:
    pids, todo = [], [pid]
    while todo:
        p = todo.pop()
        pids.append(p)
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                todo += [int(x) for x in open(f"/proc/{p}/task/{t}/children").read().split()]
        except OSError:
            pass
    return pids


def memory(pid: int) -> tuple[float, float, int]:
    """Peak resident size (MiB): largest process, sum over the tree, processes."""
    sizes = []
    for p in tree(pid):
        try:
            for line in open(f"/proc/{p}/status"):
                if line.startswith("VmHWM"):
                    sizes.append(int(line.split()[1]) / 1024)
        except OSError:
            pass
    return (round(max(sizes), 1), round(sum(sizes), 1), len(sizes)) if sizes else (0, 0, 0)


def cpu(pid: int) -> float:
    total = 0.0
    for p in tree(pid):
        try:
            f = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
            total += (int(f[11]) + int(f[12]) + int(f[13]) + int(f[14])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            pass
    return total


class Run:
    def __init__(self, peer: Peer, c: int):
        self.peer, self.c = peer, c
        self.bin = os.path.join(SCRATCH, "venv-" + peer.venv, "bin")
        self.python = "node" if peer.venv == "node" else os.path.join(self.bin, "python")
        self.env = {**os.environ, **peer.env, "BENCH_REDIS_PORT": str(PORT), "BENCH_HTTP_PORT": str(HTTP_PORT),
                    "BENCH_MARKS": MARKS, "BENCH_CONCURRENCY": str(c), "PYTHONPATH": HERE,
                    "BENCH_NODE_DIR": os.path.join(SCRATCH, "node")}
        self.proc: subprocess.Popen | None = None

    def clean(self):
        cli("flushall")
        open(MARKS, "wb").close()

    def client(self, *args: str, timeout=300) -> dict:
        p = subprocess.run([self.python, os.path.join(HERE, self.peer.script), *args], cwd=HERE, env=self.env,
                           capture_output=True, text=True, timeout=timeout)
        if p.returncode:
            lines = [x for x in p.stderr.strip().splitlines() if "Error" in x and "/" not in x]
            raise RuntimeError(lines[-1] if lines else f"exit status {p.returncode}")
        return json.loads(p.stdout.strip().splitlines()[-1])

    def start(self):
        argv = self.peer.worker_by_c.get(self.c, self.peer.worker)
        argv = [a.format(c=self.c, bin=self.bin, node="node", url=f"redis://127.0.0.1:{PORT}") for a in argv]
        log = open(os.path.join(LOGS, f"{self.peer.name}-{self.c}.log"), "w")
        self.t0 = time.monotonic_ns()
        self.proc = subprocess.Popen(argv, cwd=HERE, env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=subprocess.STDOUT)

    def stop(self):
        if not self.proc:
            return
        family = tree(self.proc.pid)
        self.proc.send_signal(signal.SIGTERM)
        try:
            self.proc.wait(8)
        except subprocess.TimeoutExpired:
            for p in family:
                try:
                    os.kill(p, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.proc.wait()
        self.proc = None

    def wait_for(self, n: int, timeout: float) -> int:
        end = time.monotonic() + timeout
        while time.monotonic() < end and os.path.getsize(MARKS) < n * 8 and self.proc.poll() is None:
            time.sleep(0.02)
        return os.path.getsize(MARKS) // 8

    def drain(self, n: int, kind: str, timeout=120) -> dict:
        self.clean()
        sent = self.client("enqueue", str(n), kind)
        cli("config", "resetstat")
        try:
            self.start()
            done = self.wait_for(n, timeout)
            time.sleep(0.7)  # last acknowledgements
            m = marks()
            big, total, procs = memory(self.proc.pid)
            used = cpu(self.proc.pid)
            stats, nreads = commandstats(), reads()
        finally:
            self.stop()
        for k in ("info", "config|resetstat"):
            stats.pop(k, None)
        span = (m[-1] - m[0]) / 1e9 if len(m) > 1 else 0
        return {
            "jobs": n, "done": done, "duplicates": max(0, done - n), **sent,
            "jobs_per_s": round((len(m) - 1) / span, 1) if span else None,
            "drain_s": round(span, 3), "first_job_after_start_s": round((m[0] - self.t0) / 1e9, 3) if m else None,
            "cpu_ms_per_job": round(1000 * used / max(1, done), 3),
            "redis_commands_per_job": round(sum(stats.values()) / max(1, done), 2),
            "socket_reads_per_job": round(nreads / max(1, done), 2),
            "top_commands": dict(sorted(((k, round(v / max(1, done), 2)) for k, v in stats.items()),
                                        key=lambda x: -x[1])[:8]),
            "peak_rss_largest_mb": big, "peak_rss_sum_mb": total, "processes": procs,
        }

    def http(self, n: int, timeout=120) -> dict:
        self.clean()
        urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/stats").read()
        out = self.drain(n, "http", timeout)
        s = json.load(urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/stats"))
        m = marks()
        # the first mark is the end of the first request: add its 50 ms
        span = (m[-1] - m[0]) / 1e9 + 0.05 if m else None
        return {"jobs": n, "done": out["done"], "seconds": round(span, 3), "jobs_per_s": round(n / span, 1),
                "max_open_requests": s["max_open"], "cpu_ms_per_job": out["cpu_ms_per_job"],
                "peak_rss_sum_mb": out["peak_rss_sum_mb"]}

    def latency(self, n: int) -> dict:
        self.clean()
        if self.peer.name == "taskiq":  # the consumer group starts at "now"
            self.client("enqueue", "0", "noop")
        try:
            self.start()
            out = self.client("latency", str(n), timeout=60 + n * 3)
            cpu0, t0 = cpu(self.proc.pid), time.monotonic()
            cli("config", "resetstat")
            time.sleep(5)
            out["idle_cpu_percent"] = round(100 * (cpu(self.proc.pid) - cpu0) / (time.monotonic() - t0), 2)
            s = commandstats()
            for k in ("info", "config|resetstat"):
                s.pop(k, None)
            out["idle_redis_commands_per_s"] = round(sum(s.values()) / 5, 2)
        finally:
            self.stop()
        return out


def middle(runs: list[dict]) -> dict:
    """The run with the middle rate, with the rates of all of them."""
    good = sorted((d for d in runs if "error" not in d), key=lambda d: d["jobs_per_s"] or 0)
    if not good:
        return runs[0]
    return {**good[len(good) // 2], "all_jobs_per_s": [d["jobs_per_s"] for d in good],
            "lowest_cpu_ms_per_job": min(d["cpu_ms_per_job"] for d in good),
            "failed_runs": len(runs) - len(good)}


def versions(peer: Peer) -> str:
    name = {"taskiq": "taskiq taskiq-redis"}.get(peer.venv, peer.venv)
    if peer.name == "floor":
        name = "redis"
    if peer.venv == "node":
        return "bullmq " + json.load(open(os.path.join(SCRATCH, "node/node_modules/bullmq/package.json")))["version"]
    out = subprocess.run([os.path.join(SCRATCH, "venv-" + peer.venv, "bin/python"), "-c",
                          "import sys, importlib.metadata as m;"
                          "print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))", *name.split()],
                         capture_output=True, text=True)
    return out.stdout.strip()


def cell(d, key, fmt="{}"):
    v = (d or {}).get(key)
    return "-" if v is None else fmt.format(v)


def markdown(res: dict) -> str:
    rows = ["# Peer results", "", "Written by `run_all.sh`; see README.md for what is measured and how.", "",
            f"Machine: {res['machine']}. Redis {res['redis']}. {res['when']}.",
            f"Load average before the run: {res['load_before']}, after: {res['load_after']}.", ""]
    for c in (1, 50):
        rows += [f"## No-op jobs, concurrency {c}", "",
                 "| peer | jobs/s | lowest - highest | CPU ms/job | commands/job | socket reads/job | peak RSS MiB (largest / all) "
                 "| processes | first job after start s | enqueue/s |",
                 "|---|---|---|---|---|---|---|---|---|---|"]
        order = sorted(res["peers"].items(), key=lambda kv: -((kv[1].get(f"noop_{c}") or {}).get("jobs_per_s") or 0))
        for name, p in order:
            d = p.get(f"noop_{c}")
            if not d:
                continue
            if "error" in d:
                rows.append(f"| {name} | failed: {d['error'][:60]} | | | | | | | | |")
                continue
            runs = d["all_jobs_per_s"]
            rows.append(f"| {name} | {cell(d, 'jobs_per_s')} | {runs[0]} - {runs[-1]} | {cell(d, 'lowest_cpu_ms_per_job')} | "
                        f"{cell(d, 'redis_commands_per_job')} | {cell(d, 'socket_reads_per_job')} | "
                        f"{cell(d, 'peak_rss_largest_mb')} / {cell(d, 'peak_rss_sum_mb')} | {cell(d, 'processes')} | "
                        f"{cell(d, 'first_job_after_start_s')} | {cell(d, 'enqueue_per_s')} |")
        rows.append("")
    rows += ["## Pick-up latency (idle worker, one job at a time)", "",
             "| peer | concurrency | p50 ms | p99 ms | idle CPU % | idle Redis commands/s |", "|---|---|---|---|---|---|"]
    for name, p in sorted(res["peers"].items(), key=lambda kv: (kv[1].get("latency") or {}).get("p50_ms") or 1e9):
        d = p.get("latency") or {}
        if d:
            rows.append(f"| {name} | {cell(d, 'concurrency')} | {cell(d, 'p50_ms')} | {cell(d, 'p99_ms')} | "
                        f"{cell(d, 'idle_cpu_percent')} | {cell(d, 'idle_redis_commands_per_s')} |")
    n = res["http_jobs"]
    rows += ["", f"## I/O-bound: {n} jobs, one 50 ms HTTP POST each, concurrency 50", "",
             f"Ideal for 50 at a time: {n / 50 * 0.05:.2f} s.", "",
             "| peer | seconds | jobs/s | most requests open at once | CPU ms/job | peak RSS MiB (all) |",
             "|---|---|---|---|---|---|"]
    for name, p in sorted(res["peers"].items(), key=lambda kv: (kv[1].get("http") or {}).get("seconds") or 1e9):
        d = p.get("http") or {}
        if "error" in d:
            rows.append(f"| {name} | failed: {d['error'][:60]} | | | | |")
        elif d:
            rows.append(f"| {name} | {cell(d, 'seconds')} | {cell(d, 'jobs_per_s')} | {cell(d, 'max_open_requests')} | "
                        f"{cell(d, 'cpu_ms_per_job')} | {cell(d, 'peak_rss_sum_mb')} |")
    rows += ["", "## Versions and defaults", "", "| peer | version | notes |", "|---|---|---|"]
    rows += [f"| {name} | {p['version']} | {p['notes']} |" for name, p in res["peers"].items()]
    return "\n".join(rows) + "\n"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--only", nargs="*")
    ap.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of jobs")
    ap.add_argument("--repeat", type=int, default=3, help="runs per throughput figure; the middle one is kept")
    ap.add_argument("--latency", type=int, default=200)
    ap.add_argument("--http", type=int, default=200)
    ap.add_argument("--out", default=SCRATCH, help="where results.json and RESULTS.md go")
    a = ap.parse_args()
    os.makedirs(LOGS, exist_ok=True)
    rdir = os.path.join(SCRATCH, "redis")
    shutil.rmtree(rdir, ignore_errors=True)
    os.makedirs(rdir)
    redis = subprocess.Popen(["redis-server", "--port", str(PORT), "--bind", "127.0.0.1", "--dir", rdir, "--save", "",
                              "--appendonly", "no"], stdout=subprocess.DEVNULL)
    server = subprocess.Popen([sys.executable, os.path.join(HERE, "slow_server.py"), str(HTTP_PORT)])
    time.sleep(0.7)
    ver = next(x for x in cli("info", "server").splitlines() if x.startswith("redis_version")).split(":")[1]
    res = {"machine": f"{os.cpu_count()} cores, Linux {platform.machine()}, Python {platform.python_version()}, Node "
                      + subprocess.run(["node", "-v"], capture_output=True, text=True).stdout.strip(),
           "redis": ver, "when": time.strftime("%Y-%m-%d"), "load_before": os.getloadavg()[0], "http_jobs": a.http,
           "peers": {}}
    try:
        chosen = [p for p in PEERS if not a.only or p.name in a.only]
        runs: dict[tuple[str, str], list[dict]] = {}
        for peer in chosen:
            res["peers"][peer.name] = {"version": versions(peer), "notes": peer.notes}

        def attempt(peer, key, fn):
            load = os.getloadavg()[0]
            try:
                out = {**fn(), "load": load}
            except Exception as e:
                out = {"error": repr(e)[:400], "load": load}
            runs.setdefault((peer.name, key), []).append(out)
            print(peer.name, key, json.dumps(out), flush=True)

        # rounds go through all peers, so that a busy moment of the machine hits them alike
        for _ in range(a.repeat):
            for peer in chosen:
                top = max(peer.concurrency)
                for c in peer.concurrency:
                    attempt(peer, f"noop_{c}",
                            lambda: Run(peer, c).drain(max(20, int(peer.jobs[c] * a.scale)), "noop"))
                attempt(peer, "http", lambda: Run(peer, top).http(a.http))
        for peer in chosen:
            top = max(peer.concurrency)
            attempt(peer, "latency", lambda: {"concurrency": top, **Run(peer, top).latency(a.latency)})
        for (name, key), found in runs.items():
            res["peers"][name][key] = found[0] if key == "latency" else middle(found)
    finally:
        server.terminate()
        redis.terminate()
        redis.wait(10)
    res["load_after"] = os.getloadavg()[0]
    os.makedirs(a.out, exist_ok=True)
    json.dump(res, open(os.path.join(a.out, "results.json"), "w"), indent=1)
    open(os.path.join(a.out, "RESULTS.md"), "w").write(markdown(res))


main()
