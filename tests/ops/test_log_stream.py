"""A log that nobody reads: nobody waits for it, and what it lost is counted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from emp_trio.ops.log_stream import LogStream

MOST = 100_000
LIMIT = 60.0


@pytest.fixture
def pipe() -> Iterator[tuple[IO[bytes], IO[str]]]:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "w") as writer:
        yield reader, writer


def test_lines_are_written_in_their_order(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        stream = LogStream(file, lambda lines: pytest.fail("nothing was dropped"))
        for number in range(20_000):
            stream.write(f"{number}\n")
        stream.flush(LIMIT)
    assert (tmp_path / "log").read_text().split() == [str(n) for n in range(20_000)]


def test_nobody_waits_for_a_pipe_that_is_not_read_and_what_was_dropped_is_told(
    pipe: tuple[IO[bytes], IO[str]],
) -> None:
    reader, writer = pipe
    dropped: list[int] = []
    stream = LogStream(writer, dropped.append, most=MOST)
    began, line = time.monotonic(), "x" * 99
    for number in range(10_000):
        stream.write(f"{number:5} {line}\n")
    stream.flush(0.1)
    assert time.monotonic() - began < 5
    read = b""
    while not dropped or read.count(b"\n") + sum(dropped) < 10_000:
        read += reader.read1(65536)
    numbers = [int(text.split()[0]) for text in read.splitlines()]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + sum(dropped) == 10_000
    assert len(numbers) * 106 > MOST
    stream.write("again\n")
    stream.flush(LIMIT)
    assert reader.read1(100) == b"again\n"


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(pipe: tuple[IO[bytes], IO[str]]) -> None:
    reader, writer = pipe
    stream = LogStream(writer, lambda lines: None, most=MOST)
    reader.close()
    for _ in range(5000):
        stream.write("x" * 99 + "\n")
    stream.flush(LIMIT)


def test_a_stream_that_somebody_made_non_blocking_loses_nothing(pipe: tuple[IO[bytes], IO[str]]) -> None:
    reader, writer = pipe
    os.set_blocking(writer.fileno(), False)
    stream = LogStream(writer, lambda lines: pytest.fail("nothing was dropped"), most=10 * MOST)
    for number in range(9000):
        stream.write(f"{number:5} {'x' * 93}\n")
    read = b""
    while read.count(b"\n") < 9000:
        read += reader.read1(65536)
    assert [int(text.split()[0]) for text in read.splitlines()] == list(range(9000))


def test_what_an_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as file:
        stream = LogStream(file, lambda lines: None)
        stream.write("gr\u00fcn\n")
        stream.flush(LIMIT)
    assert (tmp_path / "log").read_bytes() == b"gr\\xfcn\n"
