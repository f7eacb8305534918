"""``Polling``: ask until the answer is there, soon at first, patiently then, but not for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, ClassVar, Final, TypeVar

import msgspec
import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.part import ConnectorPart, PartSettings
from emp_trio.retry import RetryPolicy

T = TypeVar("T")

_SOON: Final = 0.3  # seconds until the second look
_SECOND: Final = 1.0  # age at which the third is made
_SPENT: Final = 1e-9  # what is left of a patience that is used up, after adding its parts


class PollingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long a connector asks.

    Attributes:
        interval: seconds between two looks. The first ones come sooner (:func:`look_pause`).
        attempts: looks in total, if all were one interval apart: the last one is made ``attempts - 1`` intervals after
            the first, and the early looks of young work are not counted.
        errors_in_a_row: failed looks in a row that are put up with, as long as their errors are worth a retry.
    """

    interval: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    attempts: Annotated[int, msgspec.Meta(ge=1)] = 60
    errors_in_a_row: Annotated[int, msgspec.Meta(ge=0)] = 5


class Wait(msgspec.Struct, frozen=True):
    """What a look returns for "not finished, and the service asks to wait this many seconds"."""

    seconds: float


class Ended(msgspec.Struct, frozen=True):
    """What a look returns for "it has ended without a result": no other look will find it otherwise, so ``error`` is
    raised at once, also where another attempt of the job is worth it."""

    error: Exception


class NotFinished(ServiceError):
    """The work was not finished when all looks were made; ``seconds`` is how long that took."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message, type="timeout", reason="processing_timeout", maybe_started=True)
        self.seconds = seconds


class Poller:
    """Asks until the answer is there, as :class:`PollingSettings` say."""

    def __init__(self, settings: PollingSettings) -> None:
        self.settings = settings

    async def poll(
        self,
        look: Callable[[], Awaitable[T | Wait | Ended | None]],
        *,
        hint: str = "",
        interval: Callable[[float], float] | None = None,
    ) -> T:
        """Call ``look`` until it returns something: at once, soon again, and then every interval.

        Args:
            look: asks the service once; None means not finished. Its calls are best made without retries of their own
                (``retries=0``): patience is here.
            hint: what is being waited for, for the message of an error (``response resp_123``).
            interval: seconds between two looks, of the seconds since the first one; the settings' where left out.

        Returns:
            what ``look`` returned.

        Raises:
            NotFinished: (timeout/processing_timeout) after the last look.
            ServiceError: the error of ``look``, when it is not worth a retry, asks for a wait that is too long to be
                slept here, or is one too many in a row. An error with no HTTP status and the type ``service_error`` is
                no failure to look but what the service has said of the work: as of :class:`Ended`, it is final.

        A wait that the service states replaces the pause where it is longer, up to two minutes, and counts as one look.
        """
        settings = self.settings
        began = trio.current_time()
        errors, looks = 0, 0
        left = float(settings.attempts - 1)
        last: ServiceError | None = None
        while True:
            looks += 1
            stated = 0.0
            try:
                answer = await look()
            except ServiceError as error:
                errors, last = errors + 1, error
                stated = error.retry_after or 0.0
                if _is_verdict(error) or errors > settings.errors_in_a_row or _too_long(stated):
                    raise
            else:
                errors, last = 0, None
                if isinstance(answer, Ended):
                    raise answer.error
                if isinstance(answer, Wait):
                    stated = min(answer.seconds, RetryPolicy().longest_stated)
                elif answer is not None:
                    return answer
            age = trio.current_time() - began
            if left <= _SPENT:
                why = f", the last of which failed: {last.message}" if last else ": if it needs longer, raise attempts"
                text = f"{hint or 'the work'} was not finished after {looks} attempts to look in {age:.3g} s{why}"
                raise NotFinished(text, seconds=age) from last
            usual = settings.interval if interval is None else interval(age)
            planned = look_pause(age, usual) if last is None else usual  # who is in trouble is not hurried
            pause = max(min(planned, left * usual), stated)
            left -= min(pause / usual, 1.0) if usual else 1.0
            await trio.sleep(pause)


def look_pause(age: float, interval: float) -> float:
    """Seconds until the next look at work of ``age`` seconds that is looked at every ``interval`` seconds.

    The first looks are made at 0, 0.3, 1 and 2 s, and later ones whenever the age has doubled, until that takes longer
    than the interval: what takes a moment is not waited for longer than it took.
    """
    if age < 0.9 * _SOON:
        return min(interval, _SOON)
    return min(interval, _SECOND - _SOON if age < 0.9 * _SECOND else max(_SECOND, age))


def _is_verdict(error: ServiceError) -> bool:
    return not error.retry or (error.status is None and error.type == "service_error")


def _too_long(pause: float) -> bool:
    return pause > RetryPolicy().longest_stated or trio.current_time() + pause >= trio.current_effective_deadline()


class Polling(ConnectorPart):
    """Attaches ``self.poller``, with the :class:`PollingSettings` among the connector's settings."""

    part_settings: ClassVar[PartSettings] = PollingSettings
    poller: Poller

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts."""
        self.poller = Poller(self.settings_of(PollingSettings))
        yield
