"""Fixtures for everybody: one real server per test process, emptied before each test that asks for it; and where the
real blob service is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

NO_AZURITE: Final = "the blob service is missing: "
CACHE: Final = Path(os.environ.get("EMP_TRIO_CACHE") or Path(__file__).parents[1] / ".cache")
"""Where Azurite is installed on first use."""

# A slow or busy machine must not turn a property red: no limit on one example's time, none on making examples.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """URL of a real server of this test process's own; one per pytest-xdist worker. Nothing empties it."""
    from emp_trio.testing.valkey import valkey_server

    with valkey_server() as url:
        yield url


@pytest.fixture
def valkey(valkey_url: str) -> str:
    """URL of the server of :func:`valkey_url`, without any data or function."""
    import redis

    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        client.function_flush()
    return valkey_url


@pytest.fixture(scope="session")
def azurite_cache() -> Path:
    """The folder in which Azurite is installed. Where it can't be, its tests are skipped and the whole run fails, with
    one line at its end."""
    from emp_trio.testing.azurite import install_azurite

    try:
        install_azurite(CACHE)
    except RuntimeError as error:
        pytest.skip(NO_AZURITE + " ".join(str(error).split()))
    return CACHE


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run without the real blob service has not tested what it should have: it fails."""
    if _azurite_missing(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say once what kept its tests from running."""
    if missing := _azurite_missing(config):
        terminalreporter.section("not tested")
        terminalreporter.line(f"{len(missing)} tests need Azurite; {missing[0]}")


def _azurite_missing(config: pytest.Config) -> list[str]:
    """Why each of the tests that need it was skipped; nothing in a process that only runs tests for another one."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reasons = [report.longrepr[2] for report in reporter.stats.get("skipped", [])] if reporter is not None else []
    return [reason.partition("Skipped: ")[2] for reason in reasons if NO_AZURITE in reason]
