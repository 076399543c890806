"""Another team's extension in the sandbox, on the crate lambda-extension, which reads every event into types of its own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.config import Function
from sandbox.pytest_plugin import StartSandbox
from tests.sandbox.rust_peer import program

CODE = """
import os

def handler(event, context):
    print("hello")
    if event.get("do") == "exit":
        os._exit(1)
    return event
"""


@pytest.mark.all
def test_an_extension_on_the_crate_lambda_extension(
    lambda_sandbox: StartSandbox, python_function: Callable[..., Function], tmp_path: Path
) -> None:
    opt = tmp_path / "opt"
    (opt / "extensions").mkdir(parents=True)
    shutil.copy(program("their_extension"), opt / "extensions" / "their_extension")
    sandbox = lambda_sandbox(python_function(CODE, opt=opt, memory_mb=256, timeout_s=5))
    first = sandbox.invoke(b"{}")
    crash = sandbox.invoke(b'{"do": "exit"}')
    last = sandbox.invoke(b"{}")
    sandbox.settle()
    sandbox.stop()
    lines = sandbox.log_lines("their_extension")
    ids = [answer.request_id for answer in (first, crash, last)]
    assert [line.split()[1] for line in lines if line.startswith("invoke")] == ids
    assert [line for line in lines if line.startswith("shutdown")] == ["shutdown failure", "shutdown spindown"]
    seen = [match.group(1) for line in lines if (match := re.match(r"telemetry (\w+)", line))]
    init = ["PlatformInitStart", "PlatformTelemetrySubscription", "PlatformInitRuntimeDone", "PlatformExtension"]
    invocation = ["PlatformStart", "PlatformRuntimeDone", "PlatformReport"]
    life = [*init, "PlatformInitReport"]
    assert [kind for kind in seen if kind != "Function"] == [*life, *invocation, *invocation, *life, *invocation]
    assert seen.count("Function") == 3
