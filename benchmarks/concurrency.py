"""What do 64 invocations at once cost, as on Lambda Managed Instances?

Waves of 64 invocations with 1 KB events: all ask, all get their event, all answer. The figure is the time of a wave
through one way, for each of its invocations; the memory is the sidecar's after the waves. The sidecar is started as
on Managed Instances (it registers for SHUTDOWN only).
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes
from benchmarks.invocation import ANSWER, Runtime
from benchmarks.report import Figure, beside, percentile
from benchmarks.stand_in import ACCEPTED, RUNTIME_NEXT, Lambda, Queue, read_message

AT_ONCE = 64
WAVES = 50
EVENT = b'"' + b"x" * 1022 + b'"'
RESPONSE = "POST /2018-06-01/runtime/invocation/"
MIB = 1024


class Lanes:
    """64 runtimes with a connection each. Lambda's side keeps its connections (`kept`), or gets a new one for each
    request.
    """

    def __init__(self, platform: Lambda, address: tuple[str, int], *, kept: bool) -> None:
        self._platform = platform
        self._runtimes = [Runtime(address) for _ in range(AT_ONCE)]
        self._keep = kept
        self._kept: list[socket.socket] = []

    def wave(self) -> float:
        """Run one wave; returns its time for each invocation, in ms."""
        started = time.monotonic()
        for runtime in self._runtimes:
            runtime.ask_next()
        for sock in self._gather(RUNTIME_NEXT):
            _, _, head = self._platform.new_invocation()
            sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT)
            self._done_with(sock)
        for runtime in self._runtimes:
            request_id = _request_id(runtime.receive_whole()[0])
            runtime.respond(request_id, ANSWER)
        for sock in self._gather(RESPONSE):
            sock.sendall(ACCEPTED)
            self._done_with(sock)
        for runtime in self._runtimes:
            runtime.receive()
        return (time.monotonic() - started) * 1000 / AT_ONCE

    def _gather(self, start: str) -> list[socket.socket]:
        if self._kept:
            for sock in self._kept:
                read_message(sock)
            return self._kept
        socks = [self._platform.api.expect(start).sock for _ in range(AT_ONCE)]
        if self._keep:
            self._kept = socks
        return socks

    def _done_with(self, sock: socket.socket) -> None:
        if not self._keep:
            sock.close()

    def close(self) -> None:
        for runtime in self._runtimes:
            runtime.close()
        for sock in self._kept:
            sock.close()


def _request_id(head: bytes) -> str:
    found = re.search(rb"(?i)lambda-runtime-aws-request-id: *(\S+)", head)
    if found is None:
        raise AssertionError("an event without a request id")
    return found.group(1).decode()


def measure(layer: Path, waves: int = WAVES) -> Iterator[Figure]:
    platform, queue = Lambda(), Queue()
    managed = {"AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances", "AWS_LAMBDA_MAX_CONCURRENCY": str(AT_ONCE)}
    with (
        processes.sidecar(layer, platform, queue, None, **managed) as (process, state),
        processes.relay(platform.api.address[1]) as relay_address,
    ):
        ways = {
            "straight": Lanes(platform, platform.api.address, kept=True),
            "relay": Lanes(platform, relay_address, kept=True),
            "backstop": Lanes(platform, processes.proxy_address(state), kept=False),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(waves + 2):
            for name, lanes in ways.items():
                ms = lanes.wave()
                if number >= 2:
                    taken[name].append(ms)
        held = processes.resident_kib(process.pid) / MIB
        for lanes in ways.values():
            lanes.close()
    platform.close()
    queue.close()
    straight = Figure(f"concurrent.{AT_ONCE}.straight_whole", percentile(taken["straight"], 50), "ms")
    yield straight
    for name in ("relay", "backstop"):
        yield beside(f"concurrent.{AT_ONCE}.{name}_whole", percentile(taken[name], 50), "ms", straight)
    yield Figure(f"concurrent.{AT_ONCE}.memory", held, "MiB")
