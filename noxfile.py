"""What is checked before a release, each in an environment of its own: ``nox``, or one of them with ``nox -s NAME``.

``./run test`` and ``./run check`` do the every-day part without nox.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
PARALLEL = ["--numprocesses", "4"]
EXTRAS = "azure,s3,gcs,otel"

nox.needs_version = ">=2025.10"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["tests", "proofs", "minimums", "types", "lint", "docs"]


def _offer_all_pythons() -> None:
    """Let pyenv's shims run each Python there is, and keep uv from looking for more on the network."""
    os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [max(versions.glob(f"{python}.*"), key=_patch, default=None) for python in PYTHONS]
    if any(found):
        os.environ["PYENV_VERSION"] = ":".join(path.name for path in found if path)


def _patch(path: Path) -> int:
    number = path.name.rpartition(".")[2]
    return int(number) if number.isdigit() else -1


_offer_all_pythons()


def _install(session: nox.Session) -> None:
    """The exact dependencies of constraints.txt and this checkout."""
    session.install("--require-hashes", "--no-deps", "-r", "constraints.txt")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, on each supported Python. Arguments go to pytest."""
    _install(session)
    session.run("pytest", *(session.posargs or PARALLEL))


@nox.session(python=PYTHONS[0])
def proofs(session: nox.Session) -> None:
    """The tests with the long form of those that have one, such as a cut at every byte; takes half an hour."""
    _install(session)
    session.run("pytest", *(session.posargs or PARALLEL), env={"EMP_TRIO_HEAVY": "1"})


@nox.session(python=PYTHONS[0])
def chaos(session: nox.Session) -> None:
    """Kills, freezes, cuts and outages of real processes at the default settings, and the table of docs/proofs.md anew.

    Takes half an hour and wants a machine that does nothing else: it judges how soon jobs are recovered. EMP_TRIO_SEED
    repeats what a run drew by chance; it is another one each time and shown where a test failed.
    """
    _install(session)
    rows = Path(session.create_tmp()) / "rows"
    rows.unlink(missing_ok=True)
    env = {"EMP_TRIO_HEAVY": "1", "EMP_TRIO_CHAOS_ROWS": str(rows)}
    arguments = session.posargs or ["--numprocesses", "2"]
    try:
        session.run("pytest", "tests/chaos", "-o", "faulthandler_timeout=0", *arguments, env=env)
    finally:
        session.run("python", "-m", "tests.chaos.rows", str(rows), "docs/proofs.md")


@nox.session(python=PYTHONS[0])
def minimums(session: nox.Session) -> None:
    """The tests with the lowest versions that pyproject.toml allows."""
    session.install("--resolution", "lowest-direct", "--group", "test", "-e", f".[{EXTRAS}]")
    session.run("pytest", *(session.posargs or PARALLEL))


@nox.session(python=PYTHONS[0])
def types(session: nox.Session) -> None:
    """mypy, strict."""
    _install(session)
    session.run("mypy")


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Format, lint, and the floors between the packages."""
    _install(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """Everything the pages promise: links, commands, generated parts, docstrings; and the examples run."""
    _install(session)
    session.run("pytest", "tests/project", *session.posargs)


@nox.session(python=PYTHONS[0])
def clients(session: nox.Session) -> None:
    """The vendors' own clients, the newest of each, against our fakes: these must not agree with our faults."""
    _install(session)
    session.install("openai", "google-genai", "ollama")
    session.run("pytest", "tests/vendors", "-rs", *session.posargs)


@nox.session(python=PYTHONS[0])
def others(session: nox.Session) -> None:
    """The connectors against servers that others wrote; the newest of each, from the registries that pip and npm use.

    steady also needs OpenAI's OpenAPI document, which no registry has: EMP_TRIO_TEST_OPENAPI names a copy.
    """
    _install(session)
    session.install("llmock", "fastresponses")
    node = Path(".cache/others").absolute()
    node.mkdir(parents=True, exist_ok=True)
    packages = ["@copilotkit/aimock", "@stdy/cli"]
    session.run(
        "npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(node), *packages, external=True
    )
    session.run("pytest", "tests/others", "-rs", *session.posargs)


@nox.session(python=False)
def bench(session: nox.Session) -> None:
    """Ourselves beside other queues on one Redis. Arguments go to benchmarks/peers/run.py; takes half an hour."""
    session.env.setdefault("BENCH_SCRATCH", str(Path(".cache/bench").absolute()))
    session.run("bash", "benchmarks/peers/run_all.sh", *session.posargs, external=True)
