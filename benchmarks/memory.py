"""How much memory does an idle sidecar hold, and what is left of a burst of invocations?

Resident memory (VmRSS) while waiting in `/next`. Beside it: the layer's interpreter waiting for input, and the
few-lines extension.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes
from benchmarks.invocation import ThroughProxy
from benchmarks.report import Figure, beside, percentile
from benchmarks.stand_in import Lambda, Queue

ROUNDS = 25
SETTLED_S = 0.2
INVOCATIONS = 500
MIB = 1024


def _bare_mib(layer: Path, environment: dict[str, str]) -> float:
    # posix is built in: reading standard input through it imports nothing.
    command = processes.bare_command(layer, "import posix; posix.read(0, 1)")
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
    try:
        time.sleep(SETTLED_S)
        return processes.resident_kib(process.pid) / MIB
    finally:
        process.communicate(b"x")


def _idle_mib(command: list[str], platform: Lambda, environment: dict[str, str]) -> float:
    with processes.spawned(command, environment) as process:
        platform.await_ready()
        time.sleep(SETTLED_S)
        return processes.resident_kib(process.pid) / MIB


def _after_invocations_mib(layer: Path, queue: Queue, size: int, count: int) -> float:
    platform = Lambda()
    with processes.sidecar(layer, platform, queue) as (process, state):
        path = ThroughProxy(platform, processes.proxy_address(state))
        for _ in range(count):
            path.invoke(b'"' + b"x" * (size - 2) + b'"')
        platform.await_idle()
        time.sleep(SETTLED_S)
        held = processes.resident_kib(process.pid) / MIB
        path.close()
    platform.close()
    return held


def measure(layer: Path, rounds: int = ROUNDS) -> Iterator[Figure]:
    held: dict[str, list[float]] = {"bare": [], "backstop": [], "few_lines": []}
    queue = Queue()
    for _ in range(rounds):
        for name, values in held.items():
            platform = Lambda()
            with tempfile.TemporaryDirectory() as state:
                environment = processes.function_environment(platform.runtime_api, Path(state), queue)
                if name == "bare":
                    values.append(_bare_mib(layer, environment))
                elif name == "backstop":
                    values.append(_idle_mib([str(layer / "extensions" / "backstop")], platform, environment))
                else:
                    values.append(_idle_mib(processes.few_lines_command(), platform, environment))
            platform.close()
    bare = Figure("memory.bare", percentile(held["bare"], 50), "MiB")
    yield bare
    yield beside("memory.backstop", percentile(held["backstop"], 50), "MiB", bare)
    yield beside("memory.few_lines_boto3", percentile(held["few_lines"], 50), "MiB", bare)
    yield beside("memory.backstop_after_1kb", _after_invocations_mib(layer, queue, 1024, INVOCATIONS), "MiB", bare)
    yield beside("memory.backstop_after_6mb", _after_invocations_mib(layer, queue, 6_000_000, 20), "MiB", bare)
    queue.close()
