"""Detect two processes with the same slots, and decide which one leaves.

Every heartbeat writes its process to each slot (``functions/process.lua``), where two processes find each other. A
process is a rival only if it sent a heartbeat *after we first saw it*; so a dead process with a fresh heartbeat neither
prevents nor delays a restart. Both sides apply the same rule to the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from emp_trio.errors import MachineIdInUse
from emp_trio.queue.keeping import Other, Others

log = structlog.get_logger("emp_trio.machine")

_SHOWN: Final = 3  # slots named in an error


def alive(found: Others, first_seen: Mapping[str, int]) -> tuple[Other, ...]:
    """Return the processes that were certainly alive after we first saw them, and that take jobs.

    Args:
        first_seen: nonce -> milliseconds on the server's clock.
    """
    return tuple(o for o in found.known if not o.leaving and o.seen > first_seen.get(o.nonce, found.now))


def winner(nonce: str, found: Others, others: tuple[Other, ...]) -> Other | None:
    """Return the process that stays while this one leaves, or None if this one stays.

    The process that started first stays, unless others take over: then the last of those. The nonce breaks ties.
    """

    def rank(takes_over: bool, started: int, name: str) -> tuple[bool, int, str]:
        return takes_over, started if takes_over else -started, name

    mine = rank(found.take_over, found.started, nonce)
    best = max(others, key=lambda o: rank(o.take_over, o.started, o.nonce), default=None)
    return best if best is not None and rank(best.take_over, best.started, best.nonce) > mine else None


class Rivals:
    """Other processes with the slots of this one.

    Attributes:
        nonce: nonce of this process.
        shared: slots of this process that another live process has, too.
    """

    def __init__(self, nonce: str, machine_id: str) -> None:
        self.shared: set[str] = set()
        self.nonce = nonce
        self._machine_id = machine_id
        self._first_seen: dict[str, int] = {}
        self._slots: dict[str, set[str]] = {}
        self._named: set[str] = set()

    def hear(self, found: Others, *, leaving: bool = False) -> tuple[tuple[str, ...], MachineIdInUse | None]:
        """Process the reply to a heartbeat.

        Args:
            leaving: whether this process is leaving anyway, without an error.

        Returns:
            nonces to watch, and the error with which this process must leave, or None.
        """
        known = {other.nonce for other in found.known}
        for worker_id, nonce in found.slots:
            self._first_seen.setdefault(nonce, found.now)
            self._slots.setdefault(nonce, set()).add(worker_id)
        for nonce in self._first_seen.keys() - known:  # dead for a minute, or gone
            del self._first_seen[nonce]
            self.shared -= self._slots.pop(nonce, set())
        rivals = alive(found, self._first_seen)
        for rival in rivals:
            self.shared |= self._slots.get(rival.nonce, set())
        if leaving:
            return (), None
        stays = winner(self.nonce, found, rivals)
        if stays is not None:
            return (), self._in_use(stays, found)
        for rival in rivals:
            if rival.nonce not in self._named:
                self._named.add(rival.nonce)
                log.warning("machine.id_shared", other=rival.where, machine=rival.machine_id, hint=_SHARED)
        return tuple(sorted(o.nonce for o in found.known if not o.leaving)), None

    def _in_use(self, other: Other, found: Others) -> MachineIdInUse:
        slots = sorted(self._slots.get(other.nonce, ()))
        shown = ", ".join(slots[:_SHOWN]) + (f" and {len(slots) - _SHOWN} more" if len(slots) > _SHOWN else "")
        if other.take_over:
            text = f"another process ({other.where}) was started with --take-over and has taken over {shown}"
        else:
            text = f"another process ({other.where}) is alive and has had {shown} for longer than this one"
        return MachineIdInUse(f"the machine id {self._machine_id!r} is in use twice: {text}; {_ADVICE}")


_SHARED: Final = "it has slots of the same ids, and is to leave: each process needs a machine id of its own"
_ADVICE: Final = (
    "this process hands its jobs back and leaves. Give each process a name of its own with --machine-id or MACHINE_ID "
    "(without one it is the host name, which may be the same in all containers), or start the one that is to stay with "
    "--take-over"
)
