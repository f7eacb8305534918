"""Settings of the REST connectors: who they are to the service, the call, and where things are in its answers."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final, Literal

import msgspec

from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.http.settings import Seconds
from emp_trio.protocols.polling import PollingSettings
from emp_trio.secrets import Secret
from emp_trio.services.rest.pointers import POINTER_PATTERN
from emp_trio.services.rest.templates import check_template

Pointer = Annotated[str, msgspec.Meta(pattern=POINTER_PATTERN)]
Path = Annotated[str, msgspec.Meta(pattern=r"^/([^/\\].*)?\Z")]
Method = Literal["POST", "PUT", "PATCH", "GET"]

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def fits_header(name: str, value: Any) -> bool:
    """Whether they can be a header's name and value."""
    return bool(_NAME.fullmatch(name)) and isinstance(value, str) and value.isascii() and value.isprintable()


class LoginSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials; they go to the origin of ``base_url`` and nowhere else.

    Attributes:
        api_key: sent as a bearer token, or as it is in the header ``api_key_header`` where that is set.
        username, password: sent as Basic credentials, where there is no key.
    """

    api_key: Secret = Secret("")
    api_key_header: str = ""
    username: str = ""
    password: Secret = Secret("")


class CallSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The call that hands a job to the service.

    Attributes:
        method: with GET, the members of the body become the query.
        path: under ``base_url``.
        body: template of the JSON body (:mod:`emp_trio.services.rest.templates`); without one it is the payload itself.
        headers: further headers.
        payload_calls: take ``endpoint``, ``method``, ``data`` or ``body`` and ``headers`` from the payload, as the
            fleet's REST connectors did. Whoever submits jobs can then call anything under ``base_url`` with the
            worker's credentials.
    """

    method: Method = "POST"
    path: Path = "/"
    body: Any = None
    headers: dict[str, str] = {}
    payload_calls: bool = False

    def __post_init__(self) -> None:
        try:
            check_template(self.body)
        except ValueError as error:
            raise ValueError(f"body: {error}") from None
        if self.method == "GET" and not isinstance(self.body, dict | None):
            raise ValueError("body: with the method GET it must be an object, whose members become the query")
        wrong = [name for name, value in self.headers.items() if not fits_header(name, value)]
        if wrong:
            raise ValueError(f"headers: {wrong[0]!r} can't be sent")


class AnswerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are in a finished answer, as JSON pointers (:mod:`emp_trio.services.rest.pointers`).

    Attributes:
        result_at: what becomes ``data.result`` of the job's result.
        text_at: a text, which becomes ``data.text``.
        files_at: a file or a list of files, to be saved as assets.
        file_at: in each of them, where they are objects.
        files_are: ``url`` (on the service's own origin with its credentials, elsewhere without) or ``base64``. Data
            URLs are understood in any case.
        error_at: the text of an error, in answers with an error status and in failed work.
    """

    result_at: Pointer = ""
    text_at: Pointer | None = None
    files_at: Pointer | None = None
    file_at: Pointer = ""
    files_are: Literal["url", "base64"] = "url"
    error_at: Pointer | None = None


FAILED_WORDS: Final = (
    *("failed", "failure", "error", "errored", "crashed", "cancelled", "canceled", "aborted", "terminated"),
    *("rejected", "incomplete", "expired", "timeout", "timed_out", "timed-out", "timed out"),
)
"""What services call work that has ended without a result. A word that is missing here is polled until time is up."""


class WorkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How work under an id is followed. Times in seconds, but for the one that says otherwise.

    Attributes:
        id_at: where the answer to the call has the id.
        status_path: what is polled. Here and below, ``{id}`` stands for the id; where it is missing, the id comes last.
        status_at: where its answer has the status.
        done_words, failed_words: what the status then is; case doesn't matter. ``cancelled`` and ``canceled`` among the
            failed words are never tried again.
        running_words: what else it may be; where there are none, every other word means that the work goes on.
        progress_at, progress_max: how far the work is, and what that is when it is finished.
        result_path: where the result has an address of its own.
        cancel_path, cancel_method: what stops the work.
        polling_interval_ms: in milliseconds, in place of ``interval``.
        work_timeout: how long the work is waited for, in place of ``attempts``.
        call_timeout: for one look at the work.
        cleanup_timeout: for stopping the work when its job is stopped.
    """

    id_at: Pointer = "/id"
    status_path: Path = "/status/{id}"
    status_at: Pointer = "/status"
    done_words: tuple[str, ...] = ("completed", "complete", "succeeded", "success", "finished", "done")
    failed_words: tuple[str, ...] = FAILED_WORDS
    running_words: tuple[str, ...] = ()
    progress_at: Pointer | None = None
    progress_max: Annotated[float, msgspec.Meta(gt=0)] = 100.0
    result_path: Path | None = None
    cancel_path: Path | None = None
    cancel_method: Literal["POST", "DELETE", "PUT"] = "POST"
    polling_interval_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None
    work_timeout: Seconds | None = None
    call_timeout: Seconds = 30.0
    cleanup_timeout: Seconds = 5.0


def patient(http: HttpSettings) -> HttpSettings:
    """``http`` for calls that are answered when the work is done: silence may last as long as the call."""
    return msgspec.structs.replace(http, read_timeout=max(http.read_timeout, http.timeout))


def polled(polling: PollingSettings, work: WorkSettings) -> PollingSettings:
    """``polling`` with the interval and the patience that ``work`` may state instead."""
    interval = polling.interval if work.polling_interval_ms is None else work.polling_interval_ms / 1000
    if work.work_timeout is None:
        return msgspec.structs.replace(polling, interval=interval)
    looks = math.ceil(work.work_timeout / interval) + 1 if interval else polling.attempts
    return msgspec.structs.replace(polling, interval=interval, attempts=looks)
