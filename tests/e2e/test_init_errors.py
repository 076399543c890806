"""A function that cannot start: its initialization's error is captured, though no invocation ever ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.harness.functions import attached, node_function
from tests.e2e.harness.namespaces import may_change_user
from tests.e2e.harness.sandbox import Sandbox
from tests.e2e.harness.sqs import Moto, Queue


def test_code_that_cannot_be_loaded(layer: Path, moto: Moto, queue: Queue, folder: Path) -> None:
    function = node_function(layer, attached(queue.url, moto.url), code="load_error")
    with Sandbox(function, folder) as sandbox:
        answer = sandbox.invoke(b'{"orderId": "A-1"}')
        sandbox.stop()
        records = queue.take()

    assert answer.status == 502
    assert b"TABLE_NAME is not set" in answer.body
    assert records
    for record in records:
        assert record.condition == "InitError"
        assert record.backstop["error"] | {"stack": []} == {
            "type": "TypeError",
            "message": "TABLE_NAME is not set",
            "stack": [],
        }
        assert record.payload() is None
        assert record.backstop["payloadAbsent"]


@pytest.mark.skipif(not may_change_user(), reason="Managed Instances mode starts processes as another user: needs root")
def test_a_process_that_ends_before_it_asks_for_work(layer: Path, moto: Moto, queue: Queue, folder: Path) -> None:
    # In classic mode the emulator kills an extension that has not asked for its first event when the runtime ends: a race.
    function = node_function(layer, attached(queue.url, moto.url), code="init_exit", concurrency=1)
    with Sandbox(function, folder):
        (record,) = queue.wait_for(1)

    assert record.condition == "InitError"
    assert record.payload() is None
