"""All errors of emp-trio. Branch on their fields; the text is for people.

::

    EmpTrioError
    ├─ ConfigError            the mapping, the environment or the command line is wrong (operator)
    │  └─ MachineIdInUse      another live process has slots of the same ids
    ├─ QueueError             Redis or the state of a job in it
    │  ├─ NotSent             the command never left this process: safe to repeat
    │  ├─ OutcomeUnknown      the command was sent and its reply was lost: repeat only idempotent commands
    │  ├─ ServerRefused       the server answered with an error (code, text)
    │  └─ LeaseLost           another holder, or nobody, owns the job now
    ├─ InvalidJob             the job itself is wrong (submitter)
    ├─ InputUnavailable       an input file of the job is not available now: its server failed, not the service
    ├─ ServiceError           the service failed, or could not be reached (status, code, retry_after, request_id)
    │  ├─ Refused             the service declines this request by policy; never retried
    │  └─ NotStarted          the service can't start the work now: the job is requeued, no attempt is counted
    ├─ AssetError             storage or CDN (paid: the generation had succeeded already)
    └─ DeadlineExceeded       a stage of the attempt ran out of time (stage)

:attr:`EmpTrioError.failure` has the failure class of an error, and whether to retry; :func:`failure_of` returns it for
any exception.
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
        type, reason: failure class; None for the default of the error class.
        retry: whether another attempt can succeed; None for the default of the error class.
        retry_after: minimum seconds before another attempt, if the service stated them.
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
    """One problem of the configuration: path, message and hint.

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
    """The configuration is invalid; ``problems`` lists all errors."""

    default_reason = "config_error"
    default_retry = False

    def __init__(self, message: str, *, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([message, *(f"  {p}" for p in self.problems)]))


class MachineIdInUse(ConfigError):
    """Another live process has slots with the same ids; this process requeues its jobs and exits."""


class QueueError(EmpTrioError):
    """Redis failed, or the job is not in the required state."""

    default_type = "service_error"
    default_reason = "service_unavailable"


class NotSent(QueueError):
    """The command never left this process; repeating it is safe."""


class OutcomeUnknown(QueueError):
    """The connection ended after the command was sent and before its reply; repeat only idempotent commands."""


class ServerRefused(QueueError):
    """The server answered with an error. ``code`` is the first word of its text (``OOM``, ``NOAUTH``, ...)."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class LeaseLost(QueueError):
    """The lease of this attempt expired or went to another slot, or the job was cancelled."""


class InvalidJob(EmpTrioError):
    """The job itself can't be run as submitted."""

    default_type = "validation_error"
    default_reason = "invalid_payload"
    default_retry = False


class InputUnavailable(EmpTrioError):
    """The server of an input file failed or could not be reached. The connector's service may be healthy."""

    default_type = "network_error"
    default_reason = "connection_failed"


class ServiceError(EmpTrioError):
    """A service failed or could not be reached.

    Args:
        status: HTTP status, or None. Determines the failure class unless type and reason are given.
        code: error code of the service.
        param: part of the request that the service rejects.
        request_id: the service's id of the call, for its support.
        maybe_started: whether the service may have started (and billed) the work without a response.
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
    """The service refused this request by policy; the message quotes it. Never retried, nor tried another way."""

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
    """The service has certainly not started the work, and can't now.

    The job is requeued for any machine without counting an attempt, after ``retry_after`` seconds.
    """

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

    ``stage`` is its name, ``seconds`` its limit, ``detail`` the operation it waited for, if known.
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
    """Return the failure class of any exception. A foreign exception is an internal error and is retried."""
    if isinstance(error, EmpTrioError):
        return error.failure
    if isinstance(error, MemoryError):
        return Failure(type="resource_limit", reason="out_of_memory", message="out of memory", retry=True)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Failure(type="system_error", reason="internal_error", message=text, retry=True)
