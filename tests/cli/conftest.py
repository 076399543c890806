"""The command on the same AWS in this process as the handlers' tests."""

from __future__ import annotations

from tests.handlers.conftest import environment, mocked, world

__all__ = ["environment", "mocked", "world"]
