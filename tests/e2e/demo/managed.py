"""Two failures on Managed Instances: there AWS's emulator delivers real telemetry, so the records hold log lines."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.demo.story import Result, match, scenes
from tests.e2e.harness.functions import attached, node_function
from tests.e2e.harness.sandbox import Sandbox
from tests.e2e.harness.sqs import Moto


def managed_results(layer: Path, moto: Moto, folder: Path) -> list[Result]:
    """The order function throws, then its process exits, which ends the environment in this mode."""
    queue = moto.queue("managed")
    function = node_function(layer, attached(queue.url, moto.url), concurrency=2)
    planned = [scene for scene in scenes() if scene.expected in ("HandledError", "Crash")]
    with Sandbox(function, folder) as sandbox:
        answers = [sandbox.invoke(scene.event) for scene in planned]
        arrived = queue.collect(len(planned))
        sandbox.stop()
    return match(planned, answers, arrived + queue.take())
