"""Check the output of a connector: results, progress, errors; no file bytes, no secrets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from emp_trio.errors import EmpTrioError
from emp_trio.jobs import JobResult, Progress
from emp_trio.secrets import Secret
from emp_trio.services.redaction import redacted


def check_result(result: Any) -> None:
    """Raises AssertionError where a result does not have the fleet's shape (queue protocol 5.3), or holds a file."""
    assert isinstance(result, JobResult), f"run returned {type(result).__name__}, not a JobResult"
    assert result.success, f"run returned success=False ({result.error}): raise the error instead"
    for part in ("data", "metadata", "service_metadata"):
        assert all(isinstance(key, str) for key in getattr(result, part)), f"{part} has keys that are not text"
    for place, value in _leaves(msgspec.structs.asdict(result), "result"):
        assert not isinstance(value, bytes | bytearray | memoryview), f"{place} holds bytes"
        notes = [str(text).count("<base64 ") for text in (value, redacted(value))]
        assert notes[0] == notes[1], f"{place} holds a file: save it, and name its place"
    msgspec.json.encode(result)
    for file in result.output_files:
        assert file.metadata.get("cdn_url"), f"the output file {file.filename} has no metadata.cdn_url"
    if result.output_files:
        missing = {"mime_type", "content_type"} - result.data.keys()
        assert not missing, f"data lacks {sorted(missing)}, by which the main asset is known: see asset_data"


def check_progress(reports: Sequence[Progress]) -> None:
    """Raises AssertionError where progress leaves 0 to 100, goes back, or is at 100 while more is to come."""
    values = [report.value for report in reports]
    assert all(0 <= value <= 100 for value in values), f"progress is not between 0 and 100: {values}"
    assert values == sorted(values), f"progress goes back: {values}"
    assert all(value < 100 for value in values[:-1]), f"progress is at 100 before the end: {values}"


def check_error(error: EmpTrioError) -> None:
    """Raises AssertionError where an error says nothing."""
    assert error.message.strip(), f"{type(error).__name__} has no text"
    assert error.reason, f"{type(error).__name__} has no reason: {error}"


def secrets_in(settings: Any) -> list[Secret]:
    """Every secret in a settings struct and its parts."""
    if isinstance(settings, Secret):
        return [settings] if settings else []
    if isinstance(settings, msgspec.Struct):
        return [secret for name in settings.__struct_fields__ for secret in secrets_in(getattr(settings, name))]
    return []


def check_no_secret(secrets: Iterable[str], **said: Any) -> None:
    """Raises AssertionError where one of the secrets is in something said, or in the texts of an error's causes."""
    for where, what in said.items():
        text = " ".join(_texts(what))
        for secret in secrets:
            assert secret not in text, f"a secret is in the {where}"


def _texts(what: Any) -> Iterator[str]:
    if isinstance(what, BaseException):
        yield from (str(what), repr(what))
        for cause in (what.__cause__, what.__context__):
            if cause is not None:
                yield from _texts(cause)
    elif isinstance(what, JobResult | Progress):
        yield msgspec.json.encode(what).decode()
    elif isinstance(what, list | tuple):
        for item in what:
            yield from _texts(item)
    else:
        yield repr(what)


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            for key, item in value.items():
                yield from _leaves(item, f"{place}.{key}")
        case list() | tuple():
            for index, item in enumerate(value):
                yield from _leaves(item, f"{place}[{index}]")
        case msgspec.Struct():
            yield from _leaves(msgspec.structs.asdict(value), place)
        case _:
            yield place, value
