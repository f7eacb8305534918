"""The worker's calls of the queue: claim, start, progress, settle, renew, reap and the like.

Each is one call of a library function, fenced by the lease token and safe to repeat with it;
:meth:`WorkerQueue.retry_until_accepted` repeats until the caller's cancel scope ends.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

import msgspec
import trio

from emp_trio.errors import EmpTrioError, LeaseLost, NotSent, OutcomeUnknown, ServerRefused
from emp_trio.queue import library
from emp_trio.queue.port import RedisPort
from emp_trio.queue.refusals import PASSING
from emp_trio.queue.settlement import Settlement

T = TypeVar("T")
_LONG: Final = frozenset({"payload", "ctx", "checkpoint"})  # fields that may be long; no other is read when it is
_KEPT: Final = 1.0  # seconds for which the list of completed jobs need not be kept for a day anew
_SCAN_BUDGET: Final = 512  # pending ids one claim call looks at; about 2 ms of Redis time where none of them fits


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One claimed job: the slot it is for, its lease token and its hash as it was before the claim.

    ``left_out`` names fields that are too long for the answer to a claim; :meth:`WorkerQueue.whole` reads them.
    """

    worker_id: str
    token: str
    job_id: str
    fields: dict[str, bytes]
    left_out: tuple[str, ...] = ()

    @property
    def announced(self) -> bool:
        """Whether its submitter announced it in the very moment in which it was queued (``emp_trio_submit``)."""
        return bool(self.fields.get("submit_token"))

    @property
    def failed_before(self) -> bool:
        """Whether its hash speaks of a failed attempt, or may do so."""
        found = self.fields
        return (
            "error" in found
            or "failure_type" in found
            or "failure_reason" in found
            or "failed_at" in found
            or bool(self.left_out)
        )

    @property
    def attempt(self) -> int:
        """Number of this claim, which the token carries."""
        number = self.token.rpartition("/")[2]
        return int(number) if number.isascii() and number.isdigit() and len(number) < 16 else 1


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a claim. ``next_rank`` is where to go on looking, or None when the queue has been seen to its end;
    ``at`` is Redis' time of the claim in seconds since the epoch."""

    jobs: tuple[Claim, ...]
    dropped: tuple[tuple[str, str], ...] = ()
    next_rank: int | None = None
    at: float = 0.0


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """What a reap did. ``next_due`` is the number of seconds until there is something to do again, or None;
    ``broken`` lists jobs whose keys could not be handled, with the error; ``at`` is the server's time in ms."""

    requeued: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    due: tuple[str, ...]
    next_due: float | None
    broken: tuple[tuple[str, str], ...] = ()
    at: int = 0


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of us in the queue where a process goes, or for somebody who looks at it once.

    Attributes:
        back: delayed jobs that were put back into the queue before their time, because nobody looks after them.
        delayed: how many delayed jobs are left.
        leased: how many leases are left, and ``ends`` in how many seconds the last of them does.
        last_end: the server's time in ms at which the last lease ends, or 0.
        looked: the server's time in ms at which another process looked for what is due, or None where there is none.
    """

    back: tuple[str, ...]
    delayed: int
    leased: int
    ends: float
    last_end: int
    looked: int | None

    def lived_after(self, first: Departure) -> bool:
        """Whether some process was certainly alive after an earlier look: it has looked for what is due, or a lease was
        given or renewed. Just after a kill nothing else tells a process from a dead one."""
        return (self.looked or 0) > (first.looked or 0) or self.last_end > first.last_end > 0


class LeaseRef(msgspec.Struct, frozen=True):
    """A job and the token of its lease."""

    job_id: str
    token: str


class Durable(Protocol):
    """Says when what was written before is durable (:class:`emp_trio.queue.durable.DurableWrites`)."""

    def when_durable(self, done: Callable[[EmpTrioError | None], None]) -> None:
        """Have ``done`` called with None, or with why that is not known."""

    async def wait(self) -> None:
        """Wait until it is. Raises OutcomeUnknown."""


class WorkerQueue:
    """The worker's side of the queue.

    Args:
        port: the Redis connection.
        pause: seconds between repeats in :meth:`retry_until_accepted`.
        durable: where given, an outcome counts as stored only when that says so.
    """

    def __init__(self, port: RedisPort, *, pause: float = 0.1, durable: Durable | None = None) -> None:
        self._durable = durable
        self.port = port
        self._pause = pause
        self._text, _ = library.source()
        self._kept_until = -math.inf

    async def function(
        self, name: str, *args: str | bytes | int, on_orphan: Callable[[Any], None] | None = None
    ) -> Any:
        """Call a library function; one that the server has lost is loaded again first. Raises as ``RedisPort.call``."""
        try:
            return await self.port.call("FCALL", f"{library.NAME}_{name}", 0, *args, on_orphan=on_orphan)
        except ServerRefused as refusal:
            if not _library_is_lost(refusal):
                raise
        await library.load(self.port, self._text)
        return await self.port.call("FCALL", f"{library.NAME}_{name}", 0, *args, on_orphan=on_orphan)

    async def retry_until_accepted(self, call: Callable[[], Awaitable[T]], *, patience: float = math.inf) -> T:
        """Repeat a call that is safe to repeat until Redis takes it.

        Args:
            patience: seconds after which the last error is raised; by default only the caller's cancel scope ends it.

        Raises:
            ServerRefused: for a reason that will not pass by itself.
            NotSent, OutcomeUnknown, ServerRefused: after the patience.
        """
        end = trio.current_time() + patience
        while True:
            try:
                return await call()
            except (NotSent, OutcomeUnknown):
                if trio.current_time() >= end:
                    raise
            except ServerRefused as refusal:
                passes = refusal.code in PASSING or _library_is_lost(refusal)  # flushed again after it was loaded
                if not passes or trio.current_time() >= end:
                    raise
            await trio.sleep(self._pause * random.uniform(0.5, 1.5))

    async def claim(
        self,
        capabilities: bytes,
        machine_id: str,
        slots: Sequence[tuple[str, str]],
        *,
        lease: float,
        rank: int = 0,
        repeated: bool = False,
        quiet: bool = False,
        on_orphan: Callable[[Claims], None] | None = None,
    ) -> Claims:
        """Claim up to one job per slot, best first.

        Args:
            capabilities: JSON of the worker type (queue protocol 4.3).
            slots: (worker id, nonce) of each free slot; the nonce becomes part of the lease token.
            lease: seconds.
            rank: where in the queue to begin.
            repeated: this very call was sent before and its outcome is unknown: what it got is returned again.
            quiet: publish nothing of jobs that their submitter may not have announced yet (:attr:`Claim.announced`);
                they are started by :meth:`begin`.
            on_orphan: gets the claims of a cancelled call, to hand them back.

        Raises:
            NotSent, OutcomeUnknown, ServerRefused: as ``RedisPort.call``; after OutcomeUnknown use ``repeated``.
        """
        flat = [part for slot in slots for part in slot]
        reply = await self.function(
            "claim",
            capabilities,
            machine_id,
            _ms(lease),
            rank,
            _SCAN_BUDGET,
            repeated + 2 * quiet,
            *flat,
            on_orphan=(lambda raw: on_orphan(_claims(raw))) if on_orphan else None,
        )
        return _claims(reply)

    async def whole(self, claim: Claim) -> Claim:
        """The claim with the fields that were too long for its answer. Raises as ``RedisPort.call``."""
        names = [name for name in claim.left_out if name in _LONG]
        if not names:
            return claim
        values = await self.port.call("HMGET", f"job:{claim.job_id}", *names)
        read = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        return msgspec.structs.replace(claim, fields=claim.fields | read, left_out=())

    def start(self, leases: Sequence[LeaseRef], machine_id: str, on_refused: Callable[[], None]) -> None:
        """Mark attempts as running, without waiting for Redis.

        Args:
            machine_id: the machine when it reports to an aggregator (unified mode), else the empty text.
            on_refused: called unless all of them are known to have been marked.
        """

        def replied(reply: Any) -> None:
            if reply != []:
                on_refused()

        args = [part for ref in leases for part in (ref.job_id, ref.token)]
        self.port.post("FCALL", f"{library.NAME}_start", 0, machine_id, *args, on_reply=replied)

    def begin(
        self,
        leases: Sequence[LeaseRef],
        machine_id: str,
        on_refused: Callable[[], None],
        *,
        what: Literal["mark", "tell", "both"],
        unified: bool = False,
    ) -> None:
        """Start attempts of which their (quiet) claim published nothing, without waiting for Redis.

        Args:
            on_refused: called unless all of them are known to be held.
            what: ``mark`` them as running, ``tell`` the fleet that they were claimed and run, or ``both``.
            unified: whether an aggregator reports the machine.
        """

        def replied(reply: Any) -> None:
            if reply != []:
                on_refused()

        args = [part for ref in leases for part in (ref.job_id, ref.token)]
        flag = "1" if unified else "0"
        self.port.post("FCALL", f"{library.NAME}_begin", 0, machine_id, flag, what, *args, on_reply=replied)

    async def progress(self, reports: Iterable[tuple[LeaseRef, float, str, str, int]]) -> list[str]:
        """Publish progress of several jobs, (lease, percent, message, step, total steps) each.

        Returns:
            ids whose lease is gone.
        """
        return [_str(job_id) for job_id in await self.function("progress", *_progress_arguments(reports))]

    def progress_soon(self, reports: Iterable[tuple[LeaseRef, float, str, str, int]]) -> None:
        """Publish progress without waiting for Redis, nor for whether it took it; see :meth:`progress`."""
        arguments = _progress_arguments(reports)
        self.port.post("FCALL", f"{library.NAME}_progress", 0, *arguments, on_reply=lambda reply: None)

    async def save_checkpoint(self, lease: LeaseRef, checkpoint: bytes) -> None:
        """Store a checkpoint (JSON) with the job. Raises LeaseLost."""
        if not await self.function("remember", lease.job_id, lease.token, checkpoint):
            raise LeaseLost(f"job {lease.job_id}: the lease is gone")

    async def settle(self, lease: LeaseRef, machine_id: str, settlement: Settlement, *, unified: bool = False) -> bool:
        """End the attempt.

        Args:
            unified: whether an aggregator reports the machine (queue protocol 2.8).

        Returns:
            False, with nothing changed or published, where the lease is not held any more.
        """
        reply = await self.function("settle", *_settle_arguments(lease, machine_id, settlement, int(unified)))
        stored = bool(reply[0] == 1)
        if stored and self._durable is not None:
            await self._durable.wait()
        return stored

    def settle_soon(
        self,
        lease: LeaseRef,
        machine_id: str,
        settlement: Settlement,
        on_reply: Callable[[bool], None],
        *,
        unified: bool = False,
        failed_before: bool = True,
    ) -> None:
        """End the attempt without waiting for Redis; see :meth:`settle`.

        Args:
            on_reply: told whether the outcome is stored; if not, :meth:`settle` is to find out why.
            failed_before: what :attr:`Claim.failed_before` says: a job that completes speaks of no failure any more.
        """
        sent = trio.current_time()
        kept = sent < self._kept_until

        def replied(reply: Any) -> None:
            stored = isinstance(reply, list) and reply[0] == 1
            if stored and not kept and settlement.kind == "completed":
                self._kept_until = sent + _KEPT
            if stored and self._durable is not None:
                self._durable.when_durable(lambda error: on_reply(error is None))
            else:
                on_reply(stored)

        arguments = _settle_arguments(lease, machine_id, settlement, unified + 2 * (not failed_before) + 4 * kept)
        self.port.post("FCALL", f"{library.NAME}_settle", 0, *arguments, on_reply=replied)

    async def renew(self, leases: Sequence[LeaseRef], *, lease: float) -> dict[str, str]:
        """Renew leases for ``lease`` more seconds. Returns job id -> ``lost`` or ``cancelled`` for those not held."""
        args = [part for ref in leases for part in (ref.job_id, ref.token)]
        reply = await self.function("renew", _ms(lease), *args)
        return {_str(job_id): _str(why) for job_id, why in reply}

    async def reap(
        self,
        *,
        process: str = "",
        most: int = 100,
        max_crashes: int = 3,
        until: int = 0,
        silence: float = 0.0,
        grace: float = 0.0,
    ) -> Reaped:
        """Requeue (or fail) up to ``most`` jobs whose lease ran out, and up to as many delayed ones that are due.

        Args:
            process: nonce of a process that does this again and again: the others know by it that they are not alone.
            until: the server's time in ms after which this call does nothing: it was under way while the server stood
                still. 0 for none.
            silence: seconds without a word of any process that mean that the server was away.
            grace: seconds that the holders of leases then have to renew them.
        """
        reply = await self.function("reap", most, max_crashes, process, until, _ms(silence), _ms(grace))
        next_ms, requeued, failed, due, broken, at = reply
        return Reaped(
            at=at,
            requeued=tuple(map(_str, requeued)),
            failed=tuple((_str(job_id), _str(why)) for job_id, why in failed),
            due=tuple(map(_str, due)),
            next_due=None if next_ms < 0 else next_ms / 1000,
            broken=tuple((_str(job_id), _str(why)) for job_id, why in broken),
        )

    async def depart(self, process: str = "", *, most: int = 100, in_doubt: bool = False) -> Departure:
        """A process goes: where no other one looks after delayed jobs, up to ``most`` of them go back to the queue now,
        since nobody else in the fleet would ever put them there.

        Args:
            process: its nonce; empty for somebody who is none and only looks.
            in_doubt: put them back although another process seems to be there.
        """
        back, delayed, leased, last_end, looked, now = await self.function("depart", process, most, int(in_doubt))
        return Departure(
            back=tuple(map(_str, back)),
            delayed=delayed,
            leased=leased,
            ends=max(0, last_end - now) / 1000,
            last_end=last_end,
            looked=looked or None,
        )

    async def heartbeat(
        self,
        machine_id: str,
        *,
        connected_at: str,
        fresh: bool,
        statuses: bytes,
        capabilities: bytes,
        slots: bytes,
        messages: Iterable[tuple[str, bytes]],
    ) -> list[str]:
        """Register slots or keep them alive; see ``functions/fleet.lua`` for the arguments' JSON.

        Returns:
            ids of jobs that other workers of the same ids left behind.
        """
        flat = [part for message in messages for part in message]
        reply = await self.function(
            "beat", machine_id, connected_at, "1" if fresh else "0", statuses, capabilities, slots, *flat
        )
        return [_str(job_id) for job_id in reply]

    def publish_soon(self, channel: str, message: bytes) -> None:
        """Publish without waiting for Redis, nor for whether it took it."""
        self.port.post("PUBLISH", channel, message, on_reply=lambda reply: None)

    async def age(self, worker_ids: Sequence[str]) -> None:
        """Let what others write about slots that are gone expire."""
        await self.function("age", *worker_ids)

    async def deregister(
        self, worker_ids: Sequence[str], messages: Iterable[tuple[str, bytes]], *, process: str = ""
    ) -> None:
        """Take slots out of the fleet's lists, but for those that another process has taken over.

        Args:
            process: nonce of the process that leaves.
        """
        flat = [part for message in messages for part in message]
        await self.function("leave", process, len(worker_ids), *worker_ids, *flat)


def _progress_arguments(reports: Iterable[tuple[LeaseRef, float, str, str, int]]) -> list[str]:
    args: list[str] = []
    for lease, value, message, step, total in reports:
        args += [lease.job_id, lease.token, f"{value:g}", _unicode(message), _unicode(step), str(total)]
    return args


def _settle_arguments(lease: LeaseRef, machine_id: str, settlement: Settlement, how: int) -> list[str | bytes | int]:
    failure, (message, step, total) = settlement.failure, settlement.last_progress
    return [
        lease.job_id,
        lease.token,
        machine_id,
        settlement.kind,
        settlement.retry_count,
        _ms(settlement.delay),
        failure.message if failure else _unicode(message),
        failure.type if failure else _unicode(step),
        failure.reason if failure else total,
        settlement.stored,
        settlement.message,
        how,
        *(part for record in settlement.records for part in record),
    ]


def _claims(reply: Any) -> Claims:
    next_rank, at_ms, jobs, dropped = reply
    return Claims(
        jobs=tuple(
            Claim(
                worker_id=_str(worker),
                token=_str(token),
                job_id=_str(job_id),
                fields=dict(zip(map(_field, flat[::2]), flat[1::2], strict=True)),
                left_out=tuple(map(_str, left)) if left else (),
            )
            for worker, token, job_id, flat, left in jobs
        ),
        dropped=tuple((_str(job_id), _str(why)) for job_id, why in dropped),
        next_rank=next_rank if next_rank >= 0 else None,
        at=at_ms / 1000,
    )


def _library_is_lost(refusal: ServerRefused) -> bool:
    return "Function not found" in refusal.message


def _unicode(text: str) -> str:
    """The text with ? in place of lone surrogates, which JSON of a service may bring and which Redis can't be sent."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _str(value: bytes) -> str:
    return value.decode("utf-8", "replace")


_field: Final = functools.lru_cache(64)(_str)  # every job has the same ones


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
