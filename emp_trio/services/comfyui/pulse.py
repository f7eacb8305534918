"""Detect a server whose worker thread has died while its HTTP side works. Pure.

Sources: ComfyUI reference 4.6; real servers 1.

Nobody can tell a dead thread from a long computation by one look. So what counts is change, from one look to the next:
another prompt runs, another one has ended, memory was taken or given back, or a message about a prompt was heard. A
server that shows none of this for long is suspect; the first sign clears it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from emp_trio.protocols.parsing import Lenient, parse_or_empty

_HOST: Final = frozenset({"cpu", "mps"})  # devices whose memory is that of the host, in which others are at work, too
_SHARE: Final = 0.04  # of memory that others use as well: a smaller change says nothing
_MOST: Final = 2**30  # bytes that always say something


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of a server, in bytes.

    Attributes:
        own: what the server's process itself has taken of its devices; any change is its own doing.
        shared: free and total memory of the host and of each device, which others use, too.
    """

    own: tuple[int, ...] = ()
    shared: tuple[tuple[int, int], ...] = ()


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a server in one look.

    Attributes:
        running: ids of the prompts that run.
        waiting: how many wait.
        newest: id of the newest prompt in its history; empty where there is none, or it does not say.
        memory: None where it does not say.
    """

    running: frozenset[str] = frozenset()
    waiting: int = 0
    newest: str = ""
    memory: Memory | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting


class _System(msgspec.Struct, frozen=True):
    ram_free: Lenient[float] = 0
    ram_total: Lenient[float] = 0


class _Device(msgspec.Struct, frozen=True):
    type: Lenient[str] = ""
    vram_free: Lenient[float] = 0
    vram_total: Lenient[float] = 0
    torch_vram_free: Lenient[float] = 0
    torch_vram_total: Lenient[float] = 0


class _Stats(msgspec.Struct, frozen=True):
    """An answer of ``GET /system_stats``; a figure that is none counts as 0."""

    system: Lenient[_System] = _System()
    devices: Lenient[list[Lenient[_Device]]] = []


def read_memory(answer: Any) -> Memory | None:
    """The memory in an answer of ``GET /system_stats``; None where it has none."""
    said = parse_or_empty(_Stats, answer)
    own: list[int] = []
    shared = [(int(said.system.ram_free), int(said.system.ram_total))]
    for device in said.devices:
        if device.type not in _HOST:
            shared.append((int(device.vram_free), int(device.vram_total)))
            own += [int(device.torch_vram_total), int(device.torch_vram_free)]
    if not any(own) and not any(total for _, total in shared):
        return None
    return Memory(own=tuple(own), shared=tuple(shared))


def sign_of_life(before: Vitals, after: Vitals) -> str:
    """What a server has done between two looks.

    Clients can put prompts into a queue and take out those that wait; so neither says anything of the server.

    Returns:
        ``queue``, ``history`` or ``memory``; empty where it has shown nothing.
    """
    if before.running != after.running:
        return "queue"
    if before.newest and after.newest and before.newest != after.newest:
        return "history"
    return "memory" if _stirred(before.memory, after.memory) else ""


class Pulse:
    """The judgement of one server over time.

    Args:
        patience: seconds that work may be in hand without a sign of life.
        now: when the watch begins, on the clock of all later times.

    Attributes:
        doubt: why the server is suspect; empty while it is not.
    """

    def __init__(self, patience: float, *, now: float) -> None:
        self.doubt = ""
        self._patience = patience
        self._since = now
        self._before: Vitals | None = None

    def heard(self, now: float) -> None:
        """Something happened that only a server at work does: a message about a prompt."""
        self.doubt, self._since = "", now

    def seen(self, vitals: Vitals, now: float) -> bool:
        """A look has succeeded.

        Returns:
            whether it shows a sign of life.
        """
        before = self._before or vitals
        sign = bool(sign_of_life(before, vitals))
        if sign:
            self.heard(now)
        elif vitals.idle:
            self._since = now  # it has nothing to show; whether a suspect one works is to be tried out
        elif now - self._since >= self._patience:
            self.doubt = _reason(vitals, now - self._since)
        # What has changed slowly has changed, too: compared is with the look at the last sign.
        kept = vitals if sign or vitals.idle else before
        self._before = msgspec.structs.replace(
            kept, newest=kept.newest or vitals.newest, memory=kept.memory or vitals.memory
        )
        return sign


def _reason(vitals: Vitals, seconds: float) -> str:
    head = f"the prompt {min(vitals.running)} runs" if vitals.running else "nothing runs"
    return (
        f"ComfyUI has work in hand ({head}, {vitals.waiting} wait) and has given no sign of life for {seconds:.0f} s: "
        "no message, and no change of its queue, its history or its memory. If its worker thread has died, restart it"
    )


def _stirred(before: Memory | None, after: Memory | None) -> bool:
    if before is None or after is None:
        return False
    if before.own != after.own or len(before.shared) != len(after.shared):
        return True
    return any(
        total > 0 and abs(free - earlier) >= min(total * _SHARE, _MOST)
        for (earlier, _), (free, total) in zip(before.shared, after.shared, strict=True)
    )
