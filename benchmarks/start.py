"""How long does a start take: from the spawn to the first `/next`, with all ports bound, registered and subscribed?

Beside it: the layer's interpreter doing nothing (spawn to exit), and the extension of a few lines with boto3 and
requests.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes
from benchmarks.report import Figure, beside, percentile
from benchmarks.stand_in import Lambda, Queue

ROUNDS = 31


def _bare_ms(layer: Path, environment: dict[str, str]) -> float:
    started = time.monotonic()
    with processes.spawned(processes.bare_command(layer), environment) as process:
        process.wait()
        return (time.monotonic() - started) * 1000


def _ready_ms(command: list[str], platform: Lambda, environment: dict[str, str]) -> float:
    started = time.monotonic()
    with processes.spawned(command, environment):
        return (platform.await_ready() - started) * 1000


def _wrapper_ms(command: list[str], environment: dict[str, str]) -> float:
    started = time.monotonic()
    with processes.spawned(command, environment) as process:
        process.wait()
        return (time.monotonic() - started) * 1000


def measure(layer: Path, rounds: int = ROUNDS) -> Iterator[Figure]:
    """Start each variant in turn, `rounds` times; the first round only warms the page cache."""
    taken: dict[str, list[float]] = {"bare": [], "backstop": [], "few_lines": [], "plain": [], "wrapped": []}
    queue = Queue()
    for number in range(rounds + 1):
        for name in ("bare", "backstop", "few_lines"):
            platform = Lambda()
            with tempfile.TemporaryDirectory() as state:
                environment = processes.function_environment(platform.runtime_api, Path(state), queue)
                if name == "bare":
                    ms = _bare_ms(layer, environment)
                elif name == "backstop":
                    ms = _ready_ms([str(layer / "extensions" / "backstop")], platform, environment)
                else:
                    ms = _ready_ms(processes.few_lines_command(), platform, environment)
            platform.close()
            if number:
                taken[name].append(ms)
    platform = Lambda()
    with processes.sidecar(layer, platform, queue) as (_, state_folder):
        environment = processes.function_environment(platform.runtime_api, state_folder, queue)
        wrapper = str(layer / "backstop-wrapper")
        for _ in range(rounds):
            taken["plain"].append(_wrapper_ms(["/bin/true"], environment))
            taken["wrapped"].append(_wrapper_ms([wrapper, "/bin/true"], environment))
    platform.close()
    queue.close()

    bare = Figure("start.bare", percentile(taken["bare"], 50), "ms")
    yield bare
    yield beside("start.backstop", percentile(taken["backstop"], 50), "ms", bare)
    yield beside("start.few_lines_boto3", percentile(taken["few_lines"], 50), "ms", bare)
    plain = percentile(taken["plain"], 50)
    yield Figure("start.wrapper_added", percentile(taken["wrapped"], 50) - plain, "ms")
