"""Settings of the worker from the command line and the environment: identity, times, limits."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

import msgspec

from emp_trio.attempt import StageLimits
from emp_trio.errors import ConfigError, Problem
from emp_trio.mapping.workers import FORBIDDEN_IN_IDS
from emp_trio.queue.keeping import RETRY


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a worker. Times are in seconds.

    Attributes:
        machine_id: name of this machine in the fleet; no ``:``, ``.`` or ``/``.
        unified: whether an aggregator reports this machine's status (``UNIFIED_MACHINE_STATUS``).
        job_timeout: maximum time of an attempt.
        stages: limits of the upload, cdn and settle stages.
        cleanup: time for a connector's cleanup after its cancellation; then its lease is no longer renewed.
        lease: duration of a lease, renewed every ``renew_every``; local work stops ``lease_margin`` before its end.
        renew_timeout: timeout of a renewal, after which it is retried on a new connection.
        redis_timeout: timeout of other replies, and maximum silence of a connection before it is pinged.
        beat_every: interval of registration and heartbeat of the slots.
        poll_every: interval of claims without a notification.
        announcement: maximum time that the first events of a job wait for the submitter's announcement.
        drain: time for running jobs to finish after the first signal.
        settle_patience: time beyond the settle stage to store an outcome while Redis is unreachable.
        max_crashes: number of expired leases after which a job fails permanently.
        progress_every: minimum time between progress messages of a job.
        health_every, health_retry, health_timeout: intervals of health checks of a healthy and an unhealthy service,
            and the timeout of a check.
        circuit_failures, circuit_pause, circuit_longest: consecutive failed jobs that open the circuit of a service,
            its first pause, and its maximum pause.
        adopt_orphans: time without a heartbeat after which jobs of workers without leases are requeued; None: never.
        reap_every: maximum time between runs of the reaper.
        standstill: maximum time that the event loop may be blocked (by a connector) before leases are no longer
            renewed.
        take_over: whether another process with slots of the same ids must leave, instead of this one.
        durable: whether an outcome counts as stored only when it outlives the server.
    """

    machine_id: str
    unified: bool = False
    job_timeout: float = 1800.0
    stages: StageLimits = StageLimits()
    cleanup: float = 10.0
    lease: float = 15.0
    renew_every: float = 5.0
    lease_margin: float = 2.0
    renew_timeout: float = 2.0
    redis_timeout: float = 5.0
    beat_every: float = 10.0
    poll_every: float = 5.0
    announcement: float = 0.025
    drain: float = 30.0
    settle_patience: float = 120.0
    max_crashes: int = 3
    progress_every: float = 0.1
    health_every: float = 30.0
    health_retry: float = 5.0
    health_timeout: float = 10.0
    circuit_failures: int = 5
    circuit_pause: float = 15.0
    circuit_longest: float = 300.0
    reap_every: float = 5.0
    standstill: float = 30.0
    take_over: bool = False
    durable: bool = False
    adopt_orphans: float | None = None


_SECONDS: Final = {  # setting -> (environment variable, its unit in seconds)
    "job_timeout": ("JOB_TIMEOUT_MINUTES", 60.0),
    "poll_every": ("WORKER_POLL_INTERVAL_MS", 0.001),
    "beat_every": ("WORKER_HEARTBEAT_INTERVAL_MS", 0.001),
    "health_every": ("HEALTH_CHECK_INTERVAL_MS", 0.001),
    "lease": ("EMP_TRIO_LEASE_SECONDS", 1.0),
    "renew_timeout": ("EMP_TRIO_RENEW_TIMEOUT_SECONDS", 1.0),
    "redis_timeout": ("EMP_TRIO_REDIS_TIMEOUT_SECONDS", 1.0),
    "announcement": ("EMP_TRIO_ANNOUNCEMENT_SECONDS", 1.0),
    "drain": ("EMP_TRIO_DRAIN_SECONDS", 1.0),
    "standstill": ("EMP_TRIO_STANDSTILL_SECONDS", 1.0),
    "adopt_orphans": ("EMP_TRIO_ADOPT_ORPHANS_SECONDS", 1.0),
}
_STAGES: Final = {
    "upload": "EMP_TRIO_UPLOAD_SECONDS",
    "cdn": "EMP_TRIO_CDN_SECONDS",
    "settle": "EMP_TRIO_SETTLE_SECONDS",
}
_SHORTEST_REPLY: Final = 2.0  # seconds; below it a busy server looks dead
_LONGEST_BEAT: Final = 20.0  # a heartbeat key expires after 60 s; two heartbeats may be lost


def worker_settings(
    env: Mapping[str, str],
    *,
    machine_id: str | None = None,
    drain: float | None = None,
    adopt_orphans: float | None = None,
) -> WorkerSettings:
    """Read the settings from the environment (queue protocol 4.1); arguments take precedence.

    Raises:
        ConfigError: values are invalid; ``problems`` lists all of them.
    """
    problems: list[Problem] = []
    values: dict[str, float] = {}

    def read(name: str, variable: str, unit: float) -> None:
        text = env.get(variable, "").strip()
        if not text:
            return
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 < number < 1e9:
            problems.append(Problem(path=variable, message=f"{text!r} is not a positive number", variable=variable))
        else:
            values[name] = number * unit

    read("job_timeout", "WORKER_JOB_TIMEOUT_MINUTES", 60.0)  # the fleet derives the next variable from it
    for name, (variable, unit) in _SECONDS.items():
        read(name, variable, unit)
    for name, variable in _STAGES.items():
        read(name, variable, 1.0)
    stages = StageLimits(**{name: values.pop(name) for name in _STAGES if name in values})
    if drain is not None and not 0 <= drain < 1e9:
        problems.append(Problem(path="--drain", message=f"{drain:g} is not a number of seconds"))
    elif drain is not None:
        values["drain"] = drain
    if adopt_orphans is not None and not 0 < adopt_orphans < 1e9:
        problems.append(
            Problem(path="--adopt-orphans", message=f"{adopt_orphans:g} is not a positive number of seconds")
        )
    elif adopt_orphans is not None:
        values["adopt_orphans"] = adopt_orphans
    if "beat_every" in values:
        values["beat_every"] = min(values["beat_every"], _LONGEST_BEAT)
    if "lease" in values:
        values = _for_lease(values["lease"]) | values
    problems += _too_slow(WorkerSettings(machine_id="", **values))  # type: ignore[arg-type]
    given = machine_id or env.get("MACHINE_ID", "").strip()
    name = given or _default_machine_id()
    bad = sorted({c for c in name if c in FORBIDDEN_IN_IDS or c.isspace() or not c.isprintable()})
    if bad:
        shown = " ".join(map(repr, bad))
        problems.append(
            Problem(
                path="MACHINE_ID",
                message=f"{name!r} contains {shown}",
                hint="use letters, digits, - and _",
                variable="MACHINE_ID",
            )
        )
    if problems:
        raise ConfigError("the worker's settings can't be used:", problems=problems)
    unified = env.get("UNIFIED_MACHINE_STATUS", "").strip().lower() == "true"
    return WorkerSettings(machine_id=name, unified=unified, stages=stages, **values)  # type: ignore[arg-type]


def _for_lease(lease: float) -> dict[str, float]:
    """Return default times for a lease of ``lease`` seconds."""
    renew_every, margin = lease / 3, min(2.0, lease / 6)
    return {
        "renew_every": renew_every,
        "lease_margin": margin,
        "renew_timeout": max(0.05, min(2.0, (lease - margin - renew_every - RETRY) / 2)),
        "redis_timeout": max(_SHORTEST_REPLY, min(5.0, (lease - margin) / 2)),
    }


def _too_slow(settings: WorkerSettings) -> list[Problem]:
    """Report times that would let a lease expire before a dead connection is detected."""
    left = settings.lease - settings.lease_margin
    found = []
    if settings.renew_every + 2 * settings.renew_timeout > left:
        found.append(
            Problem(
                path="EMP_TRIO_RENEW_TIMEOUT_SECONDS",
                message=f"a lease of {settings.lease:g} s is renewed every {settings.renew_every:.3g} s; a renewal "
                f"that gets no answer for {settings.renew_timeout:g} s can't be repeated within the {left:.3g} s "
                "that a job runs without one",
                hint=f"at most {(left - settings.renew_every) / 2:.2g}, or a longer EMP_TRIO_LEASE_SECONDS",
                variable="EMP_TRIO_RENEW_TIMEOUT_SECONDS",
            )
        )
    if settings.redis_timeout > max(_SHORTEST_REPLY, left / 2):
        found.append(
            Problem(
                path="EMP_TRIO_REDIS_TIMEOUT_SECONDS",
                message=f"a dead connection is known after twice {settings.redis_timeout:g} s, longer than the "
                f"{left:.3g} s that a job runs without a renewal of its lease",
                hint=f"at most {left / 2:.2g}, or a longer EMP_TRIO_LEASE_SECONDS",
                variable="EMP_TRIO_REDIS_TIMEOUT_SECONDS",
            )
        )
    return found


def _default_machine_id() -> str:
    return "".join("-" if c in FORBIDDEN_IN_IDS or c.isspace() else c for c in socket.gethostname()) or "machine"
