"""The command line as a whole: help, speed of start, wrong usage, exit codes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emp_trio import __version__, cli
from emp_trio.cli import COMMANDS, main, run
from emp_trio.errors import ConfigError, LeaseLost, Problem, QueueError, ServiceError

NAMES = [command.name for command in COMMANDS]


def command_function(name: str) -> Any:
    return getattr(importlib.import_module(f"emp_trio.cli.{name}"), name)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the ``schema`` command raise what it is given; gives the function that sets it."""

    def set_error(error: BaseException) -> None:
        async def schema() -> None:
            raise error

        monkeypatch.setattr("emp_trio.cli.schema.schema", schema)

    return set_error


def test_the_help_names_every_command_under_its_group_and_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert out.index("─ Run ─") < out.index("─ Look ─") < out.index("─ Act ─") < out.index("─ Options ─")
    for command in COMMANDS:
        assert f"│ {command.name} " in out
        assert command.summary.split()[0] in out
    assert "    emp-trio demo  " in out
    assert run([]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize("name", NAMES)
def test_each_command_says_what_it_does_and_shows_how(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    out = capsys.readouterr().out
    summary = next(command.summary for command in COMMANDS if command.name == name)
    assert command_function(name).__doc__.splitlines()[0] == summary
    assert summary in out
    assert f"    emp-trio {name}" in out, "its docstring shows an example, indented"
    assert "--no-" not in out
    assert "[default: ]" not in out


def test_help_does_not_import_what_is_slow() -> None:
    script = """if True:
        import sys
        from emp_trio.cli import COMMANDS, run
        for words in [["--help"], *([command.name, "--help"] for command in COMMANDS)]:
            run(words)
            print("after", *words, *(f"<{name}>" for name in sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    slow = "trio trio_asyncio asyncio redis httpx azure starlette hypercorn structlog ssl rich.progress"
    for line in done.stdout.splitlines():
        if line.startswith("after "):
            assert [name for name in slow.split() if f"<{name}>" in line] == [], line[:30]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"emp-trio {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chekc"], "error: there is no command 'chekc'; did you mean 'check'?\nSee: emp-trio --help\n"),
        (["xyzzy"], "error: there is no command 'xyzzy'\nSee: emp-trio --help\n"),
        (["--nope"], "error: there is no option '--nope'\nSee: emp-trio --help\n"),
        (["connectors", "--jsn"], "Did you mean --json?\nSee: emp-trio connectors --help\n"),
        (["simulate"], "See: emp-trio simulate --help\n"),
        (["simulate", "http", "--port", "x"], "See: emp-trio simulate --help\n"),
        (["simulate", "http", "--port", "70000"], "See: emp-trio simulate --help\n"),
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    captured = capsys.readouterr()
    assert captured.err.endswith(said)
    assert captured.out == ""


def test_an_unknown_command_is_explained_without_importing_the_others() -> None:
    script = "import sys; from emp_trio.cli import run; run(['chekc']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {f"emp_trio.cli.{name}" for name in NAMES} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("the mapping is wrong"), 2),
        (QueueError("no Redis at localhost:6379"), 1),
        (ExceptionGroup("both", [LeaseLost("no lease"), ConfigError("no key")]), 2),
        (ExceptionGroup("deep", [ExceptionGroup("deeper", [ServiceError("down")])]), 1),
    ],
)
def test_our_errors_are_shown_by_their_text_alone(
    error: Exception, code: int, raising: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error)
    assert run(["schema"]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    leaves = error.exceptions if isinstance(error, ExceptionGroup) else [error]
    for leaf in leaves:
        text = str(leaf.exceptions[0] if isinstance(leaf, ExceptionGroup) else leaf)
        assert f"error: {text}\n" in err


def test_every_problem_of_a_configuration_is_shown(raising: Any, capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem(path=f"$.workers[{n}]", message="wrong", hint="mend it", column=n) for n in (1, 2)]
    raising(ConfigError("the mapping is wrong", problems=problems))
    assert run(["schema"]) == 2
    assert capsys.readouterr().err == (
        "error: the mapping is wrong\n"
        "  $.workers[1] column 1: wrong (mend it)\n"
        "  $.workers[2] column 2: wrong (mend it)\n"
    )


def test_a_defect_is_called_one_and_hides_secrets(raising: Any, capsys: pytest.CaptureFixture[str]) -> None:
    raising(ZeroDivisionError("redis://user:opensesame@host"))
    assert run(["schema"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("internal error: this is a defect of emp-trio")
    assert "ZeroDivisionError" in err
    assert "opensesame" not in err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt(), ValueError()])])
def test_an_interrupt_by_the_user_is_no_failure_of_ours(
    error: BaseException, raising: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error)
    assert run(["schema"]) == 130
    assert capsys.readouterr().err == ""


def test_what_a_command_returns_is_the_exit_code_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emp_trio.cli.schema.schema", lambda: 1)
    with pytest.raises(SystemExit) as left:
        main(["schema"])
    assert left.value.code == 1


def test_it_runs_as_a_module_and_ends_quietly_when_its_reader_has_seen_enough() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "emp_trio", "connectors", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_completion_can_be_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emp_trio", "--install-completion", "--shell", "bash"],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    script = tmp_path / ".local/share/bash-completion/completions/emp-trio"
    assert str(script) in done.stdout
    for name in NAMES:
        assert name in script.read_text()


def test_every_module_of_a_command_is_in_the_table() -> None:
    folder = Path(cli.__file__).parent
    commands = {
        path.stem for path in folder.glob("*.py") if path.read_text().startswith(f'"""``emp-trio {path.stem}``')
    }
    assert commands == set(NAMES)
