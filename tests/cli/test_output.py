"""What people and programs get to see of a command's output."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import msgspec
import pytest

from emp_trio.cli.job_view import details
from emp_trio.cli.output import FAILED, print_json, print_problem, print_table, report, shown
from emp_trio.queue.job_info import job_info
from emp_trio.secrets import Secret, held

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


def test_json_escapes_what_a_terminal_obeys_and_what_turns_texts_around(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x9b2J \u202egnp.exe \u2066x\u2069 \u200b\ufeff \u2028 \x7f grün 🎨 \U000e0041"
    print_json({"text": text, text: [text]})
    out = capsys.readouterr().out
    assert out.endswith("\n")
    assert out[:-1].isprintable()
    assert "grün 🎨" in out
    assert "\\u009b2J \\u202egnp.exe \\u2066x\\u2069 \\u200b\\ufeff \\u2028 \\u007f" in out
    assert json.loads(out) == {"text": text, text: [text]}


def test_what_a_job_brought_is_shown_without_its_credentials() -> None:
    url = "https://cdn/x.png?sig=abc"
    given = {
        "payload": {"api_key": "hunter2", "prompt": "key sk-abcdefgh12345", "headers": [["X-Api-Key", "hunter2"]]},
        "result": {"data": {"image_url": url, "token": "hunter2"}, "usage": {"total_tokens": 7}},
    }
    assert shown(given) == {
        "payload": {"api_key": "***", "prompt": "key sk-***", "headers": [["X-Api-Key", "***"]]},
        "result": {"data": {"image_url": url, "token": "***"}, "usage": {"total_tokens": 7}},
    }


def test_what_the_process_holds_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with held(Secret("correct-horse")):
        print_json({"a": ["the correct-horse"], "correct-horse": 1})
        print_problem("no correct-horse here")
    assert "correct" not in "".join(capsys.readouterr())


def test_one_job_is_shown_without_the_keys_in_its_payload() -> None:
    job = job_info(
        "j",
        {
            "service_required": b"t",
            "status": b"failed",
            "error": b'{"client_secret": "hunter2"}',
            "payload": b'{"prompt": "x", "api_key": "hunter2", "nested": [{"password": "hunter2"}]}',
        },
    )
    assert "hunter2" not in str(details(job)) + json.dumps(shown(msgspec.structs.asdict(job)))


def test_the_traceback_of_a_defect_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ValueError("a\x1b[2J\x9b2J \u202egnp.exe")) == FAILED
    err = capsys.readouterr().err
    assert all(line.isprintable() for line in err.split("\n"))
    assert "ValueError: a\\x1b[2J\\x9b2J \\u202egnp.exe" in err
