"""Claim policy: decide the next claim from free slots, wake-ups and the last reply. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

_FIRST_BATCH: Final = 8  # slots of a first claim: most wake-ups are about one job
_LONGEST_SPREAD: Final = 0.01  # maximum seconds by which machines spread claims for the same jobs
_SHORTEST_SPREAD: Final = 0.0005
_MOST_LOST_RACES: Final = 4
_SCANNING: Final = 9  # pause after scanning jobs for others, in multiples of its duration


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One claim to make.

    Attributes:
        size: number of slots.
        rank: position in the queue to start at.
        concurrent: whether another claim may be sent before the reply to this one.
        changes: number of changes of the queue known when the claim was made.
        notified: whether a change of the queue by another client caused it.
    """

    size: int
    rank: int
    concurrent: bool
    changes: int
    notified: bool


class ClaimPolicy:
    """Decides whether to claim, and for how many slots.

    With a backlog, two claims are in flight, each for a part of the slots, so that Redis and this process work
    concurrently.

    Args:
        slots: number of slots of the worker type.

    Attributes:
        queue_empty: whether the last claim scanned the whole queue and left slots free, without a change since.
        backlog: whether the last claim filled all its slots.
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
        """Record a change of the queue, or of the capabilities."""
        self.queue_empty = False
        self._changes += 1
        self._notified = True

    def woken(self) -> float:
        """Record that the claimer wakes. Return the seconds over which machines spread claims after the same change."""
        self._woken_by_change, self._notified = self._notified, False
        if not self._woken_by_change or self._lost_races < 2:
            return 0.0
        return min(_LONGEST_SPREAD, _SHORTEST_SPREAD * 2.0**self._lost_races)

    def next_batch(self, free: int) -> Batch | None:
        """Return the claim to make now, or None.

        Args:
            free: number of free slots.
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
        """Record the reply to a claim.

        Args:
            jobs: number of jobs claimed.
            next_rank: position to continue at; None at the end of the queue.
            seconds: duration of the claim.

        Returns:
            seconds to wait before its slots are free for another claim, so that scanning jobs for others takes at most
            a tenth of Redis' time.
        """
        self.backlog = jobs == batch.size
        if jobs:
            self._lost_races = 0
        elif batch.notified:
            self._lost_races = min(self._lost_races + 1, _MOST_LOST_RACES)
        self._rank = 0 if self.backlog else next_rank or 0
        # Empty, unless a change was notified while the claim was in flight.
        self.queue_empty = not self.backlog and next_rank is None and batch.changes == self._changes
        return _SCANNING * seconds if next_rank is not None and not jobs else 0.0

    def ended(self) -> None:
        """Record the end of a claim, with or without a reply; its slots are free or have a job."""
        self._under_way -= 1
