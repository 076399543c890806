"""The sidecar's whole life as a process: started, fed by a scripted Lambda, and shut down, whatever is in its way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extension import spool_file
from tests.extension.invocations import read
from tests.extension.lambda_stand_in import CUT, LambdaStandIn, body_of, fault
from tests.extension.serving import WAIT_S, connect, read_exactly, until
from tests.extension.wire_servers import StandIn, answer, error, nobody_listens

REPOSITORY = Path(__file__).parents[2]
API = "/2018-06-01/runtime"
NAMESPACE = os.readlink("/proc/self/ns/pid")


class Runtime:
    """A runtime on one connection to the proxy (or to Lambda itself)."""

    def __init__(self, port: int) -> None:
        self._sock = connect(port)

    def close(self) -> None:
        self._sock.close()

    def ask(self, method: str, path: str, body: bytes | None = None) -> None:
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        self._sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode() + (body or b""))

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        raw = b""
        while b"\r\n\r\n" not in raw:
            part = self._sock.recv(65_536)
            assert part, raw
            raw += part
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        return int(first.split(" ")[1]), headers, body + read_exactly(self._sock, size - len(body))

    def event(self) -> tuple[str, bytes]:
        """Read the event that was asked for."""
        status, headers, body = self.answer()
        assert status == 200
        return headers["lambda-runtime-aws-request-id"], body

    def ask_for_event(self) -> None:
        """Ask for the next event, and go on without waiting for it."""
        self.ask("GET", f"{API}/invocation/next")

    def post(self, path: str, body: bytes) -> None:
        self.ask("POST", f"{API}/{path}", body)
        assert self.answer()[0] == 202


class Life:
    """A sidecar's process, and what it printed."""

    def __init__(self, platform: LambdaStandIn, state_dir: Path, environ: dict[str, str]) -> None:
        self.platform = platform
        self.state_dir = state_dir
        self.lines: list[dict[str, Any]] = []
        self._came = threading.Condition()
        self._runtimes: list[Runtime] = []
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-m", "extension"],
            cwd=REPOSITORY,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            with self._came:
                self.lines.append(json.loads(raw))
                self._came.notify_all()

    def said(self, kind: str, **fields: str) -> list[dict[str, Any]]:
        """Return the lines of a kind whose fields contain these texts."""
        return [
            line
            for line in list(self.lines)
            if line["backstop"] == kind and all(text in str(line[name]) for name, text in fields.items())
        ]

    def wait_for_line(self, kind: str, **fields: str) -> dict[str, Any]:
        with self._came:
            assert self._came.wait_for(lambda: self.said(kind, **fields), WAIT_S), (kind, fields, self.lines)
        return self.said(kind, **fields)[0]

    def ready(self) -> dict[str, Any]:
        """Wait for the first GET /next; returns the ready line."""
        self.platform.wait_for_next()
        return self.wait_for_line("ready")

    @property
    def proxy_port(self) -> int:
        host, _, port = (self.state_dir / "proxy").read_text().strip().partition(":")
        assert host == "127.0.0.1"
        return int(port)

    def runtime(self) -> Runtime:
        """A runtime on a connection to the proxy."""
        runtime = Runtime(self.proxy_port)
        self._runtimes.append(runtime)
        return runtime

    def end(self, limit_s: float = WAIT_S) -> float:
        """Wait for the process to end well; returns how long that took, in seconds."""
        started = time.monotonic()
        assert self.process.wait(limit_s) == 0
        self._reader.join(WAIT_S)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == b""
        return time.monotonic() - started

    def shut_down(self, reason: str = "spindown") -> float:
        self.platform.shut_down(reason)
        return self.end()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        for runtime in self._runtimes:
            runtime.close()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Place:
    """Where sidecars are started: a scripted Lambda, a queue, and a state folder that outlives them."""

    def __init__(self, platform: LambdaStandIn, queue: StandIn, state_dir: Path) -> None:
        self.platform = platform
        self.queue = queue
        self.state_dir = state_dir
        self.lives: list[Life] = []

    def start(self, **settings: str) -> Life:
        """Start a sidecar. Keywords in upper case are variables as they are; in lower case, settings."""
        environ = {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_RUNTIME_API": self.platform.address,
            "AWS_LAMBDA_FUNCTION_NAME": "pay",
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "BACKSTOP_STATE_DIR": str(self.state_dir),
            "BACKSTOP_PROXY_PORT": "0",
            "BACKSTOP_TELEMETRY_PORT": "0",
            "BACKSTOP_QUEUE_URL": f"{self.queue.url}/123456789012/failures",
            "PYTHONWARNINGS": "error",
        }
        for name, value in settings.items():
            environ[name if name.isupper() else f"BACKSTOP_{name.upper()}"] = value
        life = Life(self.platform, self.state_dir, environ)
        self.lives.append(life)
        return life

    def deliver(
        self, runtime: Runtime, request_id: str = "id-1", event: bytes = b"{}", limit_s: float = 60.0
    ) -> tuple[str, bytes]:
        """Have the runtime ask for an event, and then send it: Lambda sends none to a runtime that is not ready."""
        asked = len(self.platform.called("/invocation/next"))
        runtime.ask_for_event()
        until(lambda: len(self.platform.called("/invocation/next")) > asked)
        self.platform.invoke(request_id, event, limit_s)
        return runtime.event()

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.queue.bodies]

    def conditions(self) -> list[str]:
        return [message["requestContext"]["condition"] for message in self.messages()]

    def spooled(self) -> list[Path]:
        return sorted(
            path
            for path in (self.state_dir / "spool").glob("*")
            if path.name.endswith((spool_file.VISIBLE, spool_file.PROVISIONAL))
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with LambdaStandIn() as platform, StandIn() as queue:
        made = Place(platform, queue, tmp_path / "state")
        yield made
        for life in made.lives:
            life.kill()


BOOM = b'{"errorType":"Error","errorMessage":"boom"}'


# Start and end


def test_a_life_without_events(place: Place) -> None:
    life = place.start()
    ready = life.ready()
    calls = [(request.method, request.target) for request in place.platform.requests]
    assert calls == [
        ("POST", "/2020-01-01/extension/register"),
        ("PUT", "/2022-07-01/telemetry"),
        ("GET", "/2020-01-01/extension/event/next"),
    ]
    register, telemetry, _ = place.platform.requests
    assert register.headers["lambda-extension-name"] == "backstop"
    assert body_of(register) == {"events": ["INVOKE", "SHUTDOWN"]}
    port = int(body_of(telemetry)["destination"]["URI"].rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=WAIT_S).close()
    assert ready["proxy"] == f"127.0.0.1:{life.proxy_port}"
    assert ready["telemetry"] is True
    assert ready["queue"] is True
    assert ready["events"] == ["INVOKE", "SHUTDOWN"]
    assert os.stat(place.state_dir).st_mode & 0o7777 == 0o1777
    assert life.shut_down() < 2
    assert [line["backstop"] for line in life.lines] == ["ready"]


def test_the_ready_line_tells_how_long_the_start_took(place: Place) -> None:
    life = place.start(BACKSTOP_LAUNCHED_NS=str(time.monotonic_ns()))
    ready = life.ready()
    assert 0 < ready["start_ms"] < 10_000
    life.shut_down()


def test_the_listeners_are_bound_before_registering(place: Place) -> None:
    """Lambda starts the runtime once every extension has registered."""
    seen: list[bool] = []
    registered = place.platform._registered

    def look() -> bytes:
        with contextlib.suppress(OSError):
            port = int((place.state_dir / "proxy").read_text().strip().rpartition(":")[2])
            socket.create_connection(("127.0.0.1", port), timeout=WAIT_S).close()
            seen.append(True)
        return registered()

    place.platform._registered = look  # type: ignore[method-assign]
    life = place.start()
    life.ready()
    assert seen == [True]
    life.shut_down()


@pytest.mark.parametrize("reason", ["spindown", "timeout", "failure", "SandboxTerminated", "something new"])
def test_any_shutdown_ends_the_process_well(reason: str, place: Place) -> None:
    life = place.start()
    life.ready()
    assert life.shut_down(reason) < 2
    assert place.messages() == []


FORBIDDEN = (
    "socket threading json re enum dataclasses typing logging ssl datetime hashlib hmac base64 contextlib urllib http"
)


def test_nothing_that_costs_milliseconds_is_imported_before_the_first_next(place: Place) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
import os
from extension.lambda_api import LambdaApi
def first_next(self):
    found = sorted(set({FORBIDDEN!r}.split()) & set(sys.modules))
    os.write(2, ("imported: " + " ".join(found)).encode())
    os._exit(0)
LambdaApi.next_event = first_next
from extension.__main__ import main
main()
"""
    environ = {
        "AWS_LAMBDA_RUNTIME_API": place.platform.address,
        "BACKSTOP_STATE_DIR": str(place.state_dir),
        "BACKSTOP_PROXY_PORT": "0",
        "BACKSTOP_TELEMETRY_PORT": "0",
        "BACKSTOP_QUEUE_URL": f"{place.queue.url}/1/q",
        "BACKSTOP_TAGS": "a:b",
    }
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env=environ, capture_output=True, timeout=30, check=True
    )
    assert result.stderr == b"imported: "
    assert b'"ready"' in result.stdout


# Lambda's different moods


def test_a_place_without_telemetry_is_served_without(place: Place) -> None:
    place.platform.telemetry_answers = [fault(202, "Telemetry.NotSupported")]
    life = place.start()
    assert life.ready()["telemetry"] is False
    life.shut_down()
    assert life.said("warning") == []


def test_older_telemetry_is_taken(place: Place) -> None:
    place.platform.telemetry_answers = [fault(400, "ValidationError")]
    life = place.start()
    assert life.ready()["telemetry"] is True
    assert [body_of(request)["schemaVersion"] for request in place.platform.called("/telemetry")] == [
        "2025-01-29",
        "2022-12-13",
    ]
    life.shut_down()


@pytest.mark.parametrize("given", [fault(403, "Closed"), fault(500, "Fault"), CUT])
def test_a_refused_subscription_is_said_and_no_more(given: bytes, place: Place) -> None:
    place.platform.telemetry_answers = [given]
    life = place.start()
    assert life.ready()["telemetry"] is False
    life.wait_for_line("warning", what="telemetry")
    life.shut_down()


def test_where_invoke_is_refused_shutdown_alone_is_asked_for(place: Place) -> None:
    """Managed Instances."""
    place.platform.register_answers = [fault(403, "Extension.InvalidEventType")]
    life = place.start()
    assert life.ready()["events"] == ["SHUTDOWN"]
    assert [body_of(request)["events"] for request in place.platform.called("/register")] == [
        ["INVOKE", "SHUTDOWN"],
        ["SHUTDOWN"],
    ]
    life.shut_down()


def test_on_managed_instances_shutdown_alone_is_asked_for_at_once(place: Place) -> None:
    life = place.start(AWS_LAMBDA_INITIALIZATION_TYPE="lambda-managed-instances")
    assert life.ready()["events"] == ["SHUTDOWN"]
    assert len(place.platform.called("/register")) == 1
    life.shut_down()


@pytest.mark.parametrize("given", [fault(500, "Fault"), CUT], ids=["500", "cut"])
def test_a_registration_that_fails_is_tried_again(given: bytes, place: Place) -> None:
    """Lambda's initialization waits for every extension to register."""
    place.platform.register_answers = [given, given]
    life = place.start()
    assert life.ready()["events"] == ["INVOKE", "SHUTDOWN"]
    life.wait_for_line("warning", what="register")
    life.shut_down()


def test_a_registration_that_is_refused_leaves_an_idle_sidecar_and_a_working_proxy(place: Place) -> None:
    refusal = fault(403, "Extension.RegistrationClosed")
    place.platform.register_answers = [refusal, refusal]
    life = place.start()
    life.wait_for_line("warning", what="sidecar")
    place.platform.wait_for_next()
    assert body_of(place.platform.called("/register")[-1]) == {"events": []}  # idle needs no events
    place.platform.invocations.put(answer(200, b"{}", "Lambda-Runtime-Aws-Request-Id: id-1"))
    runtime = life.runtime()
    runtime.ask_for_event()
    assert runtime.event() == ("id-1", b"{}")
    runtime.close()
    life.shut_down()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(fault(500, "Fault"), id="500"),
        pytest.param(fault(403, "Extension.InvalidExtensionState"), id="403"),
        pytest.param(CUT, id="cut"),
        pytest.param(answer(200, b"not JSON"), id="not JSON"),
        pytest.param(answer(200, b"[]"), id="no object"),
        pytest.param(answer(200, {}), id="no type"),
        pytest.param(answer(200, {"eventType": "SOMETHING_NEW"}), id="a new type"),
        pytest.param(answer(200, {"eventType": "INVOKE"}), id="an empty INVOKE"),
        pytest.param(
            answer(200, {"eventType": "INVOKE", "requestId": 7, "deadlineMs": "soon", "invokedFunctionArn": None}),
            id="INVOKE with other types",
        ),
    ],
)
def test_a_strange_answer_to_next_is_outlived(given: bytes, place: Place) -> None:
    life = place.start()
    life.ready()
    for _ in range(2):
        place.platform.events.put(given)
        place.platform.wait_for_next()
    life.shut_down()


@pytest.mark.parametrize(
    "event",
    [
        {"eventType": "SHUTDOWN"},
        {"eventType": "SHUTDOWN", "deadlineMs": "soon", "shutdownReason": 7},
        {"eventType": "SHUTDOWN", "deadlineMs": 10**30},
        {"eventType": "SHUTDOWN", "deadlineMs": 1, "shutdownReason": "timeout"},
    ],
)
def test_a_strange_shutdown_still_sends_what_is_in_flight(event: dict[str, Any], place: Place) -> None:
    life = place.start()
    life.ready()
    runtime = life.runtime()
    place.deliver(runtime)
    runtime.close()
    life.platform.send_event(event)
    # The event waits behind INVOKE's hold, which the lost connection has ended.
    life.end()
    told = place.conditions() or [line["condition"] for line in life.said("undelivered")]
    assert told in (["Crash"], ["Timeout"])


# What is in the way


def test_a_state_folder_that_cannot_be_made_leaves_the_function_alone(place: Place) -> None:
    place.state_dir.write_text("a file in its place")
    life = place.start()
    ready = life.ready()
    assert ready["proxy"] is None  # the wrapper finds no address: the runtime uses Lambda's own
    life.wait_for_line("warning", what="proxy")
    place.platform.invoke()
    place.platform.wait_for_next()
    assert life.shut_down() < 2


def test_a_port_that_is_taken_is_replaced(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        life = place.start(proxy_port=port, telemetry_port=port)
        ready = life.ready()
        assert ready["proxy"] == f"127.0.0.1:{life.proxy_port}"
        assert life.proxy_port != int(port)
        assert ready["telemetry"] is True
        for what in ("proxy", "telemetry"):
            assert port in life.wait_for_line("warning", what=what)["why"]
        life.shut_down()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue_url", "https://"),
        ("queue_url", "failures"),
        ("log_wait_ms", "soon"),
        ("memory_bytes", "-1"),
        ("state_dir", "relative"),
        ("proxy_upstream", "nowhere"),
        ("log_level", "loud"),
        ("tags", "no-colon"),
        ("no_such_setting", "1"),
    ],
)
def test_a_setting_that_cannot_be_read_is_said_once_and_the_function_works(
    name: str, value: str, place: Place, tmp_path: Path
) -> None:
    life = place.start(**{name: value})
    life.ready()
    life.wait_for_line("warning", what=f"BACKSTOP_{name.upper()}")
    if name == "state_dir":  # there is no proxy's address in the folder of this test
        place.platform.invoke()
    else:
        runtime = life.runtime()
        place.deliver(runtime)
        runtime.post("invocation/id-1/response", b"{}")
        runtime.close()
    place.platform.wait_for_next()
    life.shut_down()
    assert len(life.said("warning", what=f"BACKSTOP_{name.upper()}")) == 1


@pytest.mark.parametrize("value", ["https://sqs.eu-west-1.amazonaws.com:99999/1/q", "https://a:b:c/1/q"])
def test_a_queue_that_cannot_be_opened_is_said_with_the_record(value: str, place: Place) -> None:
    life = place.start(queue_url=value)
    life.ready()
    runtime = life.runtime()
    place.deliver(runtime)
    runtime.post("invocation/id-1/error", BOOM)
    place.platform.wait_for_next()
    life.shut_down()
    (line,) = life.said("undelivered")
    assert line["condition"] == "HandledError"


def test_switched_off_it_registers_for_nothing_and_does_nothing(place: Place) -> None:
    life = place.start(disable="1")
    place.platform.wait_for_next()
    assert [body_of(request) for request in place.platform.called("/register")] == [{"events": []}]
    assert place.platform.called("/telemetry") == []
    assert not place.state_dir.exists()
    assert life.shut_down() < 2
    assert life.lines == []


def test_capturing_nothing_it_is_no_proxy(place: Place) -> None:
    life = place.start(capture="off")
    assert life.ready()["proxy"] is None
    place.platform.invoke()
    place.platform.wait_for_next()
    place.platform.shut_down("timeout")
    life.end()
    assert place.messages() == []
    assert life.said("undelivered") == []


def test_stopped_and_continued_it_goes_on(place: Place) -> None:
    """As Lambda freezes and thaws it."""
    life = place.start()
    life.ready()
    runtime = life.runtime()
    for number in range(2):
        runtime.ask_for_event()
        until(lambda: len(place.platform.called("/invocation/next")) == number + 1)  # noqa: B023 - called at once
        life.process.send_signal(signal.SIGSTOP)
        place.platform.invoke(f"id-{number}", b'{"a":1}')
        life.process.send_signal(signal.SIGCONT)
        assert runtime.event() == (f"id-{number}", b'{"a":1}')
        life.process.send_signal(signal.SIGSTOP)
        life.process.send_signal(signal.SIGCONT)
        runtime.post(f"invocation/id-{number}/error", BOOM)
        place.platform.wait_for_next()
    runtime.close()
    assert place.conditions() == ["HandledError"] * 2
    life.shut_down()


# The hold


def test_after_a_success_next_is_asked_for_at_once(place: Place) -> None:
    life = place.start()
    life.ready()
    runtime = life.runtime()
    for number in range(3):
        place.deliver(runtime, f"id-{number}")
        asked = len(place.platform.asked_at)
        runtime.post(f"invocation/id-{number}/response", b"{}")
        answered = time.monotonic()
        place.platform.wait_for_next()
        assert len(place.platform.asked_at) == asked + 1  # held until the answer, and not before
        assert place.platform.asked_at[-1] - answered < 1.0
    runtime.close()
    assert place.messages() == []
    life.shut_down()


def test_without_the_wrapper_nothing_is_held(place: Place) -> None:
    life = place.start()
    life.ready()
    for number in range(3):
        sent = time.monotonic()
        place.platform.invoke(f"id-{number}")
        place.platform.wait_for_next()
        assert place.platform.asked_at[-1] - sent < 1.0
    life.shut_down()
    assert place.messages() == []


def test_a_handled_error_is_on_the_queue_before_next_is_asked_for(place: Place) -> None:
    life = place.start(log_wait_ms="0")
    life.ready()
    event = b'{"amount":1.00,"amount":2,"id":12345678901234567890}'
    runtime = life.runtime()
    assert place.deliver(runtime, "id-1", event) == ("id-1", event)
    runtime.post("invocation/id-1/error", BOOM)
    assert place.platform.posted == [("invocation/id-1/error", BOOM)]
    place.platform.wait_for_next()
    (body,) = place.queue.bodies
    message = read_message(body)
    assert message["requestContext"]["requestId"] == "id-1"
    assert message["requestContext"]["condition"] == "HandledError"
    assert message["backstop"]["error"]["message"] == "boom"
    assert b'"requestPayload":' + event + b"," in body.encode()
    assert place.spooled() == []
    runtime.close()
    life.shut_down()
    assert life.said("undelivered") == []


def read_message(body: str) -> dict[str, Any]:
    from extension.record import Record

    return read(Record("", "", "", "", body.encode(), (0, 0, 0)))


def test_a_slow_queue_holds_no_longer_than_the_budget(place: Place) -> None:
    go = threading.Event()

    def slow(request: Any) -> bytes:
        go.wait(WAIT_S)
        return error(500, "InternalError", "late")

    place.queue.respond = slow
    life = place.start(ship_budget_ms="400", log_wait_ms="0")
    life.ready()
    runtime = life.runtime()
    place.deliver(runtime)
    posted = time.monotonic()
    runtime.post("invocation/id-1/error", BOOM)
    assert time.monotonic() - posted < 1.0  # the runtime's answer is not held
    place.platform.wait_for_next()
    assert 0.3 < place.platform.asked_at[-1] - posted < 2.0
    assert len(place.spooled()) == 1
    go.set()
    runtime.close()


def test_a_short_deadline_bounds_the_hold_more_than_the_budget(place: Place) -> None:
    place.queue.respond = lambda _: error(503, "ServiceUnavailable", "no")
    life = place.start(ship_budget_ms="10000", log_wait_ms="0")
    life.ready()
    started = time.monotonic()
    runtime = life.runtime()
    place.deliver(runtime, limit_s=1.5)
    runtime.post("invocation/id-1/error", BOOM)
    place.platform.wait_for_next()
    assert place.platform.asked_at[-1] - started < 1.4
    runtime.close()


# Crash and timeout


@contextlib.contextmanager
def runtime_process(life: Life) -> Iterator[subprocess.Popen[bytes]]:
    """A runtime's process, made known as the wrapper does."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        (life.state_dir / "runtime.pid").write_text(f"{process.pid} {NAMESPACE}\n")
        ping = life.runtime()
        ping.ask("GET", "/.backstop/ping")
        assert ping.answer()[0] == 204
        yield process
        process.kill()


def test_a_crash_is_known_at_once_and_sent_at_shutdown(place: Place) -> None:
    life = place.start()
    life.ready()
    with runtime_process(life) as process:
        runtime = life.runtime()
        place.deliver(runtime, "id-1", b'{"a":1.00}')
        killed = time.monotonic()
        process.kill()
        place.platform.wait_for_next()
        assert place.platform.asked_at[-1] - killed < 1.0
        runtime.close()
    life.shut_down("failure")
    assert set(place.conditions()) == {"Crash"}
    assert b'"requestPayload":{"a":1.00},' in place.queue.bodies[-1].encode()


def test_waiting_for_log_lines_does_not_cost_a_crash_its_sending(place: Place) -> None:
    life = place.start(log_wait_ms="2000")
    assert life.ready()["telemetry"] is True
    with runtime_process(life) as process:
        runtime = life.runtime()
        place.deliver(runtime)
        process.kill()
        place.platform.wait_for_next()
    assert life.shut_down("failure") < 1.5
    assert set(place.conditions()) == {"Crash"}
    assert life.said("undelivered") == []


def test_an_error_and_the_exit_after_it_are_one_crash(place: Place) -> None:
    life = place.start(log_wait_ms="0")
    life.ready()
    with runtime_process(life) as process:
        runtime = life.runtime()
        place.deliver(runtime)
        runtime.post("invocation/id-1/error", BOOM)
        process.kill()
        place.platform.wait_for_next()
        runtime.close()
    life.shut_down("failure")
    assert place.conditions()[-1] == "Crash"
    assert len({message["backstop"]["id"] for message in place.messages()}) == 1
    assert place.messages()[-1]["backstop"]["error"]["message"] == "boom"


def test_an_exit_while_nothing_runs_is_no_failure(place: Place) -> None:
    life = place.start()
    life.ready()
    with runtime_process(life) as process:
        runtime = life.runtime()
        place.deliver(runtime)
        runtime.post("invocation/id-1/response", b"{}")
        runtime.ask_for_event()
        until(lambda: len(place.platform.called("/invocation/next")) == 2)
        place.platform.wait_for_next()
        process.kill()
        runtime.close()
    life.shut_down()
    assert place.messages() == []
    assert life.said("undelivered") == []


def test_an_exit_before_the_first_event_is_a_failed_initialization(place: Place) -> None:
    life = place.start()
    life.ready()
    with runtime_process(life) as process:
        process.kill()
        until(lambda: bool(place.spooled() or place.messages()))
    life.shut_down("failure")
    assert set(place.conditions()) == {"InitError"}


def test_a_timeout_is_kept_before_it_strikes_and_sent_at_shutdown(place: Place) -> None:
    life = place.start()
    life.ready()
    runtime = life.runtime()
    place.deliver(runtime, "id-1", b'{"a":1}', limit_s=0.6)
    until(lambda: bool(place.spooled()))  # 300 ms before the deadline
    assert place.messages() == []
    place.platform.wait_for_next()
    runtime.close()
    life.shut_down("timeout")
    assert set(place.conditions()) == {"Timeout"}
    assert place.messages()[-1]["requestPayload"] == {"a": 1}


def test_a_kill_at_the_deadline_leaves_the_record_to_the_next_life(place: Place) -> None:
    life = place.start()
    life.ready()
    runtime = life.runtime()
    place.deliver(runtime, "id-1", b'{"a":1}', limit_s=0.6)
    until(lambda: bool(place.spooled()))
    life.process.kill()
    runtime.close()
    later = place.start()
    later.ready()
    place.platform.invoke("id-2")
    place.platform.wait_for_next()
    until(lambda: place.conditions() == ["Timeout"])
    later.shut_down()
    assert place.spooled() == []


def test_an_invocation_that_ends_well_just_before_its_deadline_leaves_nothing(place: Place) -> None:
    life = place.start()
    life.ready()
    runtime = life.runtime()
    place.deliver(runtime, "id-1", limit_s=0.8)
    until(lambda: bool(place.spooled()))
    runtime.post("invocation/id-1/response", b"{}")
    place.platform.wait_for_next()
    until(lambda: not place.spooled())
    runtime.close()
    life.shut_down()
    assert place.messages() == []


def test_a_retry_with_the_same_request_id_is_a_second_failure(place: Place) -> None:
    life = place.start(log_wait_ms="0")
    life.ready()
    runtime = life.runtime()
    for limit_s in (60.0, 120.0):
        place.deliver(runtime, "id-1", limit_s=limit_s)
        runtime.post("invocation/id-1/error", BOOM)
        place.platform.wait_for_next()
    runtime.close()
    life.shut_down()
    assert place.conditions() == ["HandledError"] * 2
    assert len({message["backstop"]["id"] for message in place.messages()}) == 2


@pytest.mark.parametrize("watched", [True, False])
def test_a_runtime_with_one_connection_per_call_is_held_for_where_its_process_is_watched(
    watched: bool, place: Place
) -> None:
    """As a bash function with curl: no connection is open while it works."""
    life = place.start(log_wait_ms="0")
    life.ready()
    with runtime_process(life) if watched else contextlib.nullcontext():
        first = life.runtime()
        place.deliver(first)
        first.close()
        if watched:
            assert not place.platform.asked.acquire(timeout=0.2)
        else:
            place.platform.wait_for_next()  # nothing would tell of its end but the deadline
        second = life.runtime()
        second.post("invocation/id-1/error", BOOM)
        second.close()
        if watched:
            place.platform.wait_for_next()
            assert place.conditions() == ["HandledError"]
        third = life.runtime()
        third.ask_for_event()
        until(lambda: len(place.platform.called("/invocation/next")) == 2)
    life.shut_down()
    assert place.conditions() == ["HandledError"]
    assert place.spooled() == []


# The queue out of reach


def test_what_cannot_be_sent_is_printed_at_shutdown_and_sent_by_a_later_life(place: Place) -> None:
    with nobody_listens() as nowhere:
        life = place.start(queue_url=f"{nowhere}/123456789012/failures", ship_budget_ms="200", log_wait_ms="0")
        life.ready()
        runtime = life.runtime()
        place.deliver(runtime, "id-1", b'{"secret":"hunter2"}')
        runtime.post("invocation/id-1/error", BOOM)
        place.platform.wait_for_next()
        runtime.close()
        assert len(place.spooled()) == 1
        assert life.shut_down() < 3
    (line,) = life.said("undelivered")
    assert line["requestContext"]["requestId"] == "id-1"
    assert "hunter2" not in json.dumps(life.lines)
    later = place.start()
    later.ready()
    place.platform.invoke("id-2")
    place.platform.wait_for_next()
    until(lambda: place.conditions() == ["HandledError"])
    assert place.messages()[0]["requestPayload"] == {"secret": "hunter2"}
    later.shut_down()
    assert place.spooled() == []
    assert later.said("undelivered") == []


def test_telemetry_brings_the_log_lines(place: Place) -> None:
    life = place.start(log_wait_ms="2000")
    life.ready()
    (subscription,) = place.platform.called("/telemetry")
    port = int(body_of(subscription)["destination"]["URI"].rpartition(":")[2])
    runtime = life.runtime()
    place.deliver(runtime)
    runtime.post("invocation/id-1/error", BOOM)
    batch = [
        {"time": "t", "type": "platform.start", "record": {"requestId": "id-1"}},
        {"time": "t", "type": "function", "record": "about to fail\n"},
        {"time": "t", "type": "platform.runtimeDone", "record": {"requestId": "id-1", "status": "success"}},
    ]
    telemetry = Runtime(port)
    telemetry.ask("POST", "/", json.dumps(batch).encode())
    assert telemetry.answer()[0] == 200
    telemetry.close()
    place.platform.wait_for_next()
    runtime.close()
    (message,) = place.messages()
    assert message["backstop"]["logs"] == ["about to fail"]
    assert "logsIncomplete" not in message["backstop"]
    life.shut_down()


# Bugs of ours


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("clerk.open_clerk", id="the clerk cannot be made"),
        pytest.param("record.build", id="no record can be built"),
        pytest.param("inflight.Table.expect", id="INVOKE is not understood"),
        pytest.param("inflight.Table.posted", id="no end is noted"),
        pytest.param("telemetry.listener.sandbox_address", id="telemetry cannot listen"),
        pytest.param("settings.Settings._set", id="settings cannot be read"),
        pytest.param("__main__.Sidecar._say_ready", id="the ready line cannot be said"),
        pytest.param("__main__.Sidecar._next", id="the life breaks off"),
        pytest.param("__main__.Sidecar.__init__", id="nothing starts at all"),
    ],
)
def test_whatever_part_is_broken_the_function_works_and_the_process_ends_well(broken: str, place: Place) -> None:
    module, _, name = broken.rpartition(".")
    owner, attribute = ("", name)
    if "." in module and module.rpartition(".")[2][:1].isupper():
        module, _, owner = module.rpartition(".")
    code = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
import importlib
target = importlib.import_module("extension.{module}")
if {owner!r}:
    target = getattr(target, {owner!r})
def fault(*_, **__):
    raise RuntimeError("a bug of ours")
setattr(target, {attribute!r}, fault)
from extension import __main__
if hasattr(__main__, {attribute!r}):
    setattr(__main__, {attribute!r}, fault)
__main__.main()
"""
    environ = {
        "AWS_LAMBDA_RUNTIME_API": place.platform.address,
        "BACKSTOP_STATE_DIR": str(place.state_dir),
        "BACKSTOP_PROXY_PORT": "0",
        "BACKSTOP_TELEMETRY_PORT": "0",
        "BACKSTOP_LOG_WAIT_MS": "0",
        "BACKSTOP_QUEUE_URL": f"{place.queue.url}/1/q",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        place.platform.wait_for_next()
        for number in range(2):
            try:
                address = (place.state_dir / "proxy").read_text()
            except FileNotFoundError:  # where no proxy could be started, the wrapper goes by
                place.platform.invoke(f"id-{number}")
            else:
                runtime = Runtime(int(address.strip().rpartition(":")[2]))
                place.deliver(runtime, f"id-{number}")
                runtime.post(f"invocation/id-{number}/error", BOOM)
                runtime.close()
            place.platform.wait_for_next()
        place.platform.shut_down("failure")
        out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    assert err == b""
    assert b"a bug of ours" in out
