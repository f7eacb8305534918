"""Structs of a job with the fleet's wire names: Job, JobContext (``ctx``), Progress, JobResult.

Sources: queue protocol, sections 1.3 (job hash), 5.2 (ctx), 5.3 (result), 5.4 (progress).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from emp_trio.secrets import Secret

_MOST_RERUNS: Final = 10**9  # a larger number is not a count


class JobContext(msgspec.Struct, frozen=True, kw_only=True):
    """Storage context of a job (``ctx``), in the fleet's order of precedence (queue protocol 5.2).

    Empty values count as absent. ``account_key`` is the only secret that may be in a job hash. ``overwrite``
    (emp-trio's own field, ``true`` in JSON) lets an asset replace the one of another job with the same name.
    ``unusable`` is the error message if ``ctx`` is not a JSON object; only jobs that store something fail with it.
    """

    provider: str | None = None
    bucket: str | None = None
    prefix: str | None = None
    filename: str | None = None
    cdn_url: str | None = None
    account_name: str | None = None
    account_key: Secret | None = None
    workflow_attempt: int = 0
    overwrite: bool = False
    unusable: str | None = None

    @staticmethod
    def from_wire(ctx: dict[str, Any], payload_ctx: dict[str, Any] | None = None, *, given: Any = None) -> JobContext:
        """Build from a ``ctx`` object. Values of an unexpected type count as absent.

        Args:
            ctx: ``ctx`` object of the job.
            payload_ctx: ``payload.ctx``, used only for the retry number.
            given: value of ``ctx`` if it is not an object.
        """
        if not ctx and not payload_ctx and given is None:
            return _NO_CONTEXT
        storage = ctx.get("storage")
        storage = storage if isinstance(storage, dict) else {}

        def text(*candidates: Any) -> str | None:
            for candidate in candidates:  # a loop, because every job runs it
                if candidate and isinstance(candidate, str):
                    return candidate
            return None

        key = text(storage.get("accountKey"), storage.get("storageKey"), ctx.get("storageKey"), ctx.get("accountKey"))
        return JobContext(
            provider=text(storage.get("provider"), ctx.get("provider")),
            bucket=text(storage.get("bucket"), ctx.get("bucket")),
            prefix=text(ctx.get("prefix"), storage.get("prefix")),
            filename=text(ctx.get("filename")),
            cdn_url=text(storage.get("cdnUrl"), ctx.get("cdnUrl")),
            account_name=text(
                storage.get("accountName"),
                storage.get("storageAccount"),
                ctx.get("storageAccount"),
                ctx.get("accountName"),
            ),
            account_key=Secret(key) if key else None,
            workflow_attempt=_workflow_attempt(ctx, payload_ctx or {}),
            overwrite=ctx.get("overwrite") is True,
            unusable=None if given is None else not_an_object("ctx", given),
        )


_NO_CONTEXT: Final = JobContext()


def not_an_object(name: str, value: Any) -> str:
    """Return the error message for a field that must be a JSON object."""
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return f"{name} must be a JSON object, not {kinds.get(type(value), 'a number')}"


def _workflow_attempt(ctx: dict[str, Any], payload_ctx: dict[str, Any]) -> int:
    """Return the first valid of the fleet's fields for the workflow-level retry number (queue protocol 1.8)."""
    workflow = ctx.get("workflow_context")
    workflow = workflow if isinstance(workflow, dict) else {}
    for value in (
        workflow.get("retry_attempt"),
        ctx.get("retry_count"),
        ctx.get("retryCount"),
        payload_ctx.get("retry_count"),
        payload_ctx.get("retryCount"),
    ):
        try:
            number = int(value or 0)
        except (TypeError, ValueError, OverflowError):
            continue
        if 0 < number <= _MOST_RERUNS:
            return number
    return 0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as seen by one attempt.

    Attributes:
        id: job id.
        type: job type, ``service_required`` on the wire.
        payload: input for the service; empty if the payload is not a JSON object.
        bare_payload: payload that is not a JSON object (a list, a text, a number), else None. Only connectors with
            ``Connector.takes_any_payload`` get such jobs.
        ctx: storage context of the results.
        requirements: requirements on the worker.
        attempt: number of this claim, from 1; increases with every claim.
        retry_count: number of failed attempts so far.
        max_attempts: maximum number of attempts (``max_retries`` on the wire, queue protocol 4.7).
        checkpoint: data of ``AttemptContext.save_checkpoint`` in an earlier attempt, or None.
        deadline: time (seconds since the epoch) after which a result is useless, or None.
    """

    id: str
    type: str
    payload: dict[str, Any] = msgspec.field(default_factory=dict)
    bare_payload: Any = None
    ctx: JobContext = JobContext()
    requirements: dict[str, Any] | None = None
    priority: int = 50
    attempt: int = 1
    retry_count: int = 0
    max_attempts: int = 3
    created_at: str = ""
    customer_id: str | None = None
    workflow_id: str | None = None
    workflow_priority: int | None = None
    workflow_datetime: int | None = None
    current_step: int | None = None
    total_steps: int | None = None
    checkpoint: dict[str, Any] | None = None
    deadline: float | None = None

    @property
    def sent_payload(self) -> Any:
        """Return the payload to send to a service: without the copy of ``ctx``, which may contain credentials."""
        if self.bare_payload is not None:
            return self.bare_payload
        return {name: value for name, value in self.payload.items() if name != "ctx"}

    @property
    def last_attempt(self) -> bool:
        """Return whether a failure of this attempt is final."""
        return self.retry_count + 1 >= self.max_attempts


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a job. ``value`` is a percentage (0 to 100), ``step`` free text. Redis gets only these fields."""

    value: float
    message: str = ""
    step: str = ""
    total_steps: int = 0


class OutputFile(msgspec.Struct, frozen=True, kw_only=True):
    """Entry of ``output_files``; consumers read ``metadata.cdn_url``."""

    filename: str
    path: str
    type: str
    size_bytes: int
    mime_type: str
    metadata: dict[str, Any]


class JobResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result of a successful attempt (queue protocol 5.3). Never contains file content.

    Attributes:
        data: connector-specific; consumers read ``image_url``, ``mime_type``, ``content_type``, ``text``.
        processing_time_ms: milliseconds, set by the worker.
        output_files: saved assets.
        service_metadata: ``service_version``, ``service_type``, ``service_job_id``, ``model_used``, usage.
        raw_request_payload: request to the service, without secrets and file content.
    """

    success: bool
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    error: str | None = None
    processing_time_ms: int | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    output_files: tuple[OutputFile, ...] = ()
    service_metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    raw_request_payload: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.success, bool) or not isinstance(self.data, dict):
            raise TypeError("JobResult needs success: bool and data: dict")


class SavedAsset(msgspec.Struct, frozen=True, kw_only=True):
    """A stored asset. ``cdn_url`` equals ``file_url`` without a CDN."""

    file_path: str
    file_name: str
    file_url: str
    cdn_url: str
    media_type: str
    size: int
    sha256: str

    @property
    def inline(self) -> bool:
        """Return whether the asset is stored only in its data URL."""
        return self.cdn_url.startswith("data:")

    def output_file(self) -> OutputFile:
        """Return the entry for ``JobResult.output_files``. An inline asset's content is in ``JobResult.data`` only."""
        word = self.media_type.split("/", 1)[0]
        return OutputFile(
            filename=self.file_name,
            path=self.file_path,
            type=word if word in ("image", "video", "audio", "text") else "binary",
            size_bytes=self.size,
            mime_type=self.media_type,
            metadata={
                "cdn_url": "" if self.inline else self.cdn_url,
                "original_filename": self.file_name,
                "sha256": self.sha256,
            },
        )
