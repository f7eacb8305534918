"""The table of what is to be kept alive: written by the event loop, read by a keeper in a thread of its own."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Final

import msgspec

from emp_trio.queue.worker_queue import LeaseRef

_SOON: Final = 1.0  # seconds; a lease that would end so shortly after the keeper's next look is renewed now


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a keeper sees of the table.

    Attributes:
        held: the leases.
        claims: (worker id, nonce) of claims whose replies have not been read.
        loop_at: when the loop was last seen to move.
        asked: whether somebody wants to know now what is still held.
        introduce: whether process or slots are to be made known now.
        slots: worker ids that are alive.
        leaving: whether the process takes no jobs any more.
        suspects: nonces of processes that may have slots of ours.
        anew: whether the server may be another one: connect anew.
    """

    held: tuple[LeaseRef, ...]
    loop_at: float
    claims: tuple[tuple[str, str], ...] = ()
    asked: bool = False
    introduce: bool = False
    slots: tuple[str, ...] = ()
    leaving: bool = False
    suspects: tuple[str, ...] = ()
    anew: bool = False


class LeaseTable:
    """What the loop and the keeper share. Every method may be called from any thread; only :meth:`wait` waits.

    Args:
        now: Trio time.
        process: nonce of this process, which the tokens of its leases begin with: so the queue tells a crash, after
            which it is never heard of again, from a lapse.
    """

    def __init__(self, now: float, process: str = "") -> None:
        self.process = process
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._news = False
        self._until: dict[LeaseRef, float] = {}
        self._claims: dict[str, tuple[tuple[str, str], ...]] = {}
        self._claims_until: dict[str, float] = {}
        self._loop_at = now
        self._asked = False
        self._introduce = False
        self._slots: tuple[str, ...] = ()
        self._leaving = False
        self._suspects: tuple[str, ...] = ()
        self._anew = False
        self._closed = False
        self._wake = now

    # -- the loop's side

    def hold(self, lease: LeaseRef, until: float) -> float:
        """Keep a lease from now on, which ends at ``until`` as far as its holder knows. Returns when it really does."""
        with self._lock:
            known = self._until.get(lease, until)
            until = known if known > until else until
            self._until[lease] = until
            if until - self._wake < _SOON:  # it could end before the keeper looks
                self._asked = True
                self._tell()
        return until

    def claiming(self, nonce: str, asked: Sequence[tuple[str, str]]) -> None:
        """A claim is sent; keep what it brings, should the loop stand still before it reads the reply.

        Args:
            nonce: names the claim.
            asked: (worker id, nonce) of each of its slots.
        """
        with self._lock:
            self._claims[nonce] = tuple(asked)

    def claimed(self, nonce: str) -> float:
        """The reply to a claim is read. Returns until when what it brought is kept, -inf where nobody had to do so."""
        with self._lock:
            self._claims.pop(nonce, None)
            return self._claims_until.pop(nonce, -math.inf)

    def drop(self, lease: LeaseRef) -> None:
        """Keep a lease no longer."""
        with self._lock:
            self._until.pop(lease, None)

    def until(self, lease: LeaseRef) -> float:
        """When a lease ends; -inf where it is not held."""
        with self._lock:
            return self._until.get(lease, -math.inf)

    def ask(self) -> None:
        """Somebody's lease may be gone: have the keeper look now."""
        with self._lock:
            self._asked = True
            self._tell()

    def connected_anew(self) -> None:
        """The loop has a new connection, maybe to another server: have the keeper make one, and look."""
        with self._lock:
            self._anew = self._asked = True
            self._tell()

    def introduce(self, slots: Sequence[str]) -> None:
        """These slots are registered: keep them alive from now on."""
        with self._lock:
            self._slots = tuple(slots)
            self._introduce = True
            self._tell()

    def leave(self) -> None:
        """The process takes no jobs any more; its slots are kept alive until they leave the fleet's lists."""
        with self._lock:
            self._leaving = self._introduce = True
            self._tell()

    def suspect(self, nonces: Sequence[str]) -> None:
        """These processes may have slots of ours: have a close look at them."""
        with self._lock:
            if tuple(nonces) != self._suspects:
                self._suspects = tuple(nonces)
                self._tell()

    def moves(self, now: float) -> None:
        """The loop moves."""
        with self._lock:
            self._loop_at = now

    def close(self) -> None:
        """Nothing is kept any more: the keeper is to end."""
        with self._lock:
            self._closed = True
            self._tell()

    # -- the keeper's side

    @property
    def closed(self) -> bool:
        """Whether the keeper is to end."""
        with self._lock:
            return self._closed

    def view(self) -> View:
        """What is to be kept now. What was asked for is answered by it."""
        with self._lock:
            asked, introduce, anew = self._asked, self._introduce, self._anew
            self._asked = self._introduce = self._anew = self._news = False
            return View(
                held=tuple(self._until),
                claims=tuple(slot for asked in self._claims.values() for slot in asked),
                loop_at=self._loop_at,
                asked=asked,
                introduce=introduce,
                slots=self._slots,
                leaving=self._leaving,
                suspects=self._suspects,
                anew=anew,
            )

    def renewed(self, leases: Sequence[LeaseRef], until: float) -> None:
        """These leases end at ``until``, but for those that were dropped meanwhile."""
        with self._lock:
            for lease in leases:
                if lease in self._until:
                    self._until[lease] = max(self._until[lease], until)

    def held_claims(self, claims: Sequence[tuple[str, str]], until: float) -> None:
        """What these claims have brought is kept until then."""
        slots = set(claims)
        with self._lock:
            for nonce, asked in self._claims.items():
                if slots.issuperset(asked):
                    self._claims_until[nonce] = until

    def wait(self, wake: float, seconds: float) -> None:
        """Block the calling thread for ``seconds``, which is until ``wake``, or until there is something new."""
        with self._lock:
            self._wake = wake
            if not (self._news or self._closed) and seconds > 0:
                self._changed.wait(seconds)

    def _tell(self) -> None:
        self._news = True
        self._changed.notify_all()
