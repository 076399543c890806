"""What the language tests share, and the matrix that a run prints at its end."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import layer as layer
from tests.e2e.conftest import moto as moto
from tests.languages.clients import CLIENTS, Client
from tests.languages.matrix import SEEN, table


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(SEEN, {})


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(client, id=client.language, marks=() if client.quick else pytest.mark.all) for client in CLIENTS
    ],
)
def client(request: pytest.FixtureRequest) -> Client:
    """One language after the other. Those that take a compiler run with --all only."""
    chosen: Client = request.param
    return chosen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints what the run saw of the matrix."""
    seen = config.stash.get(SEEN, {})
    if seen:
        terminalreporter.section("what was captured, by language")
        terminalreporter.write_line(table(seen))
