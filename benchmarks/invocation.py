"""How much time does the proxy add to a successful invocation?

Measured from Lambda giving out the event to Lambda having the whole answer, with the runtime played by the measurer.
Three paths take turns: straight to Lambda, through a plain TCP relay in Python, and through the sidecar's proxy (with
INVOKE to the sidecar, as in Lambda). What is added is the percentile of a path less that of the straight one.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from benchmarks import processes
from benchmarks.report import Figure, beside, percentile
from benchmarks.stand_in import ACCEPTED, RUNTIME_NEXT, Lambda, Queue, connect, read_message

SMALL, SMALL_ROUNDS = 1024, 1000
LARGE, LARGE_ROUNDS = 6_000_000, 200
ONE_PIECE = 65_536
ANSWER = b'{"statusCode":200,"body":"' + b"y" * 998 + b'"}'


class Runtime:
    """Plays the function's runtime on one kept connection, as the managed runtimes do."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._host = f"{address[0]}:{address[1]}".encode()
        self._sock = connect(address)

    def ask_next(self) -> None:
        self._sock.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: %b\r\n\r\n" % self._host)

    def receive(self) -> bytes:
        """Return the body of the next answer."""
        return self.receive_whole()[1]

    def receive_whole(self) -> tuple[bytes, bytes]:
        """Return head and body of the next answer."""
        return read_message(self._sock)

    def respond(self, request_id: str, body: bytes = ANSWER) -> None:
        self._post(f"{request_id}/response", b"", body)

    def report_error(self, request_id: str, body: bytes) -> None:
        self._post(f"{request_id}/error", b"Lambda-Runtime-Function-Error-Type: Error\r\n", body)

    def _post(self, what: str, headers: bytes, body: bytes) -> None:
        head = b"POST /2018-06-01/runtime/invocation/%b HTTP/1.1\r\nHost: %b\r\n" % (what.encode(), self._host)
        self._sock.sendall(
            head + headers + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    def close(self) -> None:
        self._sock.close()


def send_event(sock: socket.socket, data: bytes, runtime: Runtime) -> bytes:
    """Send an event and have the runtime receive it; one too large for the sockets' buffers is sent from a thread."""
    if len(data) <= ONE_PIECE:
        sock.sendall(data)
        return runtime.receive()
    sender = threading.Thread(target=sock.sendall, args=(data,))
    sender.start()
    body = runtime.receive()
    sender.join()
    return body


class Way(Protocol):
    """A way between runtime and Lambda. `invoke` runs one successful invocation and returns its time in ms."""

    def invoke(self, event: bytes) -> float: ...

    def close(self) -> None: ...


class Straight:
    """The runtime talks to Lambda (or to a relay before it) on one connection that both keep."""

    def __init__(self, platform: Lambda, address: tuple[str, int] | None = None) -> None:
        self._platform = platform
        self._runtime = Runtime(address or platform.api.address)
        self._lambda_side: socket.socket | None = None

    def invoke(self, event: bytes) -> float:
        self._runtime.ask_next()
        if self._lambda_side is None:
            self._lambda_side = self._platform.api.expect(RUNTIME_NEXT).sock
        else:
            read_message(self._lambda_side)
        request_id, _, head = self._platform.new_invocation()
        data = head + b"Content-Length: %d\r\n\r\n" % len(event) + event
        started = time.monotonic()
        received = send_event(self._lambda_side, data, self._runtime)
        self._runtime.respond(request_id)
        read_message(self._lambda_side)
        taken = time.monotonic() - started
        self._lambda_side.sendall(ACCEPTED)
        self._runtime.receive()
        if received != event:
            raise AssertionError("the event arrived changed")
        return taken * 1000

    def close(self) -> None:
        self._runtime.close()
        if self._lambda_side is not None:
            self._lambda_side.close()


class ThroughProxy:
    """The runtime talks to the sidecar's proxy, which opens a connection to Lambda for each request."""

    def __init__(self, platform: Lambda, proxy: tuple[str, int]) -> None:
        self._platform = platform
        self.runtime = Runtime(proxy)

    def invoke(self, event: bytes) -> float:
        platform = self._platform
        self.runtime.ask_next()
        upstream = platform.api.expect(RUNTIME_NEXT)
        request_id, deadline_ms, head = platform.new_invocation()
        data = head + b"Content-Length: %d\r\n\r\n" % len(event) + event
        platform.await_idle()
        started = time.monotonic()
        platform.invoke_extension(request_id, deadline_ms)
        received = send_event(upstream.sock, data, self.runtime)
        self.runtime.respond(request_id)
        answered = platform.api.expect(f"POST /2018-06-01/runtime/invocation/{request_id}/response")
        taken = answered.arrived - started
        answered.sock.sendall(ACCEPTED)
        self.runtime.receive()
        upstream.sock.close()
        answered.sock.close()
        if received != event or answered.body != ANSWER:
            raise AssertionError("the event or the answer arrived changed")
        return taken * 1000

    def close(self) -> None:
        self.runtime.close()


def _take_turns(ways: dict[str, Way], size: int, rounds: int) -> dict[str, list[float]]:
    event = b'{"data":"' + b"x" * (size - 11) + b'"}'
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 20):
        for name, way in ways.items():
            ms = way.invoke(event)
            if number >= 20:  # the first rounds warm up
                taken[name].append(ms)
    return taken


def _figures(title: str, taken: dict[str, list[float]], percents: tuple[int, ...]) -> Iterator[Figure]:
    for percent in percents:
        straight = percentile(taken["straight"], percent)
        added = Figure(f"invocation.{title}.p{percent}.relay", percentile(taken["relay"], percent) - straight, "ms")
        yield Figure(f"invocation.{title}.p{percent}.straight_whole", straight, "ms")
        yield added
        ours = percentile(taken["backstop"], percent) - straight
        yield beside(f"invocation.{title}.p{percent}.backstop", ours, "ms", added)


def measure(layer: Path, small_rounds: int = SMALL_ROUNDS, large_rounds: int = LARGE_ROUNDS) -> Iterator[Figure]:
    platform, queue = Lambda(), Queue()
    with (
        processes.sidecar(layer, platform, queue) as (_, state),
        processes.relay(platform.api.address[1]) as relay_address,
    ):
        ways: dict[str, Way] = {
            "straight": Straight(platform),
            "relay": Straight(platform, relay_address),
            "backstop": ThroughProxy(platform, processes.proxy_address(state)),
        }
        print(
            f"  {small_rounds} small and {large_rounds} large invocations on each of {len(ways)} ways", file=sys.stderr
        )
        yield from _figures("1kb", _take_turns(ways, SMALL, small_rounds), (50, 99))
        yield from _figures("6mb", _take_turns(ways, LARGE, large_rounds), (50,))
        for way in ways.values():
            way.close()
    platform.close()
    queue.close()
