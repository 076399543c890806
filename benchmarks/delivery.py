"""How long from a failure to its record on the queue?

Measured from Lambda having the runtime's whole `/error` to the local queue having answered: an upper bound of "record
complete → accepted". The stand-in says that it has no telemetry, as AWS's emulator does, so a record waits for no log
lines. `first` is the first failure of a fresh sidecar (it imports what it needs), `later` are those after it. Beside
it: the few-lines extension sending an event with boto3.

With `.tls` the queue speaks https, as AWS's does: the machine's trusted roots are read once, and a handshake comes
with each connection (boto3 keeps its one).
"""

from __future__ import annotations

import contextlib
import json
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trustme

from benchmarks import processes
from benchmarks.invocation import Runtime
from benchmarks.report import Figure, beside, percentile
from benchmarks.stand_in import ACCEPTED, RUNTIME_NEXT, Lambda, Queue

ROUNDS = 25
FAILURES = 21
EVENT = json.dumps({"Records": [{"body": "x" * 700, "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d"}]}).encode()
ERROR = json.dumps(
    {
        "errorType": "Error",
        "errorMessage": "no such customer",
        "trace": ["Error: no such customer", "    at handler (index.js:7:9)"],
    }
).encode()


def fail_once(platform: Lambda, queue: Queue, runtime: Runtime) -> float:
    """Run one invocation that reports an error; returns the time until the queue had the record, in ms."""
    runtime.ask_next()
    upstream = platform.api.expect(RUNTIME_NEXT)
    request_id, deadline_ms, head = platform.new_invocation()
    platform.invoke_extension(request_id, deadline_ms)
    upstream.sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT)
    runtime.receive()
    runtime.report_error(request_id, ERROR)
    reported = platform.api.expect(f"POST /2018-06-01/runtime/invocation/{request_id}/error")
    reported.sock.sendall(ACCEPTED)
    accepted = queue.accept()
    runtime.receive()
    upstream.sock.close()
    reported.sock.close()
    platform.await_idle()
    return (accepted - reported.arrived) * 1000


@contextlib.contextmanager
def local_authority() -> Iterator[tuple[ssl.SSLContext, Path]]:
    """Yield a server's context for `localhost`, and the machine's trusted roots with the one that signed it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(processes.SYSTEM_ROOTS.read_bytes() + authority.cert_pem.bytes())
        file.flush()
        yield context, Path(file.name)


def _backstop(layer: Path, tls: ssl.SSLContext | None, roots: Path | None) -> list[float]:
    platform, queue = Lambda(telemetry=False), Queue(tls)
    with processes.sidecar(layer, platform, queue, roots) as (_, state):
        runtime = Runtime(processes.proxy_address(state))
        taken = [fail_once(platform, queue, runtime) for _ in range(FAILURES)]
        runtime.close()
    platform.close()
    queue.close()
    return taken


def _few_lines(tls: ssl.SSLContext | None, roots: Path | None) -> list[float]:
    platform, queue = Lambda(), Queue(tls)
    taken = []
    with tempfile.TemporaryDirectory() as state:
        more = {"AWS_CA_BUNDLE": str(roots)} if roots else {}
        environment = processes.function_environment(platform.runtime_api, Path(state), queue, **more)
        with processes.spawned(processes.few_lines_command(), environment):
            platform.await_ready()
            for _ in range(FAILURES):
                request_id, deadline_ms, _head = platform.new_invocation()
                started = time.monotonic()
                platform.invoke_extension(request_id, deadline_ms)
                taken.append((queue.accept() - started) * 1000)
                platform.await_idle()
    platform.close()
    queue.close()
    return taken


def _figures(suffix: str, ours: list[list[float]], theirs: list[list[float]]) -> Iterator[Figure]:
    for name, part in (("first", slice(0, 1)), ("later", slice(1, None))):
        their_median = percentile([ms for run in theirs for ms in run[part]], 50)
        reference = Figure(f"delivery.{name}{suffix}.few_lines_boto3", their_median, "ms")
        yield reference
        our_median = percentile([ms for run in ours for ms in run[part]], 50)
        yield beside(f"delivery.{name}{suffix}.backstop", our_median, "ms", reference)


def measure(layer: Path, rounds: int = ROUNDS) -> Iterator[Figure]:
    with local_authority() as (context, roots):
        places: dict[str, tuple[ssl.SSLContext | None, Path | None]] = {"": (None, None), ".tls": (context, roots)}
        for suffix, place in places.items():
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(_backstop(layer, *place))
                theirs.append(_few_lines(*place))
            yield from _figures(suffix, ours, theirs)
