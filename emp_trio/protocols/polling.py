"""``Polling``: ask until the answer is there, patiently but not for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
import trio

from emp_trio.errors import ServiceError
from emp_trio.retry import RetryPolicy

T = TypeVar("T")


class PollingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long a connector asks.

    Attributes:
        interval: seconds between two looks.
        attempts: looks in total.
        errors_in_a_row: failed looks in a row that are put up with, as long as their errors are worth a retry.
    """

    interval: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    attempts: Annotated[int, msgspec.Meta(ge=1)] = 60
    errors_in_a_row: Annotated[int, msgspec.Meta(ge=0)] = 5


class Wait(msgspec.Struct, frozen=True):
    """What a look returns for "not finished, and the service asks to wait this many seconds"."""

    seconds: float


class Polling:
    """Gives a connector the verb ``poll``, with :class:`PollingSettings` in ``self.settings.polling``."""

    settings: Any

    async def poll(self, look: Callable[[], Awaitable[T | Wait | None]], *, hint: str = "") -> T:
        """Call ``look`` until it returns something, at once and then every interval.

        Args:
            look: asks the service once; None means not finished. Its calls are best made without retries of their own
                (``retries=0``): patience is here.
            hint: what is being waited for, for the message of an error (``response resp_123``).

        Returns:
            what ``look`` returned.

        Raises:
            ServiceError: timeout/processing_timeout after the last look; or the error of ``look``, when it is not worth
                a retry, asks for a wait that is too long to be slept here, or is one too many in a row.

        A wait that the service states replaces the interval where it is longer.
        """
        settings: PollingSettings = self.settings.polling
        began = trio.current_time()
        errors = 0
        pause = 0.0
        last: ServiceError | None = None
        for attempt in range(settings.attempts):
            if attempt:
                await trio.sleep(max(settings.interval, pause))
            pause = 0.0
            try:
                answer = await look()
            except ServiceError as error:
                last = error
                errors += 1
                pause = error.retry_after or 0.0
                if not error.retry or errors > settings.errors_in_a_row or _too_long(pause):
                    raise
                continue
            errors, last = 0, None
            if isinstance(answer, Wait):
                pause = answer.seconds
            elif answer is not None:
                return answer
        raise ServiceError(
            f"{hint or 'the work'} was not finished after {settings.attempts} attempts to look in "
            f"{trio.current_time() - began:.3g} s"
            + (f", the last of which failed: {last.message}" if last else ": if it needs longer, raise attempts"),
            type="timeout",
            reason="processing_timeout",
            maybe_started=True,
        ) from last


def _too_long(pause: float) -> bool:
    return pause > RetryPolicy().longest_stated or trio.current_time() + pause >= trio.current_effective_deadline()
