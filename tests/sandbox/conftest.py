"""What the sandbox's own tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.config import Function
from sandbox.pytest_plugin import StartSandbox, lambda_sandbox
from sandbox.sandbox import Sandbox
from tests.sandbox.actors import Actors

__all__ = ["lambda_sandbox"]

_IDLE = "#!/bin/sh\nexec sleep 600\n"


@pytest.fixture
def scripted(lambda_sandbox: StartSandbox, tmp_path: Path) -> Iterator[Callable[..., Actors]]:
    """A sandbox whose processes only sleep: the test plays the runtime and the extensions itself.

    `scripted(extensions=["one"], **Function's fields)`; more fields of Sandbox's in `options`.
    """
    started: list[Actors] = []

    def start(extensions: list[str] | None = None, options: dict[str, Any] | None = None, **fields: Any) -> Actors:
        task, opt = tmp_path / f"task-{len(started)}", tmp_path / f"opt-{len(started)}"
        task.mkdir()
        (opt / "extensions").mkdir(parents=True)
        for path in [task / "bootstrap", *(opt / "extensions" / name for name in extensions or [])]:
            path.write_text(_IDLE)
            path.chmod(0o755)
        # A stopped process answers nothing, but here the test answers.
        chosen = {"freezes": False, "isolate": False, "limit_memory": False, **(options or {})}
        function = Function(task, opt=opt, **fields)
        started.append(Actors(lambda: lambda_sandbox(function, **chosen)))
        return started[-1]

    yield start
    for actors in started:
        actors.close()


@pytest.fixture
def python_function(tmp_path: Path) -> Callable[..., Function]:
    """`python_function("def handler(event, context): …", **Function's fields)`."""

    def make(code: str, **fields: Any) -> Function:
        task = tmp_path / f"code-{len(list(tmp_path.iterdir()))}"
        task.mkdir()
        (task / "index.py").write_text(code)
        return Function(task, runtime=runtime_folder("python"), **fields)

    return make


def runtime_folder(name: str) -> Path:
    return Path(__file__).parents[2] / "sandbox" / "runtimes" / name


def answers(sandbox: Sandbox) -> list[tuple[str, str, int]]:
    """Every API call that was answered: who, what, status."""
    return [(one.who, one.what, one.detail["status"]) for one in sandbox.journal.entries("answer")]
