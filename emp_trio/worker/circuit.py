"""Circuit breaker: after N consecutive failures only a periodic probe job is admitted, until one succeeds. Pure."""

from __future__ import annotations

from typing import Literal

from emp_trio.errors import DeadlineExceeded, Refused, ServiceError
from emp_trio.failures import Failure

Verdict = Literal["good", "bad", "fatal", "neutral", "unready"]
"""Effect of a job's end on the circuit. ``unready``: the work was not started; the health check has the reason."""

_TROUBLE = frozenset({"service_error", "network_error", "timeout"})


def verdict(error: BaseException, failure: Failure) -> Verdict:
    """Classify the error of a job by what it implies about the service.

    Args:
        error: leading error of the connector.
        failure: failure class of the error.

    Returns:
        ``good``: the service works (it refused); ``bad``: it fails; ``fatal``: no job can succeed until an operator
        acts (credentials, exhausted credit); ``neutral``: the error implies nothing about the service.
    """
    if isinstance(error, Refused):
        return "good"
    if isinstance(error, DeadlineExceeded):
        return "bad" if error.stage == "service" else "neutral"
    if not isinstance(error, ServiceError):
        return "neutral"
    if failure.type == "auth_error" or failure.reason == "daily_quota_exceeded":
        return "fatal"
    return "bad" if failure.type in _TROUBLE else "neutral"


class Circuit:
    """Closed until ``threshold`` consecutive jobs are ``bad``, or one is ``fatal``.

    Then open for a pause, after which one probe job is admitted: it closes the circuit, or opens it for twice the
    pause.

    Args:
        threshold: number of consecutive bad jobs.
        pause: first pause in seconds.
        longest: maximum pause in seconds.
    """

    def __init__(self, threshold: int, pause: float, longest: float) -> None:
        self._threshold = threshold
        self._first = self._pause = pause
        self._longest = longest
        self._in_a_row = 0
        self._probe: float | None = None  # start time of the probe job
        self.until: float | None = None
        """Time at which the next probe job may be admitted; None while the circuit is closed."""

    def admits(self, now: float) -> bool:
        """Return whether a job may start."""
        return self.until is None or (now >= self.until and self._probe is None)

    def begin(self, now: float) -> bool:
        """Record the start of a job. Return False if it must not start."""
        if not self.admits(now):
            return False
        self._probe = now if self.until is not None else None
        return True

    def end(self, said: Verdict, now: float, *, began: float) -> None:
        """Record the end of a job.

        Only the probe job changes an open circuit, not jobs that started before it opened: an account without credit
        still finishes work it has paid for.
        """
        if self.until is not None and began != self._probe:
            return
        probed, self._probe = self._probe is not None, None
        if said == "good":
            self._in_a_row, self._pause, self.until = 0, self._first, None
        elif said in ("bad", "fatal"):
            self._in_a_row += 1
            if probed or said == "fatal" or self._in_a_row >= self._threshold:
                self.until = now + self._pause
                self._pause = min(self._pause * 2, self._longest)
