"""A fixture for tests of functions, layers and extensions: `from sandbox.pytest_plugin import lambda_sandbox` in a conftest.py."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.config import Function
from sandbox.sandbox import Sandbox

StartSandbox = Callable[..., Sandbox]


@pytest.fixture
def lambda_sandbox(tmp_path: Path) -> Iterator[StartSandbox]:
    """`lambda_sandbox(function, **options)` starts a sandbox (its options are Sandbox's) that ends with the test.

    Each has a folder of its own, unless `folder` is given. A fault of the sandbox itself fails the test.
    """
    count = 0
    with contextlib.ExitStack() as stack:

        def start(function: Function, folder: Path | None = None, **options: Any) -> Sandbox:
            nonlocal count
            count += 1
            return stack.enter_context(Sandbox(function, folder or tmp_path / f"sandbox-{count}", **options))

        yield start
