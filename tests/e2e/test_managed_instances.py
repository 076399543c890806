"""Managed Instances mode of AWS's emulator: several invocations at a time, and the real Telemetry API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.demo.story import scenes
from tests.e2e.harness.cgroups import memory_limit
from tests.e2e.harness.functions import attached, node_function
from tests.e2e.harness.namespaces import may_change_user
from tests.e2e.harness.sandbox import Sandbox
from tests.e2e.harness.sqs import Moto, Queue

pytestmark = pytest.mark.skipif(
    not may_change_user(), reason="the emulator starts processes as another user in this mode: root only"
)
SUCCEEDS, THROWS, _, EXITS, _ = (scene.event for scene in scenes())


@pytest.fixture
def orders(layer: Path, moto: Moto, queue: Queue, folder: Path) -> Iterator[Sandbox]:
    function = node_function(layer, attached(queue.url, moto.url, LOG_WAIT_MS="2000"), concurrency=4)
    with Sandbox(function, folder) as sandbox:
        yield sandbox


def test_a_handled_error_comes_with_its_last_log_lines(orders: Sandbox, queue: Queue) -> None:
    assert b"CONFIRMED" in orders.invoke(SUCCEEDS).body
    assert b"PaymentDeclined" in orders.invoke(THROWS).body
    (record,) = queue.wait_for(1)

    assert record.condition == "HandledError"
    assert record.has_event(THROWS)
    messages = [json.loads(line)["message"] for line in record.backstop["logs"]]
    assert messages[0] == "order A-1002: 2 item(s) for Zoë Müller"
    assert "PaymentDeclined" in messages[1]
    assert len(messages) == 2
    assert "logsIncomplete" not in record.backstop


def test_invocations_at_the_same_time_are_kept_apart(orders: Sandbox, queue: Queue) -> None:
    events = [THROWS.replace(b"A-1002", f"B-{number}".encode()) for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(orders.invoke, [event for pair in zip(events, [SUCCEEDS] * 12, strict=True) for event in pair])
        )
    records = queue.wait_for(12)

    assert all(b"CONFIRMED" in answer.body for answer in answers[1::2])
    assert {record.payload() for record in records} == set(events)
    for record in records:
        assert record.condition == "HandledError"
        order_id = record.record["requestPayload"]["orderId"]
        assert record.backstop["logs"], "the log lines came in time"
        assert all(f"order {order_id}:" in line or f"(order {order_id})" in line for line in record.backstop["logs"])


def test_a_crash_takes_every_invocation_in_flight_with_it(orders: Sandbox, queue: Queue) -> None:
    waiting = THROWS.replace(b'"throw"', b'"timeout"')
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(orders.invoke, waiting)
        orders.wait_for_output("waiting for the stock service")
        assert b"Runtime.ExitError" in orders.invoke(EXITS).body
        hanging.result()
    records = queue.wait_for(2)

    assert {record.condition for record in records} == {"Crash"}
    assert {record.payload() for record in records} == {waiting, EXITS}
    for record in records:
        assert record.backstop["logs"]


def test_a_later_crash_does_not_touch_an_earlier_handled_error(
    layer: Path, moto: Moto, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Which of a runtime's connections carries what is chance: hence several environments, each of which can crash once."""
    for _ in range(6):
        queue = moto.queue()
        function = node_function(layer, attached(queue.url, moto.url), concurrency=2)
        with Sandbox(function, tmp_path_factory.mktemp("crash")) as sandbox:
            sandbox.invoke(THROWS)
            (thrown,) = queue.wait_for(1)
            sandbox.invoke(EXITS)
            crashed = queue.collect(1)
            sandbox.stop()
            crashed += queue.take()

        assert thrown.condition == "HandledError"
        assert [(record.condition, record.payload()) for record in crashed] == [("Crash", EXITS)]


def test_memory_taken_until_the_kernel_kills_is_out_of_memory(
    layer: Path, moto: Moto, queue: Queue, folder: Path
) -> None:
    event = b'{"orderId": "A-1", "note": "too large a report"}'
    function = node_function(layer, attached(queue.url, moto.url), code="memory", concurrency=1)
    with memory_limit(256) as cgroup, Sandbox(function, folder, cgroup=cgroup) as sandbox:
        answer = sandbox.invoke(event)
        (record,) = queue.wait_for(1)
        sandbox.stop()

    assert b"Runtime.OutOfMemory" in answer.body
    assert record.condition == "OutOfMemory"
    assert record.backstop["error"]["type"] == "Runtime.OutOfMemory"
    assert record.has_event(event)
    assert "taking all the memory there is" in record.backstop["logs"][0]


def test_without_telemetry_it_is_a_crash(layer: Path, moto: Moto, queue: Queue, folder: Path) -> None:
    """One invocation at a time the emulator has no telemetry. The kernel spares the sidecar: the wrapper marked the runtime."""
    event = b'{"orderId": "A-1"}'
    function = node_function(layer, attached(queue.url, moto.url), code="memory")
    with memory_limit(256) as cgroup, Sandbox(function, folder, cgroup=cgroup) as sandbox:
        assert sandbox.invoke(event).status == 502
        (record,) = queue.wait_for(1)
        sandbox.stop()

    assert record.condition == "Crash"
    assert record.has_event(event)
