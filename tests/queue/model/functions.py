"""The library's transitions (``emp_trio/queue/functions/*.lua``) as pure functions of a server's state.

Each takes the state and the server's time and returns the next state, the reply, and what is published. Times are
whole numbers in any unit; processes, workers, nonces and tokens are texts as on the wire; jobs are numbered.
Left out is what does not decide where a job is or who may end it: payloads, matching, texts of messages, the slots'
hashes, and keys of wrong types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

SETTLED = frozenset(("completed", "failed", "cancelled", "timeout", "unworkable"))
RUNNING = frozenset(("assigned", "in_progress"))
UNSTARTED = 3
SUSPECT = 2


class Job(NamedTuple):
    """A job's hash, and what the lists say of it. ``''`` and None are what is not there.

    Attributes:
        queued: whether it is in ``jobs:pending``; ``old_score``: with the score that old workers give.
        due, ends: its times in ``emp:delayed`` and ``emp:leases``.
        worker, holder: ``worker_id`` and ``lease_worker``.
        token, settled: ``lease_token`` and ``settled_token``.
        listed: workers whose ``jobs:active`` names it.
        most: attempts in total (``max_retries``).
        life: ``retry_token``, the nonce of its last new life.
    """

    status: str = "pending"
    queued: bool = True
    old_score: bool = False
    due: int | None = None
    ends: int | None = None
    worker: str = ""
    holder: str = ""
    token: str = ""
    settled: str = ""
    listed: tuple[str, ...] = ()
    attempt: int = 0
    retries: int = 0
    most: int = 3
    crashes: int = 0
    charged: tuple[str, ...] = ()
    unstarted: int = 0
    cancelled: bool = False
    life: str = ""


class Server(NamedTuple):
    """What the library keeps of all jobs.

    Attributes:
        heard: when a process spoke last (``emp:heard``), with the ``silence`` and ``pause`` that its reaper gave.
        grace: until when no lease is reaped (``emp:grace``).
        looks: (nonce, time) of each process that looks for what is due (``emp:processes``).
    """

    jobs: tuple[Job, ...] = ()
    heard: int | None = None
    silence: int = 8000
    pause: int = 6000
    grace: int | None = None
    looks: tuple[tuple[str, int], ...] = ()


Said = tuple[tuple[str, int], ...]
"""What is published: (channel, job)."""

Result = tuple[Server, Any, Said]


def process_of(token: str) -> str:
    """The process that a token names, or the empty text."""
    process, dot, _ = token.partition(".")
    return process if dot else ""


def held(job: Job, token: str) -> bool:
    """Whether the token is that of the present lease. Who knows of no leases writes status and worker alone."""
    return job.token == token and job.holder != "" and job.holder == job.worker and job.status in RUNNING


# -- parts of transitions


def put(server: Server, number: int, job: Job) -> Server:
    """The state with another value for one job."""
    jobs = server.jobs
    return server._replace(jobs=(*jobs[:number], job, *jobs[number + 1 :]))


def unlist(job: Job, *workers: str) -> tuple[str, ...]:
    return tuple(worker for worker in job.listed if worker not in workers)


def hold(job: Job, ends: int) -> Job:
    """A lease stands until then."""
    if job.ends is None:
        job = job._replace(queued=False, due=None)
    return job._replace(ends=ends)


def requeue(job: Job, delay: int, now: int) -> Job:
    if delay > 0:
        return job._replace(queued=False, due=now + delay)
    return job._replace(queued=True, old_score=False, due=None)


def put_back(job: Job, now: int) -> Job:
    """Back into the queue without anything having failed."""
    if job.status != "pending":
        job = job._replace(status="pending", worker="", token="")
    return requeue(job, 0, now)


def refund(server: Server, process: str) -> Server:
    """A process speaks: nothing that it is charged with was a crash."""
    if process:
        for number, job in enumerate(server.jobs):
            if process in job.charged and job.status not in SETTLED:
                left = tuple(one for one in job.charged if one != process)
                taken = len(job.charged) - len(left)
                server = put(server, number, job._replace(crashes=max(0, job.crashes - taken), charged=left))
    return server


def hear(server: Server, now: int) -> Server:
    """Somebody of ours speaks. Where nobody did for long, the server was away: holders may renew first."""
    if server.heard is not None and now - server.heard > server.silence:
        server = server._replace(grace=now + max(1, server.pause))
    return server._replace(heard=now)


def grace_left(server: Server, now: int) -> int:
    return max(0, server.grace - now) if server.grace is not None else 0


# -- slots


def claim(server: Server, number: int, worker: str, nonce: str, now: int, lease: int) -> Result:
    """What a claim does that comes upon this pending job, which its worker matches. Replies with the token, with None
    where it takes the job out of the queue, or with the empty text where it leaves it there."""
    job = server.jobs[number]
    running = job.status in RUNNING and job.holder != "" and job.holder == job.worker
    if job.status in SETTLED or (running and job.ends is not None and job.ends > now):
        return put(server, number, job._replace(queued=False)), None, ()
    if job.crashes >= SUSPECT and runs_suspect(server, number, process_of(nonce)):
        return server, "", ()
    token = f"{nonce}/{job.attempt + 1}"
    if job.token:  # somebody put a leased job back
        job = job._replace(listed=unlist(job, job.holder))
    job = job._replace(
        status="assigned",
        worker=worker,
        holder=worker,
        token=token,
        attempt=job.attempt + 1,
        queued=False,
        ends=now + lease,
        listed=tuple(sorted({*job.listed, worker})),
    )
    said = (("job_claimed", number), ("update_job_progress", number), ("worker_status", number))
    return put(server, number, job), token, said


def runs_suspect(server: Server, number: int, process: str) -> bool:
    """Whether a process runs another job that has crashed so often that one more crash may be its end."""
    return process != "" and any(
        other.crashes >= SUSPECT and other.status in RUNNING and process_of(other.token) == process
        for at, other in enumerate(server.jobs)
        if at != number
    )


def taken_before(server: Server, worker: str, nonce: str, now: int, lease: int) -> Result:
    """What a nonce was given in a claim whose reply was not read. Replies with (job, token), or None."""
    for number, job in enumerate(server.jobs):
        ours = job.token.startswith(nonce + "/") and job.holder == worker == job.worker
        if ours and job.status == "assigned" and worker in job.listed:
            return put(server, number, hold(job, now + lease)), (number, job.token), ()
    return server, None, ()


def start(server: Server, number: int, token: str) -> Result:
    """An attempt begins to run. Replies whether it may."""
    job = server.jobs[number]
    if not held(job, token):
        return server, False, ()
    return put(server, number, job._replace(status="in_progress")), True, (("update_job_progress", number),)


def report(server: Server, number: int, token: str) -> Result:
    """Progress of an attempt. Replies whether it holds its lease."""
    ours = held(server.jobs[number], token)
    return server, ours, (("update_job_progress", number),) if ours else ()


def renew(server: Server, leases: Iterable[tuple[int, str]], now: int, lease: int) -> Result:
    """All leases of a process. Replies with {(job, token): 'lost' or 'cancelled'}."""
    gone: dict[tuple[int, str], str] = {}
    for number, token in leases:
        job = server.jobs[number]
        if held(job, token):
            server = put(server, number, hold(job, now + lease))
        elif job.settled != token:
            gone[number, token] = "cancelled" if job.status == "failed" else "lost"
            server = refund(server, process_of(token))
    return server, gone, ()


def settle(server: Server, number: int, token: str, kind: str, count: int, delay: int, now: int) -> Result:
    """End an attempt. Replies 'done', 'repeated' or 'refused'."""
    job = server.jobs[number]
    if job.settled == token:
        return server, "repeated", ()
    if not held(job, token):
        return refund(server, process_of(token)), "refused", ()
    job = job._replace(token="", settled=token, ends=None, listed=unlist(job, job.holder))
    said: Said
    if kind == "completed":
        job, said = job._replace(status="completed"), (("update_job_progress", number), ("complete_job", number))
    elif kind == "failed":
        job, said = job._replace(status="failed", retries=count), (("job_failed", number),)
    else:
        job, said = requeue(job._replace(status="pending", worker=""), delay, now), ()
        if kind == "retry":
            job = job._replace(retries=count, crashes=0, charged=(), unstarted=0)
    return put(server, number, job), "done", (*said, ("worker_status", number))


# -- clients


def submit(server: Server, most: int) -> Result:
    """A new job, the last one."""
    return server._replace(jobs=(*server.jobs, Job(most=most))), "submitted", (("job_submitted", len(server.jobs)),)


def cancel(server: Server, number: int) -> Result:
    """End a job wherever it is. Replies 'cancelled' or 'settled'."""
    job = server.jobs[number]
    if job.status in SETTLED:
        return server, "cancelled" if job.status != "completed" and job.cancelled else "settled", ()
    said = (("cancel_job", number),) if job.worker else ()
    job = job._replace(
        queued=False,
        due=None,
        ends=None,
        listed=unlist(job, job.holder, job.worker),
        status="failed",
        cancelled=True,
        token="",
    )
    return put(server, number, job), "cancelled", (*said, ("job_failed", number))


def retry(server: Server, number: int, nonce: str, now: int) -> Result:
    """A failed job gets a new life. Replies 'queued' or 'refused'."""
    job = server.jobs[number]
    if job.life == nonce:
        return server, "queued", ()
    if job.status != "failed":
        return server, "refused", ()
    job = job._replace(
        status="pending",
        worker="",
        token="",
        retries=0,
        crashes=0,
        charged=(),
        unstarted=0,
        life=nonce,
        cancelled=False,
        ends=None,
        listed=unlist(job, job.holder),
    )
    return put(server, number, requeue(job, 0, now)), "queued", ()


# -- processes


class Reaped(NamedTuple):
    """Reply of a reap: places of jobs."""

    requeued: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    due: tuple[int, ...] = ()


def reap(
    server: Server,
    process: str,
    now: int,
    *,
    max_crashes: int,
    until: int = 0,
    silence: int | None = None,
    pause: int = 0,
) -> Result:
    """Put back, or end, jobs whose lease ran out, and delayed ones that are due."""
    if process:
        looks = dict(server.looks) | {process: now}
        server = hear(server._replace(looks=tuple(sorted(looks.items()))), now)
        if silence is not None:
            server = server._replace(silence=silence, pause=pause)
    if until > 0 and now > until:
        return server, Reaped(), ()
    done: dict[str, list[int]] = {"requeued": [], "failed": [], "due": []}
    said: list[tuple[str, int]] = []
    if grace_left(server, now) == 0:
        for number in _in_order(server.jobs, lambda job: job.ends, now):
            job, end = reap_lease(server.jobs[number], max_crashes, now)
            server = put(server, number, job)
            if end:
                done[end].append(number)
            if end == "failed":
                said.append(("job_failed", number))
    for number in _in_order(server.jobs, lambda job: job.due, now):
        job, back = reap_delayed(server.jobs[number], now)
        server = put(server, number, job)
        if back:
            done["due"].append(number)
    return server, Reaped(*map(tuple, done.values())), tuple(said)


def _in_order(jobs: Sequence[Job], time: Callable[[Job], int | None], now: int) -> list[int]:
    due = [(at, number) for number, job in enumerate(jobs) if (at := time(job)) is not None and at <= now]
    return [number for _, number in sorted(due)]


def reap_lease(job: Job, max_crashes: int, now: int) -> tuple[Job, str]:
    """A lease ran out. Returns 'requeued', 'failed', or '' where the job is somewhere else."""
    if job.status in RUNNING and job.worker and job.holder == job.worker:
        worker = job.worker
        job, failed = end_of_worker(job, max_crashes, counted=not process_of(job.token), now=now)
        return job._replace(listed=unlist(job, worker), ends=None), "failed" if failed else "requeued"
    job = job._replace(listed=unlist(job, job.holder), ends=None)
    if _elsewhere(job):
        return job, ""
    return put_back(job, now), "requeued"


def reap_delayed(job: Job, now: int) -> tuple[Job, bool]:
    """A delay is over. Returns whether the job went back."""
    job = job._replace(due=None)
    return (job, False) if _elsewhere(job) else (put_back(job, now), True)


def _elsewhere(job: Job) -> bool:
    """Whether a job that was taken off a list of ours is anywhere else."""
    listed = job.status in {*RUNNING, "accepted"} and job.worker != "" and job.worker in job.listed
    return job.status in SETTLED or job.queued or job.due is not None or job.ends is not None or listed


def end_of_worker(job: Job, max_crashes: int, *, counted: bool, now: int) -> tuple[Job, bool]:
    """A worker runs a job for the last time. Returns whether the job failed for good."""
    used = int(job.status == "in_progress")
    crashes, count, unstarted = job.crashes + used, job.retries + (counted and used), job.unstarted + 1 - used
    job = job._replace(crashes=crashes, unstarted=unstarted)
    never = not used and unstarted >= max_crashes * UNSTARTED
    if never or (used and (crashes >= max_crashes or (counted and count >= job.most))):
        return job._replace(status="failed", retries=count, token=""), True
    if used and (process := process_of(job.token)):
        job = job._replace(charged=(*job.charged, process))
    job = job._replace(status="pending", worker="", token="", retries=count)
    return requeue(job, 0, now), False


def alive(server: Server, process: str, now: int) -> Result:
    """A process is alive."""
    return refund(hear(server, now), process), None, ()


def ended(server: Server, process: str) -> Result:
    """A process has ended in good order."""
    return refund(server, process)._replace(heard=None, silence=8000, pause=6000), None, ()


def depart(server: Server, process: str, now: int, speaks: int, *, in_doubt: bool = False) -> Result:
    """A process goes, or somebody looks: delayed jobs go back where nobody else looks after them. Replies with (places
    of those, when another process looked or 0)."""
    looks = tuple((n, at) for n, at in server.looks if n != process and abs(now - at) < speaks)
    server = server._replace(looks=looks)
    looked = max((at for _, at in looks), default=0)
    back: list[int] = []
    if looked == 0 or in_doubt:
        for number in _in_order(server.jobs, lambda job: job.due, 1 << 62):
            job, went = reap_delayed(server.jobs[number], now)
            server = put(server, number, job)
            if went:
                back.append(number)
    return server, (tuple(back), looked), ()


# -- others, who know nothing of leases (queue protocol 3.3, 4.6, 4.7, 4.8)


def api_cancel(server: Server, number: int) -> Server:
    """The API cancels, and publishes no outcome."""
    job = server.jobs[number]
    if job.status in ("completed", "failed"):
        return server
    queued = job.queued and job.status != "pending"
    return put(server, number, job._replace(status="failed", listed=unlist(job, job.worker), queued=queued))


def foreign_put_back(server: Server, number: int, **also: Any) -> Server:
    """The API puts back a job of a worker that it thinks gone, or an old worker one that failed."""
    job = server.jobs[number]._replace(status="pending", worker="", queued=True, old_score=True, **also)
    return put(server, number, job)


def old_claim(server: Server, number: int, worker: str) -> Server:
    """A worker of the fleet claims."""
    job = server.jobs[number]
    listed = tuple(sorted({*job.listed, worker}))
    return put(server, number, job._replace(status="assigned", worker=worker, queued=False, listed=listed))


def old_end(server: Server, number: int, worker: str, status: str) -> Server:
    """... and completes or fails it."""
    job = server.jobs[number]
    return put(server, number, job._replace(status=status, listed=unlist(job, worker)))
