"""Policy of claiming: from free slots, wake-ups and the last answer to the next claim of a worker type. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

_FIRST_BATCH: Final = 8  # slots that a first look claims for: most of the time it is about one job
_LONGEST_SPREAD: Final = 0.01  # seconds; how far machines that race for the same jobs draw apart
_SHORTEST_SPREAD: Final = 0.0005
_MOST_LOST_RACES: Final = 4
_SCANNING: Final = 9  # times as long as a look at jobs for others took is the pause after it: a tenth of Redis' time


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One claim to make.

    Attributes:
        size: for how many slots.
        rank: where in the queue to begin.
        concurrent: whether another one may be made before this one is answered.
        changes: how many changes of the queue were known when it was made.
        notified: whether somebody else's change of the queue led to it.
    """

    size: int
    rank: int
    concurrent: bool
    changes: int
    notified: bool


class ClaimPolicy:
    """Decides how many slots to claim for, and whether to look at all.

    While jobs are plenty two claims are under way at a time, each for a part of the slots, so that Redis and this
    process work side by side instead of in turn.

    Args:
        slots: how many the worker type has.

    Attributes:
        queue_empty: whether the last look saw the whole queue and left slots free, and nothing has changed since.
        backlog: whether the last claim brought a job for each of its slots.
    """

    def __init__(self, slots: int) -> None:
        self.queue_empty = False
        self.backlog = False
        self._share = (slots + 1) // 2
        self._changes = 0
        self._notified = False
        self._woken_by_change = False
        self._under_way = 0
        self._rank = 0
        self._lost_races = 0

    def notify(self) -> None:
        """The queue changed, or what this type can do."""
        self.queue_empty = False
        self._changes += 1
        self._notified = True

    def woken(self) -> float:
        """The claimer is about to look. Returns over how many seconds machines that hear of the same change spread."""
        self._woken_by_change, self._notified = self._notified, False
        if not self._woken_by_change or self._lost_races < 2:
            return 0.0
        return min(_LONGEST_SPREAD, _SHORTEST_SPREAD * 2.0**self._lost_races)

    def next_batch(self, free: int) -> Batch | None:
        """The claim to make now, or None.

        Args:
            free: slots that are free.
        """
        if not free or self._under_way >= (2 if self.backlog else 1):
            return None
        self._under_way += 1
        return Batch(
            size=min(free, self._share if self.backlog else _FIRST_BATCH),
            rank=self._rank,
            concurrent=self.backlog,
            changes=self._changes,
            notified=self._woken_by_change,
        )

    def answered(self, batch: Batch, *, jobs: int, next_rank: int | None, seconds: float) -> float:
        """A claim was answered.

        Args:
            jobs: how many it brought.
            next_rank: where to go on looking; None where the queue was seen to its end.
            seconds: how long it took.

        Returns:
            seconds to wait before its slots are free for another claim: a long queue of jobs for others takes at most a
            tenth of Redis' time.
        """
        self.backlog = jobs == batch.size
        if jobs:
            self._lost_races = 0
        elif batch.notified:
            self._lost_races = min(self._lost_races + 1, _MOST_LOST_RACES)
        self._rank = 0 if self.backlog else next_rank or 0
        # Empty until somebody says otherwise, which may have been while the claim was under way.
        self.queue_empty = not self.backlog and next_rank is None and batch.changes == self._changes
        return _SCANNING * seconds if next_rank is not None and not jobs else 0.0

    def ended(self) -> None:
        """A claim is over, answered or not; its slots are free or have a job."""
        self._under_way -= 1
