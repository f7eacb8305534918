"""Log set-up: lines for people on a terminal, JSON lines anywhere else, and no secret in either.

The worker binds ``job``, ``slot`` and ``attempt`` as context variables, so they stand on every line that is written on
a job's behalf, by whichever module. What other libraries log with the standard library joins the same stream from
WARNING up.
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
_LONGEST: Final = 4096  # characters of one value; a line of a log is no place for a payload
_LONGEST_TRACEBACK: Final = 64 * 2**10  # characters; and of all texts of a line together
_NOTE: Final = 40  # characters that say how long a text was


def configure_logs(*, level: str, style: Style | None, redactor: Redactor, stream: TextIO) -> Callable[[], None]:
    """Set up structlog and the standard library's logging for this process.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``; what is below is dropped.
        style: None chooses ``console`` where ``stream`` is a terminal and ``json`` elsewhere.
        redactor: takes the secrets out; it may learn more of them later.
        stream: where the lines go. A stream that is broken loses lines; it does not stop the worker. One with a file
            descriptor is written to by a thread: a reader that is slow, or none, loses lines too (``log.dropped`` says
            how many), and never keeps the worker waiting.

    Returns:
        what waits until the lines are written, a second at most.

    Raises:
        ConfigError: there is no such level.
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
            structlog.processors.format_exc_info,  # the standard traceback: without the values of local variables
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
    """Where lines go."""

    def write(self, line: str) -> None:
        """Have a line written."""

    def flush(self) -> None:
        """Wait until it is."""


def _sink(stream: TextIO) -> _Sink:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):  # a text in memory
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
        except (OSError, ValueError):  # it is broken or closed: there is nowhere to say so
            return

    def flush(self) -> None: ...


class _Lines:
    """Writes lines under a logger's name."""

    def __init__(self, sink: _Sink, name: str) -> None:
        self._sink = sink
        self.name = name

    def msg(self, message: str) -> None:
        self._sink.write(message + "\n")

    log = debug = info = warn = warning = error = critical = fatal = failure = err = exception = msg


class _ToStructlog(logging.Handler):
    """Hands records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log = structlog.get_logger(record.name)
            log.log(record.levelno, record.getMessage().strip(), exc_info=record.exc_info or None)
        except Exception:  # noqa: BLE001  # somebody else's broken log call must not fail their work
            self.handleError(record)


def _add_logger(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["logger"] = getattr(logger, "name", "")
    if event.get("exc_info") is None:
        event.pop("exc_info", None)
    return event


def _cleaner(redactor: Redactor) -> Processor:
    """Make every value plain data without secrets and of bounded length."""

    def clean(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        texts = _Texts(redactor)
        for key, value in event.items():
            longest = _LONGEST_TRACEBACK if key == "exception" else _LONGEST
            event[key] = MASK if hides(key, value) else _plain(value, texts, longest)
        # One look at all texts together is much quicker than one at each, and nearly always finds nothing.
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
    """The texts of one line as they are found; what is too long is masked, and then cut, at once."""

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
            text = text.encode("utf-8", "replace").decode()  # a lone surrogate would stop the whole line
        self._left -= len(text) + 1
        self.seen.append(text)
        return text


def _plain(value: Any, texts: _Texts, longest: int) -> Any:
    """``value`` as JSON-like data; its texts are added to ``texts``."""
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
        """What a service says must not command the terminal, nor look like a line of its own."""
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
