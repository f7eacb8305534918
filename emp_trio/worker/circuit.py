"""Circuit breaker: after N consecutive failures only a periodic probe job is admitted, until one succeeds. Pure."""

from __future__ import annotations

from typing import Literal

from emp_trio.errors import DeadlineExceeded, Refused, ServiceError
from emp_trio.failures import Failure

Verdict = Literal["good", "bad", "fatal", "neutral", "unready"]
"""What the end of a job says about its service. ``unready``: nothing was begun; the service's health tells why."""

_TROUBLE = frozenset({"service_error", "network_error", "timeout"})


def verdict(error: BaseException, failure: Failure) -> Verdict:
    """What a job's error says about its service.

    Args:
        error: what stands for everything that the connector raised.
        failure: its class.

    Returns:
        ``good`` it works (it refused); ``bad`` it does not; ``fatal`` no job can succeed before an operator does
        something (credentials, exhausted credit); ``neutral`` the end says nothing about the service.
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
    """Closed until ``threshold`` jobs in a row say ``bad``, or one says ``fatal``. Then open for a pause, after which
    one job is let through: it closes the circuit, or opens it again for twice the pause.

    Args:
        threshold: bad jobs in a row.
        pause: seconds of the first pause.
        longest: seconds of the longest.
    """

    def __init__(self, threshold: int, pause: float, longest: float) -> None:
        self._threshold = threshold
        self._first = self._pause = pause
        self._longest = longest
        self._in_a_row = 0
        self._probe: float | None = None  # when the job began that was let through
        self.until: float | None = None
        """When the next job may be let through; None while the circuit is closed."""

    def admits(self, now: float) -> bool:
        """Whether a job may begin."""
        return self.until is None or (now >= self.until and self._probe is None)

    def begin(self, now: float) -> bool:
        """A job is about to begin; False if it must not."""
        if not self.admits(now):
            return False
        self._probe = now if self.until is not None else None
        return True

    def end(self, said: Verdict, now: float, *, began: float) -> None:
        """A job that had begun is over. Of an open circuit the one that was let through decides, and not those that
        had begun before it opened: an account without credit still finishes what it has paid for."""
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
