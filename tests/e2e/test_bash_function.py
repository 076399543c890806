"""A bash function that opens one connection per call: failures are told by request id, never by connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.demo.story import Result, play
from tests.e2e.harness.functions import attached, bash_function
from tests.e2e.harness.roots import python_files
from tests.e2e.harness.sandbox import Sandbox
from tests.e2e.harness.sqs import Moto


@pytest.fixture(scope="module")
def results(layer: Path, moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Result]]:
    queue = moto.queue()
    function = bash_function(layer, attached(queue.url, moto.url), timeout_s=2)
    with Sandbox(function, tmp_path_factory.mktemp("bash")) as sandbox:
        assert python_files(sandbox.inside()) == []
        yield {result.scene.name: result for result in play(sandbox, queue)}


def test_its_successes_are_not_captured(results: dict[str, Result]) -> None:
    for name in ("succeeds", "succeeds again"):
        assert results[name].outcome == "success"
        assert results[name].record is None


@pytest.mark.parametrize(
    ("name", "condition", "error_type"),
    [
        pytest.param("throws", "HandledError", "Handler.Failed", id="its error, whose type is in the body only"),
        pytest.param("times out", "Timeout", "Sandbox.Timedout", id="its timeout"),
        pytest.param("process exits", "Crash", "Runtime.ExitError", id="its crash while no connection is open"),
    ],
)
def test_its_failures_are_captured(results: dict[str, Result], name: str, condition: str, error_type: str) -> None:
    result = results[name]

    assert result.record is not None
    assert result.record.condition == condition
    assert result.record.backstop["error"]["type"] == error_type
    assert result.record.has_event(result.scene.event)
