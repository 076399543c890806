"""The whole life of an environment, with real processes: a Python function, and a small extension in Python."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.config import Function, Limits, Mode
from sandbox.invocation import Call
from sandbox.pytest_plugin import StartSandbox
from sandbox.sandbox import Sandbox
from sandbox.startup import InitFailed

PROGRAMS = Path(__file__).parent / "programs"
MakeFunction = Callable[..., Function]

CODE = """
import json, os, pathlib, sys, time

STARTED = time.time()

def handler(event, context):
    do = event.get("do") if isinstance(event, dict) else None
    print("handling", json.dumps(event))
    if do == "fail":
        raise ValueError("no good")
    if do == "exit":
        os._exit(event.get("status", 1))
    if do == "kill":
        os.kill(os.getpid(), 9)
    if do == "sleep":
        time.sleep(600)
    if do == "grow":
        kept = []
        while True:
            kept.append(bytearray(b"x" * (4 << 20)))
    if do == "tmp":
        path = pathlib.Path(os.environ.get("TMPDIR", "/tmp"), "kept")
        before = path.read_text() if path.exists() else ""
        path.write_text(before + "x")
        return len(before)
    if do == "environment":
        return dict(os.environ)
    if do == "context":
        return [context.tenant_id, context.client_context]
    return {"started": STARTED, "pid": os.getpid()}
"""


@pytest.fixture
def start(lambda_sandbox: StartSandbox, python_function: MakeFunction, tmp_path: Path) -> Callable[..., Sandbox]:
    """`start(extensions=["one"], code=…, **Function's fields)`; Sandbox's options in `options`."""

    def make(
        extensions: list[str] | None = None, code: str = CODE, options: dict[str, Any] | None = None, **fields: Any
    ) -> Sandbox:
        if extensions:
            opt = tmp_path / "opt"
            (opt / "extensions").mkdir(parents=True)
            for name in extensions:
                (opt / "extensions" / name).symlink_to(PROGRAMS / "python" / "extension")
            fields["opt"] = opt
        # Memory control groups of other tests' making apart, a small function needs what Python needs.
        return lambda_sandbox(python_function(code, **{"timeout_s": 5, **fields}), **(options or {}))

    return make


def notes(sandbox: Sandbox, kind: str, name: str = "one") -> list[dict[str, Any]]:
    assert sandbox.place is not None
    path = sandbox.place.outside(f"/tmp/{kind}-{name}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kinds(sandbox: Sandbox) -> list[str]:
    return [kind.removeprefix("platform.") for kind, _ in sandbox.platform_events()]


def event(sandbox: Sandbox, kind: str) -> list[Any]:
    return [record for _, record in sandbox.platform_events(f"platform.{kind}")]


# -- init, invoke, shutdown ----------------------------------------------------------------------------------------


def test_a_life_from_cold_start_to_spin_down(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"])
    assert json.loads(sandbox.invoke(b"{}").payload)["pid"] > 0
    sandbox.invoke(b"{}")
    sandbox.settle()
    sandbox.stop()
    assert kinds(sandbox) == (
        ["initStart", "initRuntimeDone", "extension", "initReport"] + ["start", "runtimeDone", "report"] * 2
    )
    assert [call["call"].rpartition("/")[2] for call in notes(sandbox, "calls")] == ["register"] + ["next"] * 3
    assert notes(sandbox, "calls")[-1] == {
        "call": "GET /2020-01-01/extension/event/next",
        "status": 200,
        "eventType": "SHUTDOWN",
        "shutdownReason": "spindown",
    }
    assert [one["payload"] for one in notes(sandbox, "calls") if "payload" in one] == [False, False]
    ended = {one.who: one.detail["returncode"] for one in sandbox.journal.entries("process") if one.what == "ended"}
    # The runtime had SIGTERM, the extension ended by itself.
    assert ended == {"runtime": -signal.SIGTERM, "one": 0}


def test_the_runtime_is_started_after_every_extension_has_registered(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one", "two"])
    sandbox.invoke(b"{}")
    order = [(one.who, one.what) for one in sandbox.journal.entries() if one.kind in ("process", "answer")]
    runtime = order.index(("runtime", "started"))
    for name in ("one", "two"):
        assert order.index((name, "POST /2020-01-01/extension/register")) < runtime


def test_first_report_tells_the_init_duration(start: Callable[..., Sandbox]) -> None:
    sandbox = start(memory_mb=512)
    sandbox.invoke(b"{}")
    sandbox.invoke(b"{}")
    sandbox.settle()
    first, second = event(sandbox, "report")
    assert first["metrics"]["initDurationMs"] > 0
    assert "initDurationMs" not in second["metrics"]
    assert first["metrics"]["memorySizeMB"] == 512
    assert first["metrics"]["maxMemoryUsedMB"] > 1


def test_a_handled_error_is_a_success_for_telemetry(start: Callable[..., Sandbox]) -> None:
    sandbox = start()
    answer = sandbox.invoke(b'{"do":"fail"}')
    sandbox.settle()
    assert json.loads(answer.payload)["errorType"] == "ValueError"
    assert answer.error_type == "Runtime.Unknown"  # like AWS's runtime, ours sends no error type in a header
    assert [record["status"] for record in event(sandbox, "runtimeDone") + event(sandbox, "report")] == ["success"] * 2


def test_log_lines_come_before_the_end_of_their_invocation(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], environment={"EXTENSION_SCHEMA": "2022-12-13"})
    for number in range(5):
        sandbox.invoke(b'{"n":%d}' % number)
    sandbox.settle()
    sandbox.stop()
    delivered = notes(sandbox, "telemetry")
    for number in range(5):
        line = next(at for at, one in enumerate(delivered) if one["record"] == f'handling {{"n": {number}}}')
        starts = [at for at, one in enumerate(delivered) if one["type"] == "platform.start"]
        dones = [at for at, one in enumerate(delivered) if one["type"] == "platform.runtimeDone"]
        assert starts[number] < line < dones[number]


def test_the_answer_does_not_wait_for_extensions_but_the_report_does(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], environment={"EXTENSION_BEHAVIOUR": "hold"})
    sandbox.invoke(b"{}")
    sandbox.journal.wait_for(lambda all_: any(one.what == "platform.runtimeDone" for one in all_), "runtimeDone")
    assert event(sandbox, "report") == []
    assert sandbox.place is not None
    sandbox.place.outside("/tmp/RELEASE").touch()
    sandbox.settle()
    (report,) = event(sandbox, "report")
    assert report["spans"][0]["name"] == "extensionOverhead"


def test_variables_of_the_runtime_and_of_extensions(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], environment={"OWN": "1", "AWS_LAMBDA_FUNCTION_NAME": "forged"}, name="orders")
    seen = json.loads(sandbox.invoke(b'{"do":"environment"}').payload)
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "orders"
    assert seen["OWN"] == "1"
    assert seen["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    (names,) = [one["names"] for one in notes(sandbox, "environment")]
    assert {"OWN", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_RUNTIME_API", "AWS_ACCESS_KEY_ID"} <= set(names)
    hidden = {"_HANDLER", "AWS_EXECUTION_ENV", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "AWS_LAMBDA_LOG_GROUP_NAME"}
    assert not hidden & set(names)


def test_tenant_and_client_context_reach_the_function(start: Callable[..., Sandbox]) -> None:
    sandbox = start()
    call = Call(b'{"do":"context"}', tenant_id="blue", client_context='{"a":1}')
    assert json.loads(sandbox.invoke(call).payload) == ["blue", {"a": 1}]


# -- failures ------------------------------------------------------------------------------------------------------

CRASHES = {
    "exit 1": (b'{"do":"exit"}', "Runtime.ExitError", "Runtime exited with error: exit status 1"),
    "exit 0": (b'{"do":"exit","status":0}', "Runtime.ExitError", "Runtime exited without providing a reason"),
    "a signal": (b'{"do":"kill"}', "Runtime.ExitError", "Runtime exited with error: signal: killed"),
}


@pytest.mark.parametrize("case", CRASHES)
def test_a_crash_resets_the_environment(start: Callable[..., Sandbox], case: str) -> None:
    sent, error_type, message = CRASHES[case]
    sandbox = start(extensions=["one"])
    first = sandbox.invoke(sent)
    assert json.loads(first.payload) == {
        "errorType": error_type,
        "errorMessage": f"RequestId: {first.request_id} Error: {message}",
    }
    assert json.loads(sandbox.invoke(b'{"do":"tmp"}').payload) == 0
    sandbox.settle()
    (done, _), (report, _) = event(sandbox, "runtimeDone"), event(sandbox, "report")
    assert (done["status"], done["errorType"]) == (report["status"], report["errorType"]) == ("error", error_type)
    shutdown = [one for one in notes(sandbox, "calls") if one.get("eventType") == "SHUTDOWN"]
    assert [one["shutdownReason"] for one in shutdown] == ["failure"]
    # The second init is part of the second invocation ("suppressed init").
    assert [record["phase"] for record in event(sandbox, "initStart")] == ["init", "invoke"]


def test_tmp_survives_a_reset(start: Callable[..., Sandbox]) -> None:
    sandbox = start()
    assert json.loads(sandbox.invoke(b'{"do":"tmp"}').payload) == 0
    sandbox.invoke(b'{"do":"exit"}')
    assert json.loads(sandbox.invoke(b'{"do":"tmp"}').payload) == 1


def test_a_timeout(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], timeout_s=0.5)
    sandbox.invoke(b"{}")
    answer = sandbox.invoke(b'{"do":"sleep"}')
    assert json.loads(answer.payload) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {answer.request_id} Error: Task timed out after 0.50 seconds",
    }
    assert 0.5 <= answer.seconds < 1.0
    sandbox.settle()
    assert event(sandbox, "runtimeDone")[-1]["status"] == event(sandbox, "report")[-1]["status"] == "timeout"
    assert notes(sandbox, "calls")[-1]["shutdownReason"] == "timeout"


def test_an_extension_that_never_comes_back_is_a_timeout_after_the_answer(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], timeout_s=0.4, environment={"EXTENSION_BEHAVIOUR": "hold"})
    answer = sandbox.invoke(b"{}")
    assert answer.error_type is None
    assert answer.seconds < 0.4 + 2.0  # the cold start's share is not bounded here
    sandbox.settle()
    assert event(sandbox, "runtimeDone")[0]["status"] == "success"
    assert event(sandbox, "report")[0]["status"] == "timeout"


def test_out_of_memory(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], memory_mb=128, timeout_s=20)
    answer = sandbox.invoke(b'{"do":"grow"}')
    assert answer.error_type == "Runtime.OutOfMemory"
    sandbox.settle()
    (report,) = event(sandbox, "report")
    assert (report["status"], report["errorType"]) == ("error", "Runtime.OutOfMemory")
    # In use it again.
    assert json.loads(sandbox.invoke(b'{"do":"tmp"}').payload) == 0


def test_out_of_memory_by_the_watcher(start: Callable[..., Sandbox]) -> None:
    sandbox = start(memory_mb=96, timeout_s=20, options={"limit_memory": False})
    assert sandbox.invoke(b'{"do":"grow"}').error_type == "Runtime.OutOfMemory"


INIT_FAILURES: dict[str, tuple[dict[str, Any], str, str]] = {
    "the code cannot be imported": (
        {"code": "raise RuntimeError('broken')"},
        "Runtime.RuntimeError",
        "Runtime.ExitError",
    ),
    "there is no handler": ({"handler": "index.nobody"}, "Runtime.AttributeError", "Runtime.ExitError"),
    "an extension ends": (
        {"extensions": ["one"], "environment": {"EXTENSION_BEHAVIOUR": "crash-in-init"}},
        "Extension.Crash",
        "Extension.Crash",
    ),
    "an extension reports init/error": (
        {"extensions": ["one"], "environment": {"EXTENSION_BEHAVIOUR": "init-error"}},
        "Extension.InitError",
        "Extension.InitError",
    ),
}


@pytest.mark.parametrize("case", INIT_FAILURES)
def test_a_failed_init_is_repeated_in_the_invocation(start: Callable[..., Sandbox], case: str) -> None:
    options, answered, error_type = INIT_FAILURES[case]
    sandbox = start(**options)
    answer = sandbox.invoke(b"{}")
    assert answer.error_type == answered
    sandbox.settle()
    reports = event(sandbox, "initReport")
    assert [(one["phase"], one["status"], one["errorType"]) for one in reports] == [
        ("init", "error", error_type),
        ("invoke", "error", error_type),
    ]


def test_init_that_takes_too_long(start: Callable[..., Sandbox]) -> None:
    sandbox = start(
        extensions=["one"],
        timeout_s=0.4,
        environment={"EXTENSION_BEHAVIOUR": "hang-in-init"},
        options={"limits": Limits(init_s=0.3, shutdown_external_s=0.1)},
    )
    assert sandbox.invoke(b"{}").error_type == "Sandbox.Timedout"
    sandbox.settle()
    assert [(one["phase"], one["status"]) for one in event(sandbox, "initReport")] == [
        ("init", "timeout"),
        ("invoke", "timeout"),
    ]


@pytest.mark.parametrize(
    ("behaviour", "error_type"), [("crash-in-invoke", "Extension.Crash"), ("exit-error", "Extension.ExitError")]
)
def test_an_extension_that_ends_fails_the_invocation(
    start: Callable[..., Sandbox], behaviour: str, error_type: str
) -> None:
    # The function waits: else its answer may come first.
    sandbox = start(extensions=["one"], environment={"EXTENSION_BEHAVIOUR": behaviour})
    assert sandbox.invoke(b'{"do":"sleep"}').error_type == error_type


def test_an_extension_that_cannot_be_executed(start: Callable[..., Sandbox], tmp_path: Path) -> None:
    opt = tmp_path / "broken"
    (opt / "extensions").mkdir(parents=True)
    (opt / "extensions" / "one").write_text("not a program")
    sandbox = start(opt=opt)
    assert sandbox.invoke(b"{}").error_type == "Extension.LaunchError"
    sandbox.settle()
    assert event(sandbox, "extension")[0] == {
        "name": "one",
        "state": "LaunchError",
        "events": [],
        "errorType": "PermissionDenied",
    }


def test_no_bootstrap(lambda_sandbox: StartSandbox, tmp_path: Path) -> None:
    (tmp_path / "empty-task").mkdir()
    sandbox = lambda_sandbox(Function(tmp_path / "empty-task"))
    assert sandbox.invoke(b"{}").error_type == "Runtime.InvalidEntrypoint"


# -- shutdown ------------------------------------------------------------------------------------------------------


def test_a_deaf_extension_is_killed_when_the_time_is_over(start: Callable[..., Sandbox]) -> None:
    limits = Limits(shutdown_external_s=0.4)
    sandbox = start(extensions=["one"], environment={"EXTENSION_BEHAVIOUR": "deaf"}, options={"limits": limits})
    sandbox.invoke(b"{}")
    sandbox.settle()
    began = time.monotonic()
    sandbox.stop()
    assert 0.3 < time.monotonic() - began < 1.5
    ended = {one.who: one.detail["returncode"] for one in sandbox.journal.entries("process") if one.what == "ended"}
    assert ended["one"] == -signal.SIGKILL


def test_without_shutdown_an_extension_is_killed_at_once(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], environment={"EXTENSION_EVENTS": "INVOKE"})
    sandbox.invoke(b"{}")
    sandbox.settle()
    sandbox.stop()
    assert [one for one in notes(sandbox, "calls") if one.get("eventType") == "SHUTDOWN"] == []
    ended = {one.who: one.detail["returncode"] for one in sandbox.journal.entries("process") if one.what == "ended"}
    assert ended == {"runtime": -signal.SIGTERM, "one": -signal.SIGKILL}


def test_without_extensions_the_runtime_is_killed_at_once(start: Callable[..., Sandbox]) -> None:
    sandbox = start()
    sandbox.invoke(b"{}")
    sandbox.settle()
    sandbox.stop()
    ended = {one.who: one.detail["returncode"] for one in sandbox.journal.entries("process") if one.what == "ended"}
    assert ended == {"runtime": -signal.SIGKILL}


def test_shutdown_during_an_invocation(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], timeout_s=60)
    running = sandbox.begin(b'{"do":"sleep"}')
    sandbox.journal.wait_for(lambda all_: any(one.kind == "log" and one.who == "runtime" for one in all_), "handler")
    sandbox.stop(interrupt=True)
    assert running.answer(5).error_type == "Sandbox.Failure"
    assert notes(sandbox, "calls")[-1]["shutdownReason"] == "spindown"


def test_nothing_is_left_behind(start: Callable[..., Sandbox]) -> None:
    code = (
        CODE
        + "\nimport subprocess\nchild = subprocess.Popen(['sleep', '600'])\nprint('child', child.pid, flush=True)\n"
    )
    sandbox = start(code=code)
    sandbox.invoke(b"{}")
    child = next(int(line.split()[1]) for line in sandbox.log_lines() if line.startswith("child "))
    sandbox.settle()
    sandbox.stop()
    assert not _alive(child)


# -- freeze and thaw -----------------------------------------------------------------------------------------------

TICKING = """
import threading, time

ticks = 0

def tick():
    global ticks
    while True:
        time.sleep(0.002)
        ticks += 1

threading.Thread(target=tick, daemon=True).start()

def handler(event, context):
    return ticks
"""


def test_nothing_runs_between_invocations(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], code=TICKING)
    first = int(sandbox.invoke(b"{}").payload)
    sandbox.journal.wait_for(lambda all_: any(one.what == "frozen" for one in all_), "freeze")
    states = {_state(pid) for pid in sandbox.environment.host.members()}
    assert states == {"T"}
    time.sleep(0.3)
    assert int(sandbox.invoke(b"{}").payload) - first < 60
    assert [one.what for one in sandbox.journal.entries("phase") if one.what in ("frozen", "thawed")][:2] == [
        "frozen",
        "thawed",
    ]


def test_telemetry_of_the_end_comes_with_the_next_invocation_or_the_shutdown(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], environment={"EXTENSION_SCHEMA": "2025-01-29"})
    sandbox.invoke(b"{}")
    sandbox.settle()
    sandbox.journal.wait_for(lambda all_: any(one.what == "frozen" for one in all_), "freeze")
    assert "platform.report" not in [one["type"] for one in notes(sandbox, "telemetry")]
    sandbox.stop()
    assert "platform.report" in [one["type"] for one in notes(sandbox, "telemetry")]


# -- telemetry's delivery ------------------------------------------------------------------------------------------


def test_telemetry_on_demand_from_init_start_to_report(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], environment={"EXTENSION_SCHEMA": "2025-01-29"}, options={"freezes": False})
    sandbox.invoke(b"{}")
    sandbox.settle()
    sandbox.stop()
    seen = [one["type"] for one in notes(sandbox, "telemetry")]
    assert [kind for kind in seen if kind.startswith("platform.")] == [
        "platform.initStart",
        "platform.telemetrySubscription",
        "platform.initRuntimeDone",
        "platform.extension",
        "platform.initReport",
        "platform.start",
        "platform.runtimeDone",
        "platform.report",
    ]
    assert "function" in seen
    assert [one["record"] for one in notes(sandbox, "telemetry") if one["type"] == "extension"] == ["one is ready"]


def test_a_refused_batch_is_delivered_again(start: Callable[..., Sandbox]) -> None:
    environment = {"EXTENSION_SCHEMA": "2025-01-29", "EXTENSION_REFUSE": "2"}
    sandbox = start(extensions=["one"], environment=environment, options={"freezes": False})
    sandbox.invoke(b"{}")
    sandbox.journal.wait_for(
        lambda all_: any(one.what == "batch" and one.detail["problem"] is None for one in all_), "a delivery"
    )
    assert len(notes(sandbox, "refused")) == 2
    assert notes(sandbox, "telemetry")[0]["type"] == "platform.initStart"


def test_what_is_never_taken_is_dropped_and_told(start: Callable[..., Sandbox]) -> None:
    environment = {"EXTENSION_SCHEMA": "2025-01-29", "EXTENSION_REFUSE": "2"}
    limits = Limits(telemetry_attempts=2, telemetry_first_backoff_s=0.01)
    sandbox = start(extensions=["one"], environment=environment, options={"freezes": False, "limits": limits})
    sandbox.invoke(b"{}")
    sandbox.journal.wait_for(
        lambda all_: any(one.what == "batch" and one.detail["problem"] is None for one in all_), "a delivery"
    )
    sandbox.settle()
    sandbox.stop()
    (dropped,) = event(sandbox, "logsDropped")
    assert dropped["droppedRecords"] >= 2
    assert "platform.logsDropped" in [one["type"] for one in notes(sandbox, "telemetry")]


def test_telemetry_over_tcp(start: Callable[..., Sandbox]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        environment = {"EXTENSION_SCHEMA": "2022-07-01", "EXTENSION_TCP_PORT": str(port)}
        sandbox = start(extensions=["one"], environment=environment, options={"freezes": False})
        sandbox.invoke(b"{}")
        connection, _ = listener.accept()
        with connection, connection.makefile() as lines:
            connection.settimeout(10)
            kinds_seen = []
            for line in lines:
                kinds_seen.append(json.loads(line)["type"])
                if kinds_seen[-1] == "platform.report":
                    break
    assert kinds_seen[0] == "platform.initStart"


# -- streaming -----------------------------------------------------------------------------------------------------

STREAMING = """
import time

def handler(event, context):
    yield "first"
    time.sleep(0.2)
    if event.get("do") == "fail":
        raise KeyError("lost")
    if event.get("do") == "exit":
        import os; os._exit(1)
    yield "second"
"""


def test_a_streamed_response_comes_in_pieces(start: Callable[..., Sandbox]) -> None:
    sandbox = start(code=STREAMING)
    answer = sandbox.invoke(Call(b"{}", streaming=True))
    assert answer.payload == b"firstsecond"
    assert (answer.error_type, answer.trailers) == (None, {})
    assert answer.pieces[1][0] - answer.pieces[0][0] > 0.15
    running = sandbox.begin(Call(b"{}", streaming=True))
    assert list(running.parts()) == [b"first", b"second"]


def test_a_failure_in_the_middle_is_in_the_trailers(start: Callable[..., Sandbox]) -> None:
    sandbox = start(code=STREAMING)
    answer = sandbox.invoke(Call(b'{"do":"fail"}', streaming=True))
    assert answer.payload == b"first"
    assert answer.error_type == "Function.KeyError"
    assert set(answer.trailers) == {"lambda-runtime-function-error-type", "lambda-runtime-function-error-body"}
    # The runtime goes on.
    assert sandbox.invoke(Call(b"{}", streaming=True)).error_type is None


def test_a_crash_in_the_middle_of_a_stream(start: Callable[..., Sandbox]) -> None:
    sandbox = start(code=STREAMING)
    answer = sandbox.invoke(Call(b'{"do":"exit"}', streaming=True))
    assert answer.payload == b"first"
    assert answer.error_type in ("Runtime.TruncatedResponse", "Runtime.ExitError")
    assert answer.trailers == {"lambda-runtime-function-error-type": answer.error_type}


def test_a_streamed_response_for_a_caller_who_waits_for_all_of_it(start: Callable[..., Sandbox]) -> None:
    sandbox = start(code=STREAMING)
    assert sandbox.invoke(b"{}").payload == b"firstsecond"


# -- places and limits ---------------------------------------------------------------------------------------------


def test_in_plain_folders(start: Callable[..., Sandbox]) -> None:
    """What a user has who may make no namespace: the same, but for the paths."""
    sandbox = start(
        extensions=["one"], options={"isolate": False, "limit_memory": False}, environment={"A": "/opt/x:/tmp"}
    )
    seen = json.loads(sandbox.invoke(b'{"do":"environment"}').payload)
    assert sandbox.place is not None
    assert seen["TMPDIR"] == str(sandbox.place.outside("/tmp"))
    assert seen["A"] == f"{sandbox.place.outside('/opt/x')}:{sandbox.place.outside('/tmp')}"
    assert json.loads(sandbox.invoke(b'{"do":"tmp"}').payload) == 0
    sandbox.invoke(b'{"do":"exit"}')
    assert json.loads(sandbox.invoke(b'{"do":"tmp"}').payload) == 1
    sandbox.settle()
    sandbox.stop()
    assert [one["shutdownReason"] for one in notes(sandbox, "calls") if "shutdownReason" in one] == [
        "failure",
        "spindown",
    ]


ROOT_CODE = """
import os, pathlib

def handler(event, context):
    seen = {name: sorted(os.listdir(name)) for name in ("/opt", "/tmp", "/var/task")}
    for folder in ("/opt", "/var/task"):
        try:
            pathlib.Path(folder, "new").touch()
            seen["written"] = folder
        except OSError:
            pass
    seen["hosts"] = pathlib.Path("/etc/hosts").read_text()
    return seen
"""


def test_in_a_root_of_its_own(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], code=ROOT_CODE, options={"isolate": True})
    seen = json.loads(sandbox.invoke(b"{}").payload)
    assert seen["/opt"] == ["extensions"]
    assert seen["/var/task"] == ["index.py"]
    assert "calls-one.jsonl" in seen["/tmp"]
    assert "written" not in seen
    assert "sandbox.localdomain" in seen["hosts"]


BUSY = """
import time

def handler(event, context):
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.02:
        pass
    return time.monotonic() - began
"""


def test_a_small_function_has_a_small_share_of_a_cpu(start: Callable[..., Sandbox]) -> None:
    """20 ms of work at 128 MB, which is 7 % of a CPU, take at least 200 ms."""
    sandbox = start(code=BUSY, timeout_s=20, options={"limit_cpu": True, "limits": Limits(init_s=60)})
    seconds = float(sandbox.invoke(b"{}").payload)
    # Where this user may make no control group, the sandbox goes on without.
    assert seconds > 0.15 or not sandbox.limits_cpu


# -- provisioned concurrency, SnapStart, Managed Instances ---------------------------------------------------------


def test_provisioned_concurrency_initializes_ahead(start: Callable[..., Sandbox]) -> None:
    sandbox = start(mode=Mode.PROVISIONED)
    assert event(sandbox, "initReport")[0]["initializationType"] == "provisioned-concurrency"
    assert event(sandbox, "start") == []
    sandbox.invoke(b"{}")
    sandbox.settle()
    assert "initDurationMs" not in event(sandbox, "report")[0]["metrics"]


def test_a_failed_init_ahead_is_raised(start: Callable[..., Sandbox]) -> None:
    with pytest.raises(InitFailed) as raised:
        start(code="raise RuntimeError('broken')", mode=Mode.PROVISIONED)
    assert raised.value.fault.own_type == "Runtime.RuntimeError"


def test_snap_start(start: Callable[..., Sandbox]) -> None:
    sandbox = start(extensions=["one"], mode=Mode.SNAP_START, environment={"EXTENSION_SCHEMA": "2025-01-29"})
    assert {_state(pid) for pid in sandbox.environment.host.members()} == {"T"}
    published = kinds(sandbox)
    assert published == ["initStart", "telemetrySubscription", "initRuntimeDone", "extension", "initReport"]
    assert event(sandbox, "initStart")[0]["phase"] == "snap-start"
    seen = json.loads(sandbox.invoke(b'{"do":"environment"}').payload)
    assert "AWS_ACCESS_KEY_ID" not in seen
    assert seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"].endswith("/2021-04-23/credentials")
    sandbox.settle()
    assert kinds(sandbox)[len(published) :] == ["restoreStart", "restoreRuntimeDone", "restoreReport"] + [
        "start",
        "runtimeDone",
        "report",
    ]
    assert event(sandbox, "report")[0]["metrics"]["restoreDurationMs"] > 0
    calls = [one.what for one in sandbox.journal.entries("answer", "runtime")]
    assert calls[:2] == ["GET /2018-06-01/runtime/restore/next", "GET /2018-06-01/runtime/invocation/next"]
    sandbox.stop()
    # The events of the initialization were delivered again.
    delivered = [one["type"] for one in notes(sandbox, "telemetry")]
    assert delivered.count("platform.initStart") == 2


MANAGED = """
import json, os, threading, time

together = threading.Barrier(4)

def handler(event, context):
    if event.get("do") == "meet":
        together.wait(5)
    if event.get("do") == "fail":
        raise ValueError("no good")
    if event.get("do") == "slow":
        time.sleep(0.5)
    if event.get("do") == "exit":
        os._exit(1)
    line = json.dumps({"level": "INFO", "requestId": context.aws_request_id, "message": "done"})
    os.write(1, line.encode() + b"\\n")  # print would write the line's end by itself
    return event
"""


def managed(start: Callable[..., Sandbox], **fields: Any) -> Sandbox:
    environment = {"EXTENSION_EVENTS": "SHUTDOWN", "EXTENSION_SCHEMA": "2025-01-29"}
    return start(
        extensions=["one"], code=MANAGED, mode=Mode.MANAGED, concurrency=4, log_format="JSON", environment=environment,
        **fields,
    )  # fmt: skip


def test_managed_instances_serve_several_at_a_time(start: Callable[..., Sandbox]) -> None:
    sandbox = managed(start)
    running = [sandbox.begin(b'{"do":"meet","n":%d}' % number) for number in range(4)]
    assert [json.loads(one.answer(5).payload)["n"] for one in running] == [0, 1, 2, 3]
    sandbox.settle()
    sandbox.stop()
    assert event(sandbox, "runtimeDone") == []
    assert [record["status"] for record in event(sandbox, "report")] == ["success"] * 4
    assert set(event(sandbox, "report")[0]["metrics"]) == {"durationMs"}
    lines = [one["record"] for one in notes(sandbox, "telemetry") if one["type"] == "function"]
    assert {line["requestId"] for line in lines} == {one.request_id for one in running}
    assert [one["eventType"] for one in notes(sandbox, "calls") if "eventType" in one] == ["SHUTDOWN"]
    assert "frozen" not in [one.what for one in sandbox.journal.entries("phase")]


def test_managed_instances_report_handled_errors(start: Callable[..., Sandbox]) -> None:
    sandbox = managed(start)
    assert json.loads(sandbox.invoke(b'{"do":"fail"}').payload)["errorType"] == "ValueError"
    sandbox.settle()
    assert event(sandbox, "report")[0]["status"] == "error"


def test_a_timeout_on_managed_instances_does_not_end_the_code(start: Callable[..., Sandbox]) -> None:
    sandbox = managed(start, timeout_s=0.2)
    answer = sandbox.invoke(b'{"do":"slow"}')
    assert answer.error_type == "Sandbox.Timedout"
    late = f"POST /2018-06-01/runtime/invocation/{answer.request_id}/response"
    sandbox.journal.wait_for(
        lambda all_: any(one.kind == "answer" and one.what == late and one.detail["status"] == 410 for one in all_),
        "the refusal of the late answer",
    )
    assert sandbox.invoke(b'{"n":1}').error_type is None


def test_an_extension_that_ends_while_nothing_runs_ends_a_managed_instance(start: Callable[..., Sandbox]) -> None:
    sandbox = managed(start)
    pid = next(one.detail["pid"] for one in sandbox.journal.entries("process", "one"))
    os.kill(pid, signal.SIGKILL)
    sandbox.journal.wait_for(lambda all_: any(one.what == "ended" and one.kind == "phase" for one in all_), "the end")


def test_a_crash_ends_a_managed_instance(start: Callable[..., Sandbox]) -> None:
    sandbox = managed(start)
    assert sandbox.invoke(b'{"do":"exit"}').error_type == "Runtime.ExitError"
    sandbox.journal.wait_for(lambda all_: any(one.what == "ended" and one.kind == "phase" for one in all_), "the end")
    assert [one["shutdownReason"] for one in notes(sandbox, "calls") if "shutdownReason" in one] == ["failure"]
    assert sandbox.invoke(b"{}").error_type == "Sandbox.Failure"


def _alive(pid: int) -> bool:
    return _state(pid) not in ("", "Z", "X")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
