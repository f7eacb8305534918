"""Job logic of both simulated services: duration, progress, output. Pure.

A payload steers its own simulation with ``simulate``::

    {"simulate": {"seconds": 2.5, "steps": 5, "bytes": 300000, "fail": "out of paint", "retryable": false}}

``seconds`` and ``steps`` beat the connector's configuration; ``bytes`` is the exact size of the image; ``fail`` makes
the job end in an error with that text, which says whether trying again makes sense (``retryable``, default true).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.services.lenient import read_fields
from emp_trio.testing.png import make_png

State = Literal["running", "success", "error", "cancelled"]

Positive = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
_LARGEST: Final = 256 * 1024 * 1024


class Steering(msgspec.Struct, frozen=True, kw_only=True):
    """What ``payload.simulate`` may say; all of it is optional."""

    seconds: Positive | None = None
    steps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    bytes: Annotated[int, msgspec.Meta(ge=10_000, le=_LARGEST)] | None = None
    fail: str | None = None
    retryable: bool = True


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration that a connector sends with a job; ``None`` leaves it to the service."""

    processing_time_ms: Annotated[float, msgspec.Meta(ge=0, le=86_400_000)] | None = None
    steps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    progress_interval_ms: Annotated[float, msgspec.Meta(gt=0, le=86_400_000)] | None = None


class Simulation(msgspec.Struct, kw_only=True):
    """One job in a simulated service.

    Attributes:
        id: the service's id of the job.
        job_id: the caller's id of it.
        started: time at which it began, on the service's clock, in seconds.
        ended: time at which it was cancelled, or None.
    """

    id: str
    job_id: str
    started: float
    seconds: float
    steps: int
    progress_interval: float
    steering: Steering
    ended: float | None = None

    def state(self, now: float) -> State:
        """What the job is at ``now``; a job that reached its end can't be cancelled any more."""
        if self.ended is not None:
            return "cancelled"
        if now < self.started + self.seconds:
            return "running"
        return "error" if self.steering.fail is not None else "success"

    def step(self, now: float) -> int:
        """Steps done at ``now``."""
        if self.seconds == 0:
            return self.steps
        return min(self.steps, math.floor((now - self.started) / self.seconds * self.steps))

    def cancel(self, now: float) -> None:
        """Cancel the job, if it still runs."""
        if self.state(now) == "running":
            self.ended = now

    def results(self) -> dict[str, Any]:
        """The numbers a finished simulation reports."""
        return {"iterations": self.steps, "final_value": round(1 - 0.5**self.steps, 6), "convergence": True}

    def image(self) -> bytes:
        """The PNG this job made."""
        return make_png(seed=sum(self.id.encode()), size=self.steering.bytes)


def begin(id: str, request: dict[str, Any], *, config: str, now: float, default_seconds: float) -> Simulation:
    """Start the simulation of a submitted job.

    Args:
        id: the id to give it.
        request: the submitted message, with ``job_id`` and ``payload``.
        config: name of the field that holds the connector's configuration.
        default_seconds: how long a job takes when nobody says.

    Raises:
        msgspec.ValidationError: the message is not what it should be; says which field.
    """
    job_id = msgspec.convert(request.get("job_id"), str)
    payload = request.get("payload")  # anything: the steering is all that is read of it
    simulate = payload.get("simulate") if isinstance(payload, dict) else None
    try:
        steering = read_fields(Steering, simulate, "payload.simulate")
    except InvalidJob as error:
        raise msgspec.ValidationError(error.message) from error
    configured = msgspec.convert(request.get(config) or {}, Config)
    if steering.seconds is not None:
        seconds = steering.seconds
    elif configured.processing_time_ms is not None:
        seconds = configured.processing_time_ms / 1000
    else:
        seconds = default_seconds
    return Simulation(
        id=id,
        job_id=job_id,
        started=now,
        seconds=seconds,
        steps=steering.steps or configured.steps or 10,
        progress_interval=(configured.progress_interval_ms or 200) / 1000,
        steering=steering,
    )
