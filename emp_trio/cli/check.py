"""``emp-trio check``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emp_trio.cli.connection import named_redis
from emp_trio.cli.mapping_option import MappingOption
from emp_trio.cli.output import OK, WRONG_USAGE, console, print_json
from emp_trio.errors import ConfigError, Problem
from emp_trio.printable import printable
from emp_trio.secrets import Redactor, hold

if TYPE_CHECKING:
    from emp_trio.mapping import Plan


async def check(
    *,
    mapping: MappingOption = None,
    workers: str | None = None,
    strict: bool = False,
    online: bool = False,
    json: bool = False,
) -> int:
    """Check the mapping and the environment, and list all problems.

    Runs the checks of a worker's start, for the worker types of --workers or
    the environment. Without worker types, checks only the mapping and the
    worker's own settings. Connects to nothing, except with --online.

    Exit code 0 if a worker can start (warnings allowed), 2 if it can't.

    For example:

        emp-trio check --workers "openai:4,mock"
        emp-trio check --mapping service-mapping.json --strict
        emp-trio check --workers "openai:4" --online

    Args:
        workers: Worker types and counts, such as "openai:4,comfyui:auto". Default: WORKERS, or WORKER_ID and
            CONNECTORS.
        strict: Treat unknown fields in the mapping as errors.
        online: Also check that each service and Redis (HUB_REDIS_URL or REDIS_URL, if set) are usable.
            Warn of configured models that shut down within 60 days, and of data that Redis may lose.
        json: Print one JSON object.
    """
    from emp_trio.cli.configuration import configure
    from emp_trio.worker.capabilities import detect_hardware

    env = dict(os.environ)
    problems: tuple[Problem, ...]
    source, planned, asked = "", None, True
    try:
        hardware = await detect_hardware(env)
        configured = configure(env, mapping=mapping, workers=workers, gpus=hardware.gpus, strict=strict)
    except ConfigError as error:
        problems = error.problems or (Problem(path="$", message=error.message),)
    else:
        problems, source, planned, asked = configured.problems, configured.source, configured.plan, configured.asked
        hold(
            *(planned.secrets if planned is not None else ()),
            *(configured.storage.secrets if configured.storage else ()),
        )
        if online and configured.plan is not None and configured.worker is not None and configured.storage is not None:
            from emp_trio.cli.online import ask_redis, ask_services

            problems += tuple(await ask_services(configured.plan, configured.worker, configured.storage))
            if (url := named_redis()) is not None:
                problems += tuple(await ask_redis(url))
    problems = tuple(map(_redacted, problems))
    wrong = sum(problem.severity == "error" for problem in problems)
    if json:
        counts = planned.slots() if planned is not None else {}
        print_json({"ok": not wrong, "mapping": source, "workers": counts, "problems": problems})
    else:
        _print(problems)
        print(printable(_verdict(source, wrong, planned, asked)))
    return WRONG_USAGE if wrong else OK


def _redacted(problem: Problem) -> Problem:
    """Redact a problem: it may quote a value of the environment, such as a URL with a password."""
    import msgspec

    hidden = Redactor()
    return msgspec.structs.replace(problem, message=hidden.text(problem.message), hint=hidden.text(problem.hint))


def _print(problems: tuple[Problem, ...]) -> None:
    from rich.text import Text

    out = console()
    for problem in problems:
        style = "bold red" if problem.severity == "error" else "bold yellow"
        out.print(Text(f"{problem.severity}: ", style=style) + Text(printable(str(problem))))


def _verdict(source: str, wrong: int, planned: Plan | None, asked: bool) -> str:
    if wrong:
        return f"{wrong} problem{'s' if wrong > 1 else ''} to solve before a worker can start"
    if planned is None or not asked:
        return f"{source} is fine; name workers (--workers or WORKERS) to check their services and variables too"
    slots = ", ".join(f"{count} {name}" for name, count in planned.slots().items())
    types = dict.fromkeys(job_type for worker in planned.workers for job_type in worker.routes)
    return f"ready to start {slots} for jobs of type {', '.join(types)}"
