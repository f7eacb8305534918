"""Configure logging: readable lines on a terminal, JSON lines elsewhere, both redacted.

The worker binds ``job``, ``slot`` and ``attempt`` as context variables, so every line logged for a job has them,
whichever module logs it. Records of the standard library's logging go to the same stream from WARNING up.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Literal, Protocol, TextIO

import msgspec
import structlog
from structlog.typing import Processor

from emp_trio.errors import ConfigError
from emp_trio.ops.log_stream import LogStream
from emp_trio.printable import escaped, escaped_json
from emp_trio.secrets import MASK, Redactor, hides

Style = Literal["console", "json"]

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_LONGEST: Final = 4096  # maximum characters of a value, so that payloads are not logged
_LONGEST_TRACEBACK: Final = 64 * 2**10  # maximum characters of a traceback, and of all texts of a line together
_NOTE: Final = 40  # characters of the note that states the original length


def configure_logs(*, level: str, style: Style | None, redactor: Redactor, stream: TextIO) -> Callable[[], None]:
    """Set up structlog and the standard library's logging for this process.

    Args:
        level: minimum level: ``debug``, ``info``, ``warning`` or ``error``.
        style: None selects ``console`` if ``stream`` is a terminal, else ``json``.
        redactor: masks secrets; secrets added to it later are masked, too.
        stream: receives the lines. A broken stream loses lines and never stops the worker. A stream with a file
            descriptor is written by a thread: with a slow or missing reader lines are dropped (``log.dropped`` has the
                number), and
            the worker never waits.

    Returns:
        a function that blocks until the lines are written, for at most a second.

    Raises:
        ConfigError: the level is unknown.
    """
    if level.lower() not in _LEVELS:
        raise ConfigError(f"there is no log level {level!r}: choose one of {', '.join(_LEVELS)}")
    least = _LEVELS[level.lower()]
    terminal = stream.isatty()
    sink = _sink(stream)
    chosen = style or ("console" if terminal else "json")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_logger,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if chosen == "console" else "iso", utc=chosen == "json"),
            structlog.processors.format_exc_info,  # standard traceback, without values of local variables
            _cleaner(redactor),
            *(_for_people(colors=terminal and not os.environ.get("NO_COLOR")) if chosen == "console" else [_as_json]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda *names: _Lines(sink, names[0] if names else "emp_trio"),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(max(least, logging.WARNING))
    logging.captureWarnings(True)
    return sink.flush


class _Sink(Protocol):
    """Destination of log lines."""

    def write(self, line: str) -> None:
        """Write or queue a line."""

    def flush(self) -> None:
        """Block until all lines are written."""


def _sink(stream: TextIO) -> _Sink:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):  # in memory
        return _InMemory(stream)
    return LogStream(stream, lambda lines: structlog.get_logger("emp_trio.log").warning("log.dropped", lines=lines))


class _InMemory:
    """A stream without a file descriptor, whose writes do not block."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        try:
            try:
                self._stream.write(line)
            except UnicodeEncodeError:
                self._stream.write(line.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError):  # broken or closed, and there is no other place to report it
            return

    def flush(self) -> None: ...


class _Lines:
    """structlog's logger: writes finished lines to the sink."""

    def __init__(self, sink: _Sink, name: str) -> None:
        self._sink = sink
        self.name = name

    def msg(self, message: str) -> None:
        self._sink.write(message + "\n")

    log = debug = info = warn = warning = error = critical = fatal = failure = err = exception = msg


class _ToStructlog(logging.Handler):
    """Forwards records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log = structlog.get_logger(record.name)
            log.log(record.levelno, record.getMessage().strip(), exc_info=record.exc_info or None)
        except Exception:  # noqa: BLE001  # a library's invalid log call must not fail its caller
            self.handleError(record)


def _add_logger(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["logger"] = getattr(logger, "name", "")
    if event.get("exc_info") is None:
        event.pop("exc_info", None)
    return event


def _cleaner(redactor: Redactor) -> Processor:
    """Return a processor that converts every value to redacted plain data of bounded length."""

    def clean(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        texts = _Texts(redactor)
        for key, value in event.items():
            longest = _LONGEST_TRACEBACK if key == "exception" else _LONGEST
            event[key] = MASK if hides(key, value) else _plain(value, texts, longest)
        # Searching all texts at once is much faster than each by itself, and rarely finds anything.
        together = "\n".join(texts.seen)
        if redactor.text(together) != together:
            for key, value in event.items():
                event[key] = redactor.data(value)
        if len(together) > _LONGEST:
            for key, value in event.items():
                text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
                if len(text) > _LONGEST + _NOTE and key != "exception":
                    event[key] = f"{text[:_LONGEST]}... ({len(text)} characters)"
        return event

    return clean


class _Texts:
    """Collects the texts of one line. Masks and then shortens a long text at once."""

    def __init__(self, redactor: Redactor) -> None:
        self.seen: list[str] = []
        self._redactor = redactor
        self._left = _LONGEST_TRACEBACK

    def add(self, text: str, longest: int) -> str:
        if self._left < 0:
            return "<left out: the line is too long>"
        if len(text) > longest:
            text = f"{self._redactor.excerpt(text, longest)}... ({len(text)} characters)"
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()  # a lone surrogate would fail the whole line
        self._left -= len(text) + 1
        self.seen.append(text)
        return text


def _plain(value: Any, texts: _Texts, longest: int) -> Any:
    """Convert ``value`` to JSON-like data, and add its texts to ``texts``."""
    match value:
        case None | bool() | int() | float():
            return value
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case dict():
            return {
                texts.add(str(k), longest): MASK if hides(str(k), v) else _plain(v, texts, longest)
                for k, v in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_plain(v, texts, longest) for v in value]
    return texts.add(str(value), longest)


def _for_people(*, colors: bool) -> list[Processor]:
    def escape(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Escape control characters, so that text of a service can't control the terminal or forge a log line."""
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = escaped(value, keep="\n" if key == "exception" else "")
        return event

    return [
        escape,
        structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        ),
    ]


def _as_json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    first = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return escaped_json(msgspec.json.encode({**first, **event}).decode())
