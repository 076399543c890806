"""Two failures on Managed Instances: there AWS's emulator delivers real telemetry, so the records hold log lines."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.demo.story import Result, scenes
from tests.e2e.harness.functions import attached, node_function
from tests.e2e.harness.sandbox import Sandbox
from tests.e2e.harness.sqs import Moto


def managed_results(layer: Path, moto: Moto, folder: Path) -> list[Result]:
    """The order function throws, then its process exits, which ends the environment in this mode."""
    queue = moto.queue("managed")
    function = node_function(layer, attached(queue.url, moto.url), concurrency=2)
    results = []
    with Sandbox(function, folder) as sandbox:
        for scene in scenes():
            if scene.expected in ("HandledError", "Crash"):
                answer = sandbox.invoke(scene.event)
                results.append(Result(scene, answer, next(iter(queue.collect(1)), None)))
    return results
