"""``emp-trio demo``."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from emp_trio.cli.output import FAILED, INTERRUPTED, OK, print_json, print_problem, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from emp_trio.queue.client import JobInfo, Queue
    from emp_trio.testing.cdn import Cdn
    from emp_trio.testing.demo_scenarios import PlannedJob


async def demo(
    *,
    services: Literal["mixed", "openai", "comfyui"] = "mixed",
    jobs: Annotated[int, Parameter(validator=Number(gte=1, lte=500))] = 12,
    output: Path | None = None,
    json: bool = False,
) -> int:
    """Run a complete example on this machine.

    Starts an embedded Valkey, simulated services (HTTP, WebSocket, OpenAI),
    local storage with a small CDN, and a worker. Submits a mixed batch, of which
    one job fails and one is cancelled on purpose, and waits for its end. Stops
    everything it started. Exit code 0 if every job ended as planned.

    With --services openai: text, images and edited images from a fake OpenAI,
    saved to Azurite, Azure's storage emulator. Azurite needs Node 20 and is
    installed with npm the first time. With --services comfyui: graphs run by a
    fake ComfyUI.

    For example:

        emp-trio demo
        emp-trio demo --jobs 40 --output ./files
        emp-trio demo --services openai

    Args:
        services: Services to simulate.
        jobs: Number of jobs.
        output: Folder for the generated files. Default: a new folder, printed at the end.
        json: Print one JSON object at the end.
    """
    from emp_trio.errors import ConfigError
    from emp_trio.ops.logs import configure_logs
    from emp_trio.queue.client import open_queue
    from emp_trio.secrets import Redactor
    from emp_trio.testing.demo_scenarios import SCENES
    from emp_trio.testing.demo_stack import Stopped, open_showcase

    began = time.monotonic()
    configure_logs(level="error", style=None, redactor=Redactor(), stream=sys.stderr)
    files = output or Path(tempfile.mkdtemp(prefix="emp-trio-demo-"))
    try:
        files.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder {files} can't be made: {error.strerror}") from error
    scene = SCENES[services]
    planned = scene.batch(jobs)
    if not json:
        print("starting Valkey, the simulated services, storage, a CDN and a worker ...", file=sys.stderr)
    try:
        async with open_showcase(scene, files, _cache()) as showcase, open_queue(showcase.queue_url) as queue:
            await _run(queue, planned)
            ended = {job.id: await queue.job(job.id) for job in planned}
            problems = [*_unlike_plan(planned, ended), *showcase.unplanned()]
            showcase.cdn.delay = 0.0
            assets, spoilt = await _assets(files, showcase.cdn, ended)
            billed = showcase.openai.billed
    except Stopped as stopped:
        print_problem(stopped.message)
        return INTERRUPTED
    report: dict[str, Any] = _counts(ended) | {"seconds": round(time.monotonic() - began, 2), "assets": assets}
    if json:
        print_json(report)
    else:
        _show(planned, ended, report, files, billed)
    for problem in (*problems, *spoilt):
        print_problem(problem)
    return FAILED if problems or spoilt else OK


async def _run(queue: Queue, planned: Sequence[PlannedJob]) -> None:
    """Submit the batch, follow it to its end, and cancel the planned jobs once they run."""
    import trio

    from emp_trio.cli.following import follow, open_screen

    async def cancel_when_running(job_id: str) -> None:
        async with queue.watch(job_id) as events:
            async for event in events:
                if event.last or event.progress > 1:
                    break
        await queue.cancel(job_id, "cancelled by the demo")

    ids = [job.id for job in planned]
    with open_screen(ids) as screen:
        for job in planned:
            await queue.submit(job.kind.type, job.kind.payload, job_id=job.id)
        async with trio.open_nursery() as nursery:
            for job in planned:
                if job.kind.ends == "cancelled":
                    nursery.start_soon(cancel_when_running, job.id)
            await follow(queue, ids, screen)


def _state(job: JobInfo | None) -> str:
    if job is None:
        return "lost"
    return "cancelled" if job.cancelled else job.state


def _counts(ended: Mapping[str, JobInfo | None]) -> dict[str, int]:
    states = [_state(job) for job in ended.values()]
    counts = {name: states.count(name) for name in ("completed", "failed", "cancelled")}
    return {"submitted": len(states), **counts, "lost": len(states) - sum(counts.values())}


def _unlike_plan(planned: Sequence[PlannedJob], ended: Mapping[str, JobInfo | None]) -> list[str]:
    problems: list[str] = []
    for plan in planned:
        job = ended[plan.id]
        if _state(job) != plan.kind.ends:
            reason = f": {job.error}" if job and job.error else ""
            problems.append(f"{plan.id} was to be {plan.kind.ends} and is {_state(job)}{reason}")
        elif len(_files(job)) != plan.kind.files:
            problems.append(f"{plan.id} was to leave {plan.kind.files} file(s) and left {len(_files(job))}")
    return problems


def _files(job: JobInfo | None) -> list[dict[str, Any]]:
    files = job.result.get("output_files", []) if job and job.result else []
    return list(files)


async def _assets(
    folder: Path, cdn: Cdn, ended: Mapping[str, JobInfo | None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Fetch the files of all jobs from the CDN; return them, and a message for each that differs from its result."""
    import trio

    assets: list[dict[str, Any]] = []
    spoilt: list[str] = []
    for job_id, job in ended.items():
        for file in _files(job):
            path, digest, url = folder / file["path"], file["metadata"]["sha256"], file["metadata"]["cdn_url"]
            content = await cdn.fetch(url)
            if hashlib.sha256(content).hexdigest() != digest:
                spoilt.append(f"{url} is not what {job_id} made")
            await trio.to_thread.run_sync(_keep, path, content)
            assets.append({"job_id": job_id, "path": str(path), "url": url, "size": len(content), "sha256": digest})
    return assets, spoilt


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _cache() -> Path:
    """Return the folder that keeps Azurite between demos."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emp-trio"


def _words(job: JobInfo | None) -> str:
    if job is None or job.error:
        return job.error or "" if job else ""
    return str((job.result or {}).get("data", {}).get("text", ""))


def _show(
    planned: Sequence[PlannedJob],
    ended: Mapping[str, JobInfo | None],
    report: Mapping[str, Any],
    files: Path,
    billed: int,
) -> None:
    paths = {asset["job_id"]: asset for asset in report["assets"]}
    rows = []
    for plan in planned:
        job, asset = ended[plan.id], paths.get(plan.id)
        outcome = f"{Path(asset['path']).name} ({asset['size']:,} bytes)" if asset else _words(job)
        rows.append((plan.id, _state(job), outcome))
    print_table(("job", "outcome", "file, answer, or why not"), rows)
    counts = ", ".join(f"{report[name]} {name}" for name in ("completed", "failed", "cancelled", "lost"))
    print(f"{report['submitted']} jobs in {report['seconds']} s: {counts}; one failure and one cancel were planned")
    if billed:
        print(f"OpenAI would have billed {billed} generation(s)")
    print(f"the files are in {files}")
