"""What people and programs get to see of a command's output."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import msgspec
import pytest

from emp_trio.cli.output import print_json, print_problem, print_table
from emp_trio.secrets import Secret

ROWS = "print_table(['NAME', 'STATE'], [['a[b]c:smile:', 'gr\\u00fcn'], ['x' * 30, '\\x1b[2Jboo\\nboo']])"


def on_terminal(statement: str, **environment: str) -> str:
    """What a statement prints on a terminal."""
    master, slave = pty.openpty()
    env = {**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm-256color", **environment}
    subprocess.run(
        [sys.executable, "-c", f"from emp_trio.cli.output import *; {statement}"],
        stdout=slave,
        stderr=slave,
        env={**env, "COLUMNS": "80"},
        check=True,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            more = os.read(master, 65536)
        except OSError:  # Linux says EIO at the end of a terminal
            more = b""
        if not more:
            break
        shown += more
    os.close(master)
    return shown.decode()


def test_a_table_is_drawn_on_a_terminal() -> None:
    shown = on_terminal(ROWS)
    assert "a[b]c:smile:" in shown  # no markup, no emoji: cells are data
    assert "━" in shown or "─" in shown
    assert "\t" not in shown
    assert "\x1b[2J" not in shown
    assert "boo boo" in shown


def test_a_table_that_is_too_wide_keeps_its_first_column() -> None:
    table = f"['ID', 'TEXT'], [['{'i' * 36}', '{'words of an error ' * 10}end']]"
    folded, cut = on_terminal(f"print_table({table})"), on_terminal(f"print_table({table}, cut=True)")
    assert "i" * 36 in folded
    assert "end" in folded
    assert "…" not in folded
    assert "i" * 36 in cut
    assert "…" in cut
    assert "end" not in cut
    assert cut.count("words") < folded.count("words")


def test_a_table_is_cells_between_tabs_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["NAME", "STATE"], [["a[b]c", "x" * 200], ["tab\there", "line\nbreak"]])
    assert capsys.readouterr().out == f"NAME\tSTATE\na[b]c\t{'x' * 200}\ntab here\tline break\n"


def test_colours_are_for_terminals_that_want_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b[1;31merror: " in on_terminal("print_problem('wrong')")
    assert on_terminal("print_problem('wrong')", NO_COLOR="1").replace("\x1b[1m", "").replace("\x1b[0m", "") == (
        "error: wrong\r\n"
    )
    print_problem("wrong", label="warning")
    assert capsys.readouterr().err == "warning: wrong\n"


def test_a_problem_keeps_its_lines_and_loses_its_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    print_problem("no Redis at redis://me:opensesame@host\n  [hint] \x1b[31mlook " + "there " * 40)
    err = capsys.readouterr().err
    assert err.startswith("error: no Redis at redis://me:***@host\n  [hint]  [31mlook there ")
    assert err.count("\n") == 2


class Thing(msgspec.Struct):
    name: str
    key: Secret


def test_json_is_one_line_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"things": [Thing("grün\n", Secret("opensesame"))]})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"things": [{"name": "grün\n", "key": "***"}]}
