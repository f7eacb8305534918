"""Every error of emp-trio. Fields are for code, the text is for people.

::

    EmpTrioError
    ├─ ConfigError            the mapping, the environment or the command line is wrong (operator)
    │  └─ MachineIdInUse      another live process has slots of the same ids
    ├─ QueueError             Redis or the state of a job in it
    │  ├─ NotSent             the command never left this process: safe to repeat
    │  ├─ OutcomeUnknown      the command was sent and its reply was lost: repeat only what is safe to repeat
    │  ├─ ServerRefused       the server answered with an error (code, text)
    │  └─ LeaseLost           another holder, or nobody, owns the job now
    ├─ InvalidJob             the job itself is wrong (submitter)
    ├─ InputUnavailable       a file that the job points to can't be had for now: its server failed, not the service
    ├─ ServiceError           the service failed, or could not be reached (status, code, retry_after, request_id)
    │  ├─ Refused             the service declines this request by policy; never retried
    │  └─ NotStarted          the service has begun nothing, and can't for now: the job goes back without an attempt
    ├─ AssetError             storage or CDN (paid says whether the generation has been paid for)
    └─ DeadlineExceeded       a stage of the attempt ran out of time (stage)

Each error knows its failure class and whether another attempt makes sense (:attr:`EmpTrioError.failure`);
:func:`failure_of` gives the class of any exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec

from emp_trio.failures import Failure, FailureType, classify_status

Stage = Literal["claim", "service", "upload", "cdn", "settle"]


class EmpTrioError(Exception):
    """Base of all errors of emp-trio.

    Args:
        message: what is wrong, where, and what to do about it.
        type, reason: failure class, where it is not that of the error's kind.
        retry: whether another attempt can succeed, where it is not that of the error's kind.
        retry_after: seconds to wait before another attempt, when somebody stated a wait.
    """

    default_type: ClassVar[FailureType] = "system_error"
    default_reason: ClassVar[str] = "internal_error"
    default_retry: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        type: FailureType | None = None,
        reason: str | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.type: FailureType = type or self.default_type
        self.reason = reason or self.default_reason
        self.retry = self.default_retry if retry is None else retry
        self.retry_after = retry_after

    @property
    def failure(self) -> Failure:
        """The failure class of this error."""
        return Failure(
            type=self.type, reason=self.reason, message=self.message, retry=self.retry, retry_after=self.retry_after
        )


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with the configuration: where, what, and what to do.

    ``path`` is a JSON path into the mapping (``$.services["openai-image"].api_config.timeout``) or a name such as
    ``WORKERS``; ``column`` counts from 1 inside the value; ``variable`` is the environment variable concerned.
    """

    path: str
    message: str
    hint: str = ""
    column: int | None = None
    variable: str | None = None
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = self.path + (f" column {self.column}" if self.column is not None else "")
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(EmpTrioError):
    """The configuration can't be used; ``problems`` lists everything that is wrong with it."""

    default_reason = "config_error"
    default_retry = False

    def __init__(self, message: str, *, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([message, *(f"  {p}" for p in self.problems)]))


class MachineIdInUse(ConfigError):
    """Another live process has slots of the same ids; this one hands its jobs back and leaves."""


class QueueError(EmpTrioError):
    """Redis, or the state of a job in it, is not what was needed."""

    default_type = "service_error"
    default_reason = "service_unavailable"


class NotSent(QueueError):
    """The command never left this process; repeating it is safe."""


class OutcomeUnknown(QueueError):
    """The command was sent and the connection ended before its reply; only repeat what is safe to repeat."""


class ServerRefused(QueueError):
    """The server answered with an error. ``code`` is the first word of its text (``OOM``, ``NOAUTH``, ...)."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class LeaseLost(QueueError):
    """The lease of this attempt is gone: expired, given to another slot, or the job was cancelled."""


class InvalidJob(EmpTrioError):
    """The job itself can't be run as submitted."""

    default_type = "validation_error"
    default_reason = "invalid_payload"
    default_retry = False


class InputUnavailable(EmpTrioError):
    """The server of an input file failed or could not be reached. That says nothing about the connector's service."""

    default_type = "network_error"
    default_reason = "connection_failed"


class ServiceError(EmpTrioError):
    """A service failed or could not be reached.

    Args:
        status: HTTP status, when there was one; decides the class unless type and reason are given.
        code: the service's own error code.
        param: the part of the request that the service objects to.
        request_id: the service's id of the call, for its support.
        maybe_started: the service may have started (and billed) the work although no answer came.
    """

    default_type: ClassVar[FailureType] = "service_error"
    default_reason: ClassVar[str] = "service_down"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        maybe_started: bool = False,
        type: FailureType | None = None,
        reason: str | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        if status is not None and type is None:
            status_type, status_reason, status_retry = classify_status(status)
            type = status_type  # noqa: A001
            reason = reason or status_reason
            retry = status_retry if retry is None else retry
        super().__init__(message, type=type, reason=reason, retry=retry, retry_after=retry_after)
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.maybe_started = maybe_started


class Refused(ServiceError):
    """The service declines this request by policy, in its own words. Final: never retried, never tried another way."""

    default_type = "generation_refusal"
    default_reason = "policy_violation"
    default_retry = False

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(
            message,
            type="generation_refusal",
            reason=reason or "policy_violation",
            retry=False,
            status=status,
            code=code,
            request_id=request_id,
        )


class NotStarted(ServiceError):
    """The service has not begun the work, as is known for sure, and can't for now. The job goes back into its queue,
    for any machine, and no attempt is counted; ``retry_after`` is how long it is kept from all of them."""

    default_reason = "service_unavailable"


class AssetError(EmpTrioError):
    """Saving an asset failed. ``paid`` is true when the generation itself had already succeeded."""

    default_type = "service_error"
    default_reason = "service_unavailable"

    def __init__(
        self,
        message: str,
        *,
        paid: bool = True,
        type: FailureType | None = None,
        reason: str | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, type=type, reason=reason, retry=retry, retry_after=retry_after)
        self.paid = paid


class DeadlineExceeded(EmpTrioError):
    """A stage of the attempt ran out of time.

    ``stage`` is its name, ``seconds`` how long it had, ``detail`` what it was waiting for where somebody can say.
    """

    default_type = "timeout"
    default_reason = "job_timeout"

    def __init__(self, stage: Stage, seconds: float, detail: str = "") -> None:
        text = f"the {stage} stage did not finish within its {seconds:.3g} s"
        super().__init__(f"{text}: {detail}" if detail else text, reason="processing_timeout")
        self.stage = stage
        self.seconds = seconds
        self.detail = detail


def failure_of(error: BaseException) -> Failure:
    """The failure class of any exception; an error that is not ours is an internal error worth another attempt."""
    if isinstance(error, EmpTrioError):
        return error.failure
    if isinstance(error, MemoryError):
        return Failure(type="resource_limit", reason="out_of_memory", message="out of memory", retry=True)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Failure(type="system_error", reason="internal_error", message=text, retry=True)
