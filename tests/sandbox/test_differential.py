"""The sandbox against AWS's own emulator: the same extension and runtime through both, in three languages and two modes.

Compared are the API calls that each made, with status and what came back; what the caller got; and telemetry, where the
emulator has it. Known differences are exact: where, what the emulator has, what the sandbox has, and how many times.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import pytest

from sandbox.config import Function, Mode
from sandbox.sandbox import Sandbox
from tests.sandbox.rie import Emulator

PROGRAMS = Path(__file__).parent / "programs"
CLASSIC, MANAGED = "classic", "managed"
WAIT_S = 15.0

EVENTS: dict[str, list[dict[str, Any]]] = {
    CLASSIC: [
        {"do": "ok"},
        {"do": "fail"},
        {"do": "again"},
        {"do": "unknown"},
        {"do": "twice"},
        {"do": "exit"},
        {"do": "ok"},
        {"do": "sleep", "seconds": 600},
        {"do": "ok"},
    ],
    MANAGED: [{"do": "ok"}, {"do": "fail"}, {"do": "again"}, {"do": "unknown"}, {"do": "sleep", "seconds": 1.2}, {"do": "exit"}],
}  # fmt: skip

NEXT = ["lambda-runtime-aws-request-id", "lambda-runtime-deadline-ms", "lambda-runtime-invoked-function-arn"]
INVOCATION_ID, TRACE_ID = "lambda-runtime-invocation-id", "lambda-runtime-trace-id"
PLATFORM_START = ["functionArn", "requestId", "version"]
REPORT = ["metrics", "requestId"]
INIT_START = ["functionName", "functionVersion", "initializationType", "instanceId", "instanceMaxMemory", "phase"]
RUNTIME_VERSION = ["runtimeVersion", "runtimeVersionArn"]


@dataclass(frozen=True, slots=True)
class Known:
    """One difference, as often as it is there in each language of `languages`."""

    mode: str
    where: str
    emulator: Any
    sandbox: Any
    times: int
    reason: str
    languages: tuple[str, ...] = ("python", "node", "bash")


def next_call(headers: list[str]) -> dict[str, Any]:
    return {"call": "GET invocation/next", "status": 200, "headers": sorted(headers)}


def shutdown_call(reason: str) -> dict[str, Any]:
    return {
        "call": "GET /2020-01-01/extension/event/next",
        "status": 200,
        "eventType": "SHUTDOWN",
        "shutdownReason": reason,
    }


SUBSCRIBE: dict[str, Any] = {"call": "PUT /2022-07-01/telemetry"}

KNOWN = [
    Known(
        CLASSIC,
        "runtime",
        next_call(NEXT),
        next_call([*NEXT, INVOCATION_ID, TRACE_ID]),
        10,
        "Lambda sends both headers; the emulator's classic mode has no tracing, and is older than the invocation's id",
    ),
    Known(
        CLASSIC,
        "extension",
        {**SUBSCRIBE, "status": 202, "errorType": "Telemetry.NotSupported"},
        {**SUBSCRIBE, "status": 200},
        3,
        "the emulator's classic mode has no telemetry",
        ("python", "node"),
    ),
    Known(
        CLASSIC,
        "extension",
        shutdown_call("ReleaseFail"),
        shutdown_call("failure"),
        1,
        "AWS's pages name the reasons spindown, timeout and failure",
    ),
    Known(CLASSIC, "extension", shutdown_call("Timeout"), shutdown_call("timeout"), 1, "as above: upper case"),
    Known(CLASSIC, "extension", shutdown_call("SandboxTerminated"), shutdown_call("spindown"), 1, "as above"),
    Known(
        CLASSIC,
        "answer",
        "Task timed out after 1.00 seconds",
        {"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: {id} Error: Task timed out after 1.00 seconds"},
        1,
        "Lambda answers JSON",
    ),
    Known(
        MANAGED,
        "runtime",
        next_call([*NEXT, INVOCATION_ID]),
        next_call([*NEXT, INVOCATION_ID, TRACE_ID]),
        6,
        "the emulator has no tracing",
    ),
    Known(
        MANAGED,
        "platform",
        {"type": "platform.start", "fields": PLATFORM_START},
        {"type": "platform.start", "fields": sorted([*PLATFORM_START, "tracing"])},
        6,
        "the emulator has no tracing",
        ("python", "node"),
    ),
    *(
        Known(
            MANAGED,
            "platform",
            {"type": "platform.report", "fields": fields, **shown},
            {"type": "platform.report", "fields": sorted([*fields, "tracing"]), **shown},
            times,
            "the emulator has no tracing",
            ("python", "node"),
        )
        for times, fields, shown in (
            (3, [*REPORT, "spans", "status"], {"status": "success"}),
            (1, ["errorType", *REPORT, "spans", "status"], {"status": "error", "errorType": "Runtime.Unknown"}),
            (1, ["errorType", *REPORT, "status"], {"status": "timeout", "errorType": "Sandbox.Timedout"}),
            (1, ["errorType", *REPORT, "status"], {"status": "error", "errorType": "Runtime.ExitError"}),
        )
    ),
    Known(
        MANAGED,
        "platform",
        {"type": "platform.initStart", "phase": "init", "fields": sorted([*INIT_START, *RUNTIME_VERSION])},
        {"type": "platform.initStart", "phase": "init", "fields": INIT_START},
        1,
        "the fields are optional, and the sandbox's runtimes have no version of AWS's",
        ("python", "node"),
    ),
]


class Peer(Protocol):
    """What the test does with either of them."""

    def invoke(self, event: bytes) -> bytes: ...

    def stop(self) -> None: ...


class EmulatorPeer:
    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def invoke(self, event: bytes) -> bytes:
        """On Managed Instances the emulator refuses an event while no runtime waits in /next; the sandbox waits for it."""
        deadline = time.monotonic() + WAIT_S
        while True:
            body = self._emulator.invoke(event)[1]
            if b"Runtime.Unavailable" not in body or time.monotonic() > deadline:
                return body
            time.sleep(0.01)

    def stop(self) -> None:
        self._emulator.stop()


class SandboxPeer:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def invoke(self, event: bytes) -> bytes:
        return self._sandbox.invoke(event).payload

    def stop(self) -> None:
        self._sandbox.settle()
        self._sandbox.stop()


@contextmanager
def emulator_peer(function: Function, folder: Path) -> Iterator[Peer]:
    with Emulator(function, folder) as emulator:
        yield EmulatorPeer(emulator)


@contextmanager
def sandbox_peer(function: Function, folder: Path) -> Iterator[Peer]:
    with Sandbox(function, folder) as sandbox:
        yield SandboxPeer(sandbox)


PEERS: list[Callable[[Function, Path], Any]] = [emulator_peer, sandbox_peer]

Seen = dict[str, list[Any]]


def play(make: Callable[[Function, Path], Any], function: Function, folder: Path, mode: str) -> Seen:
    """All that one peer showed, under `answer`, `runtime`, `extension`, `platform`, `function log` and `extension log`."""
    answers: list[Any] = []
    tmp = folder / "tmp"
    with make(function, folder) as peer:
        for event in EVENTS[mode]:
            answers.append(without_ids(peer.invoke(json.dumps(event).encode())))
            if mode == MANAGED and event["do"] == "sleep":
                # The late answer, and the /next after it.
                wait_for(lambda: sum(call["call"].startswith("POST") for call in notes(tmp, "calls-runtime")) == 7)
        if mode == MANAGED:
            wait_for(lambda: any("shutdownReason" in call for call in notes(tmp, "calls-one")))
        peer.stop()
    telemetry = notes(tmp, "telemetry-one")
    return {
        "answer": answers,
        "runtime": notes(tmp, "calls-runtime"),
        "extension": notes(tmp, "calls-one"),
        "platform": [platform_event(one) for one in telemetry if one["type"].startswith("platform.")],
        "function log": [one["record"] for one in telemetry if one["type"] == "function"],
        "extension log": [one["record"] for one in telemetry if one["type"] == "extension"],
    }


def platform_event(event: dict[str, Any]) -> dict[str, Any]:
    """Its type, which fields it has, and those values that do not differ from run to run."""
    record = event["record"]
    shown = {name: record[name] for name in ("phase", "status", "errorType", "state", "events") if name in record}
    return {"type": event["type"], "fields": sorted(record), **shown}


def without_ids(body: bytes) -> Any:
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "{id}", body.decode())
    try:
        return json.loads(text)
    except ValueError:
        return text


def notes(tmp: Path, name: str) -> list[Any]:
    path = tmp / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    """Another process's file cannot be waited for: asked again and again."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


def differences(mode: str, emulator: Seen, sandbox: Seen) -> Counter[str]:
    """Every place where the two differ, as text, and how often."""
    found: Counter[str] = Counter()
    for where, theirs in emulator.items():
        if mode == CLASSIC and where in ("platform", "function log", "extension log"):
            assert theirs == []
            continue
        for one, other in zip_longest(theirs, sandbox[where]):
            if one != other:
                found[shown(where, one, other)] += 1
    return found


def shown(where: str, emulator: Any, sandbox: Any) -> str:
    return json.dumps([where, emulator, sandbox], sort_keys=True)


@pytest.mark.parametrize("mode", [CLASSIC, MANAGED])
@pytest.mark.parametrize("language", ["python", "node", "bash"])
def test_the_same_programs_see_the_same(tmp_path: Path, language: str, mode: str) -> None:
    if os.geteuid() != 0:
        pytest.fail("the emulator needs root; run the tests as root, or deselect this file")
    for folder in [tmp_path, *tmp_path.parents[:2]]:
        # On Managed Instances the emulator runs extensions as another user.
        folder.chmod(0o755)
    opt = tmp_path / "opt"
    (opt / "extensions").mkdir(parents=True)
    shutil.copy(PROGRAMS / language / "extension", opt / "extensions" / "one")
    task = tmp_path / "task"
    task.mkdir()
    shutil.copy(PROGRAMS / language / "bootstrap", task / "bootstrap")
    # The emulator drops a batch while the one before is on its way: on a busy machine that must not come too soon.
    environment = {"EXTENSION_SCHEMA": "2025-01-29", "EXTENSION_TIMEOUT_MS": "500"}
    if mode == MANAGED:
        environment["EXTENSION_EVENTS"] = "SHUTDOWN"
    function = Function(
        task,
        opt=opt,
        timeout_s=1,
        memory_mb=512,
        mode=Mode.MANAGED if mode == MANAGED else Mode.ON_DEMAND,
        environment=environment,
    )

    emulator, sandbox = (play(make, function, tmp_path / make.__name__, mode) for make in PEERS)

    known = Counter(
        {
            shown(one.where, one.emulator, one.sandbox): one.times
            for one in KNOWN
            if one.mode == mode and language in one.languages
        }
    )
    found = differences(mode, emulator, sandbox)
    assert found - known == Counter(), "differences that are not known"
    assert known - found == Counter(), "known differences that are not there"
