"""Answers of services that nobody knows beforehand: everything may be missing, or of another type. Pure."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.http.errors import LONGEST_TEXT, bad_answer
from emp_trio.protocols.http.paths import climbs, segment
from emp_trio.secrets import excerpt, one_line
from emp_trio.services.redaction import excerpt_of, redacted
from emp_trio.services.rest.pointers import pointed
from emp_trio.services.rest.settings import AnswerSettings, WorkSettings

LONGEST_ID: Final = 512
MOST_FILES: Final = 100
_CANCELLED: Final = frozenset(("cancelled", "canceled"))

Phase = Literal["done", "failed", "cancelled", "running"]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How work is: the phase, the service's own word for it, and from 0 to 1 how far it is where it says so."""

    phase: Phase
    word: str
    share: float | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a finished answer: the part that is the result, fit to be kept; a text; sources of files; and what is
    not there although the settings point to it."""

    result: Any
    text: str | None
    files: tuple[str, ...]
    missing: tuple[str, ...] = ()


def read_id(answer: Any, pointer: str) -> str:
    """The id of the work that the service has begun: text, or a whole number.

    Raises:
        ServiceError: (response_error) there is none, or it can't be one. The work may have begun.
    """
    found = pointed(answer, pointer)
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not found.strip() or found in (".", ".."):
        raise _nothing("an id of the work", pointer, found)
    if len(found) > LONGEST_ID or not found.isprintable() or climbs(segment(found)):
        raise bad_answer(f"the id of the work at {_place(pointer)} is no id", reason="invalid_response_format")
    return found


def read_state(answer: Any, work: WorkSettings) -> State:
    """How the work is.

    Raises:
        ServiceError: (response_error) there is no status, or one that the settings don't know.
    """
    found = pointed(answer, work.status_at)
    if not isinstance(found, str | int | bool) or found == "":
        raise _nothing("a status", work.status_at, found)
    word = excerpt(str(found), 80)
    phase = _phase(word.casefold(), work)
    if phase is None:
        raise bad_answer(
            f"the status {word!r} is none of the done_words, failed_words and running_words",
            reason="invalid_response_format",
            retry=False,
        )
    return State(phase=phase, word=word, share=_share(answer, work))


def read_result(answer: Any, places: AnswerSettings) -> Found:
    """What is in a finished answer. Where there are files they are what was paid for: a text, a result, or some of the
    files may be missing beside them, and are named.

    Raises:
        ServiceError: (response_error) something that the settings point to is not there, or of another type.
    """
    files = _files(answer, places)
    missing: list[ServiceError] = []
    result = pointed(answer, places.result_at)
    if result is msgspec.UNSET:
        missing.append(_nothing("a result", places.result_at, result))
        result = None
    text: str | None = None
    if places.text_at is not None:
        said = pointed(answer, places.text_at)
        if isinstance(said, str):
            text = said
        else:
            missing.append(_nothing("a text", places.text_at, said))
    if not (files or missing or (text or "").strip()):  # a success has something in it
        if text is not None:
            missing.append(_nothing("a text with something in it", places.text_at or "", text))
        elif result is None or (isinstance(result, str) and not result.strip()) or result in ({}, []):
            missing.append(_nothing("a result with something in it", places.result_at, result))
    if missing and not files:
        raise missing[0]
    return Found(result=redacted(result), text=text, files=files, missing=tuple(error.message for error in missing))


def wanted_result(answer: Any, places: AnswerSettings) -> Found:
    """What is in the answer to a call that was to bring a result.

    Raises:
        ServiceError: (response_error) as :func:`read_result`; with the service's words where it is an error after all,
            under a good status, else with the beginning of the answer.
    """
    try:
        return read_result(answer, places)
    except ServiceError as error:
        said = error_text(answer, places.error_at)
        more = f"the service says {said}" if said else f"the answer is {error_text(answer, '')}"
        error.message = excerpt(f"{error.message}; {more}", LONGEST_TEXT)
        error.args = (error.message,)
        raise


def made_all_the_same(answer: Any, places: AnswerSettings) -> Found | None:
    """What is in the last answer about work that did not end well: its files, or its text, have been made and paid for.
    None where the settings look for neither, or it has none."""
    try:
        found = read_result(answer, places)
    except ServiceError:
        return None
    text = one_line(found.text or "", LONGEST_TEXT)
    is_error = text == error_text(answer, places.error_at)  # also of a service with one place
    return found if found.files or (text and not is_error) else None


def error_text(answer: Any, pointer: str | None) -> str:
    """The service's text of an error, on one line; empty where there is none."""
    found = None if pointer is None else pointed(answer, pointer)
    if found is None or found is msgspec.UNSET or found == "":
        return ""
    if not isinstance(found, str):
        found = excerpt_of(found, 4 * LONGEST_TEXT)
    return one_line(found, LONGEST_TEXT)


def _phase(word: str, work: WorkSettings) -> Phase | None:
    if word in map(str.casefold, work.done_words):
        return "done"
    if word in map(str.casefold, work.failed_words):
        return "cancelled" if word in _CANCELLED else "failed"
    if not work.running_words or word in map(str.casefold, work.running_words):
        return "running"
    return None


def _share(answer: Any, work: WorkSettings) -> float | None:
    found = None if work.progress_at is None else pointed(answer, work.progress_at)
    if not isinstance(found, int | float) or isinstance(found, bool):
        return None
    return min(max(found, 0.0), work.progress_max) / work.progress_max


def _files(answer: Any, places: AnswerSettings) -> tuple[str, ...]:
    if places.files_at is None:
        return ()
    found = pointed(answer, places.files_at)
    listed = found if isinstance(found, list) else [found]
    if len(listed) > MOST_FILES:
        text = f"{len(listed)} files are more than the {MOST_FILES} that a job may have"
        raise bad_answer(text, reason="invalid_response_format", retry=False)
    sources = [pointed(item, places.file_at) if isinstance(item, dict) else item for item in listed]
    if not any(isinstance(source, str) and source for source in sources):
        raise _nothing("a file, or a list of files,", places.files_at, found)
    return tuple(source if isinstance(source, str) else "" for source in sources)  # an empty one is named as left out


def _nothing(what: str, pointer: str, found: Any) -> ServiceError:
    kind = (
        "nothing"
        if found is msgspec.UNSET
        else "null"
        if found is None
        else f"{type(found).__name__} {excerpt(repr(found), 80)}"
    )
    if isinstance(found, dict | list):
        kind = "an object" if isinstance(found, dict) else f"a list of {len(found)}"
    return bad_answer(f"{what} is wanted at {_place(pointer)}, there is {kind}", reason="missing_expected_data")


def _place(pointer: str) -> str:
    return f"{pointer!r} of the answer" if pointer else "the answer itself"
