"""The sandbox against the crate lambda-simulator, for what AWS's emulator lacks: telemetry on demand, freeze and thaw.

The same extension and runtime run through both. Known differences are exact, as in test_differential.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from sandbox.config import Function
from sandbox.sandbox import Sandbox
from tests.sandbox.rust_peer import RustPeer

PROGRAMS = Path(__file__).parent / "programs" / "python"
EVENTS: list[dict[str, Any]] = [{"do": "ok"}, {"do": "fail"}, {"do": "ok"}]
WAIT_S = 15.0

NEXT = ["lambda-runtime-aws-request-id", "lambda-runtime-deadline-ms", "lambda-runtime-invoked-function-arn"]
NEXT_CALL = {"call": "GET invocation/next", "status": 200}


@dataclass(frozen=True, slots=True)
class Known:
    """One difference: where, what each of them has, how often."""

    where: str
    peer: Any
    sandbox: Any
    times: int
    reason: str


KNOWN = [
    Known(
        "runtime",
        {**NEXT_CALL, "headers": [*NEXT, "lambda-runtime-trace-id"]},
        {**NEXT_CALL, "headers": sorted([*NEXT, "lambda-runtime-invocation-id", "lambda-runtime-trace-id"])},
        3,
        "the crate is older than the invocation's id",
    ),
    Known(
        "platform",
        ["platform.runtimeDone", "error"],
        ["platform.runtimeDone", "success"],
        1,
        "a handled error is a success for telemetry: AWS says that it is intended, and its emulator does the same",
    ),
    Known("platform", ["platform.report", "error"], ["platform.report", "success"], 1, "as above"),
    Known("extension states", [], [["one", "Ready"]], 1, "the crate has no platform.extension"),
]


def notes(tmp: Path, name: str) -> list[Any]:
    path = tmp / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    """Another process's state cannot be waited for: asked again and again."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.005)


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def seen(tmp: Path, events: list[tuple[str, dict[str, Any]]], frozen: list[bool]) -> dict[str, list[Any]]:
    """What is compared."""
    return {
        "runtime": notes(tmp, "calls-runtime"),
        "extension": notes(tmp, "calls-one"),
        "platform": [[kind, record.get("status")] for kind, record in events if kind != "platform.extension"],
        "extension states": [
            [[record["name"], record["state"]] for kind, record in events if kind == "platform.extension"]
        ],
        "frozen after each invocation": frozen,
    }


def through_the_peer(folder: Path) -> dict[str, list[Any]]:
    folder.mkdir()
    extension = folder / "one"
    shutil.copy(PROGRAMS / "extension", extension)
    frozen = []
    with RustPeer() as peer:
        environment = {"PATH": os.environ["PATH"], "AWS_LAMBDA_RUNTIME_API": peer.api, "TMPDIR": str(folder)}
        quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([extension], **quiet) as one:  # type: ignore[call-overload]
            peer.ask(f"freeze {one.pid}")
            peer.ask("extensions 1")
            with subprocess.Popen([PROGRAMS / "bootstrap"], **quiet) as runtime:  # type: ignore[call-overload]
                peer.ask(f"freeze {runtime.pid}")
                for event in EVENTS:
                    peer.ask(f"invoke {json.dumps(event)}")
                    peer.ask("frozen")
                    wait_for(lambda: stopped(one.pid) and stopped(runtime.pid))
                    frozen.append(True)
                events = [(event["type"], event["record"]) for event in peer.ask("telemetry")]
                peer.ask("shutdown")
                one.wait(WAIT_S)
                runtime.kill()
    return seen(folder, events, frozen)


def through_the_sandbox(folder: Path) -> dict[str, list[Any]]:
    opt, task = folder / "opt", folder / "task"
    (opt / "extensions").mkdir(parents=True)
    task.mkdir()
    shutil.copy(PROGRAMS / "extension", opt / "extensions" / "one")
    shutil.copy(PROGRAMS / "bootstrap", task / "bootstrap")
    frozen = []
    with Sandbox(Function(task, opt=opt), folder / "environment") as sandbox:
        for event in EVENTS:
            sandbox.invoke(json.dumps(event).encode())
            pids = sandbox.environment.host.members()
            wait_for(lambda pids=pids: all(map(stopped, pids)))  # type: ignore[misc]
            frozen.append(len(pids) == 2)
        sandbox.stop()
        return seen(folder / "environment" / "tmp", sandbox.platform_events(), frozen)


@pytest.mark.all
def test_telemetry_on_demand_and_freezing_are_alike(tmp_path: Path) -> None:
    peer, sandbox = through_the_peer(tmp_path / "peer"), through_the_sandbox(tmp_path / "sandbox")
    found: Counter[str] = Counter()
    for where, theirs in peer.items():
        for one, other in zip_longest(theirs, sandbox[where]):
            if one != other:
                found[json.dumps([where, one, other], sort_keys=True)] += 1
    known = Counter({json.dumps([one.where, one.peer, one.sandbox], sort_keys=True): one.times for one in KNOWN})
    assert found - known == Counter(), "differences that are not known"
    assert known - found == Counter(), "known differences that are not there"
