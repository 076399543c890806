"""Options and profiles that every test shares."""

from __future__ import annotations

import pytest
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", default=False, help="also run tests marked 'all', with large seeds")


def pytest_configure(config: pytest.Config) -> None:
    # A process may be stopped for tens of milliseconds on a busy two-core machine, hence no deadline per example.
    settings.register_profile("small", max_examples=50, deadline=None)
    settings.register_profile("large", max_examples=1000, deadline=None)
    settings.load_profile("large" if config.getoption("--all") else "small")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --all, tests marked 'all' are deselected: counted by pytest, never shown as skipped."""
    if config.getoption("--all"):
        return
    wide = [item for item in items if item.get_closest_marker("all")]
    if wide:
        config.hook.pytest_deselected(items=wide)
        items[:] = [item for item in items if not item.get_closest_marker("all")]
