"""Logs: what an operator finds in them, and what nobody must find in them."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import trio

from emp_trio.errors import ConfigError
from emp_trio.ops.logs import Style, configure_logs
from emp_trio.secrets import Redactor, Secret

PASSWORD = 'hunter"22\\'  # with characters that JSON escapes


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the logging of the test process as it was."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level
    structlog.configure(**config)
    structlog.contextvars.clear_contextvars()


def stream_of(style: Style | None, *, level: str = "info", stream: io.StringIO | None = None) -> io.StringIO:
    out = stream or io.StringIO()
    configure_logs(level=level, style=style, redactor=Redactor([Secret(PASSWORD)]), stream=out)
    return out


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_the_job_and_slot_of_a_task_are_on_its_lines_and_on_nobody_elses() -> None:
    out = stream_of("json")

    async def slot(number: int) -> None:
        structlog.contextvars.bind_contextvars(job=f"job-{number}", slot=f"slot-{number}")
        await trio.lowlevel.checkpoint()
        structlog.get_logger("emp_trio.slot").info("job.started", number=number)
        await trio.to_thread.run_sync(lambda: logging.getLogger("azure").warning("from a thread"))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(slot, number)
    structlog.get_logger("emp_trio.machine").info("idle")

    started = [line for line in lines(out) if line["event"] == "job.started"]
    assert sorted((line["number"], line["job"], line["slot"]) for line in started) == [
        (n, f"job-{n}", f"slot-{n}") for n in range(3)
    ]
    foreign = [line for line in lines(out) if line["logger"] == "azure"]
    assert {line["job"] for line in foreign} == {"job-0", "job-1", "job-2"}
    assert "job" not in lines(out)[-1]


def test_a_json_line_says_when_how_bad_what_and_who() -> None:
    out = stream_of("json")
    structlog.get_logger("emp_trio.reaper").warning("lease.expired", seconds=1.5)
    (line,) = lines(out)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["event"], line["logger"], line["seconds"]) == (
        "warning",
        "lease.expired",
        "emp_trio.reaper",
        1.5,
    )


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_secret_gets_into_a_line(style: Style) -> None:
    out = stream_of(style)
    log = structlog.get_logger()
    log.warning(f"connecting to redis://user:{PASSWORD}@host", url="https://x/?sig=abcdef0123")
    log.warning("nested", ctx={"storage": {"accountKey": "a2V5", "list": [PASSWORD, ("x", PASSWORD)]}, PASSWORD: 1})
    log.warning("named", api_key="plain-value", password="plain-value", job_token="plain-value", tokens=12)
    log.warning("typed", given=Secret(PASSWORD), error=ValueError(f"bad {PASSWORD}"))
    logging.getLogger("azure").warning("AccountKey=%s", "abcdef==")
    try:
        raise ValueError(f"wrong: {PASSWORD}")
    except ValueError:
        log.exception("failed")
    text = out.getvalue()
    assert "tokens" in text
    assert "12" in text
    for secret in (PASSWORD, json.dumps(PASSWORD)[1:-1], "abcdef", "a2V5", "plain-value"):
        assert secret not in text
    assert text.count("***") >= 10


@pytest.mark.parametrize("style", ["json", "console"])
def test_an_exception_is_shown_without_the_values_of_its_variables(style: Style) -> None:
    out = stream_of(style)

    def fails() -> None:
        payload = "the whole payload of a job"[:17]
        raise ExceptionGroup("two", [ValueError(len(payload)), KeyError("x")])

    try:
        fails()
    except ExceptionGroup as error:
        structlog.get_logger().error("job.failed", exc_info=error)
    assert "ValueError: 17" in out.getvalue()
    assert "KeyError" in out.getvalue()
    assert "in fails" in out.getvalue()
    assert "the whole payload\n" not in out.getvalue()
    assert "payload = 'the" not in out.getvalue()


def test_other_libraries_are_heard_from_warning_up() -> None:
    out = stream_of("json", level="debug")
    for name in ("azure.core.pipeline.policies.http_logging_policy", "httpx", "hypercorn.error"):
        logging.getLogger(name).info("every request")
        logging.getLogger(name).warning("trouble %d", 7)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old fashioned", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert [line["event"] for line in lines(out)[:3]] == ["trouble 7"] * 3
    assert "old fashioned" in lines(out)[3]["event"]
    assert len(lines(out)) == 4


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", "debug info warning error"),
        ("info", "info warning error"),
        ("WARNING", "warning error"),
        ("error", "error"),
    ],
)
def test_what_is_below_the_level_is_dropped(level: str, heard: str) -> None:
    out = stream_of("json", level=level)
    log = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)(name)
    assert [line["event"] for line in lines(out)] == heard.split()


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'loud'.*debug, info, warning, error"):
        stream_of(None, level="loud")


@pytest.mark.parametrize(("stream", "console"), [(Terminal(), True), (io.StringIO(), False)])
def test_a_terminal_gets_lines_for_people_and_everything_else_json(stream: io.StringIO, console: bool) -> None:
    out = stream_of(None, stream=stream)
    structlog.get_logger().info("ready", slots=3)
    assert (not out.getvalue().startswith("{")) is console
    assert ("\x1b[" in out.getvalue()) is console


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = stream_of(None, stream=Terminal())
    structlog.get_logger().info("ready", slots=3)
    assert "slots=3" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_a_text_from_outside_can_not_command_the_terminal_or_forge_a_line() -> None:
    out = stream_of("console")
    structlog.get_logger().warning("service\x1b[2J\nsaid", text="\x1b]0;owned\x07", more="a\n12:00:00 [info] all well")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


HIDDEN = "a\x9b2J \u202egnp.exe \u2066x\u2069 \u200b\ufeff \u2028 \u2029 \x7f \x85 \U000e0041 \U0001d173"


@pytest.mark.parametrize("style", ["json", "console"])
def test_nothing_hides_in_a_line_or_turns_it_around(style: Style) -> None:
    out = stream_of(style)
    log = structlog.get_logger()
    try:
        raise ValueError(HIDDEN)
    except ValueError:
        log.exception(HIDDEN, text=HIDDEN, inside={HIDDEN: [HIDDEN]}, kind="grün 🎨")
    logging.getLogger("library").warning(HIDDEN)
    assert all(line.isprintable() for line in out.getvalue().split("\n"))
    assert "\\u202egnp.exe" in out.getvalue()
    assert "grün 🎨" in out.getvalue()
    if style == "json":
        first, second = lines(out)
        assert (first["event"], first["text"], first["inside"]) == (HIDDEN, HIDDEN, {HIDDEN: [HIDDEN]})
        assert second["event"] == HIDDEN.strip()


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [b"\x00" * 5000, "x" * 50_000, "\ud800", {1: {2}}, object(), float("nan"), 2**80, ["y" * 20_000]],
    ids=["bytes", "long", "surrogate", "set", "object", "nan", "big", "long in a list"],
)
def test_any_value_makes_one_line_of_bounded_length(style: Style, value: object) -> None:
    out = stream_of(style)
    structlog.get_logger().info("odd", value=value, after="end")
    assert out.getvalue().count("\n") == 1
    assert "end" in out.getvalue()
    assert len(out.getvalue()) < 5000


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_broken_stream_does_not_stop_the_worker() -> None:
    stream_of("json", stream=Broken())
    structlog.get_logger().error("nobody hears this")


def test_a_terminal_that_is_not_utf8_gets_escapes() -> None:
    raw = io.BytesIO()
    configure_logs(
        level="info", style="console", redactor=Redactor(), stream=io.TextIOWrapper(raw, "ascii", write_through=True)
    )
    structlog.get_logger().info("grün")
    assert b"gr\\xfcn" in raw.getvalue()


def test_a_secret_learned_later_is_taken_out_too() -> None:
    redactor = Redactor()
    out = io.StringIO()
    configure_logs(level="info", style="json", redactor=redactor, stream=out)
    redactor.add(Secret("learned-later"))
    structlog.get_logger().info("key is learned-later")
    assert lines(out)[0]["event"] == "key is ***"
