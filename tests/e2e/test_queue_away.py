"""The queue cannot be reached: the function does not notice, and no record is lost without a word."""

from __future__ import annotations

import contextlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.e2e.demo.story import scenes
from tests.e2e.harness.functions import attached, node_function
from tests.e2e.harness.sandbox import Function, Sandbox
from tests.e2e.harness.sqs import Queue
from tests.e2e.harness.switch import Switch

SUCCEEDS, THROWS, TIMES_OUT, EXITS, _ = (scene.event for scene in scenes())


def test_records_wait_in_the_spool_through_resets_until_the_queue_is_back(
    layer: Path, queue: Queue, switch: Switch, folder: Path
) -> None:
    switch.refuse()
    with Sandbox(_behind(switch, queue, layer, timeout_s=2), folder) as sandbox:
        # Given failures of each kind, two of which reset the environment
        assert b"PaymentDeclined" in sandbox.invoke(THROWS).body
        assert len(_spooled(sandbox)) == 1
        assert b"Task timed out" in sandbox.invoke(TIMES_OUT).body
        assert len(_spooled(sandbox)) == 2
        assert sandbox.invoke(EXITS).status == 502
        assert len(_spooled(sandbox)) == 3
        assert sandbox.invoke(SUCCEEDS).status == 200
        assert len(_spooled(sandbox)) == 3
        assert queue.take() == []

        # When the queue is back, and the function is used
        switch.pass_on()
        assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body
        records = queue.collect(3, 2.0)
        if len(records) < 3:
            # The breaker may still have been open then; it is not after its pause.
            sandbox.invoke(SUCCEEDS)
            records += queue.collect(3 - len(records))

        # Then everything arrives, once
        assert sorted(record.condition for record in records) == ["Crash", "HandledError", "Timeout"]
        assert {record.payload() for record in records} == {THROWS, TIMES_OUT, EXITS}
        sandbox.wait_for(lambda: _spooled(sandbox) == [], "the spool's emptying")
        assert queue.take() == []


def test_what_is_left_at_shutdown_is_a_line_in_the_log_without_the_event(
    layer: Path, queue: Queue, switch: Switch, folder: Path
) -> None:
    switch.refuse()
    with Sandbox(_behind(switch, queue, layer), folder) as sandbox:
        answer = sandbox.invoke(THROWS)
        sandbox.stop()
        lines = _undelivered(sandbox)

        assert b"PaymentDeclined" in answer.body
        assert len(lines) == 1
        assert lines[0]["condition"] == "HandledError"
        assert lines[0]["function"] == "orders"
        assert lines[0]["requestContext"]["requestId"] in sandbox.output()
        assert "loyaltyNumber" not in json.dumps(lines[0])
        assert lines[0]["why"]


def test_masked_lines_hold_the_event_without_its_secrets(
    layer: Path, queue: Queue, switch: Switch, folder: Path
) -> None:
    switch.refuse()
    event = b'{"orderId": "A-1", "items": [], "headers": {"Authorization": "Bearer of-bad-news"}}'
    with Sandbox(_behind(switch, queue, layer, LAST_RESORT="masked"), folder) as sandbox:
        sandbox.invoke(event)
        sandbox.stop()
        (line,) = _undelivered(sandbox)

        assert line["maskedPayload"] == {"orderId": "A-1", "items": [], "headers": {"Authorization": "***"}}
        assert "of-bad-news" not in sandbox.output()


def test_a_later_environment_on_the_same_disk_sends_what_an_earlier_one_left(
    layer: Path, queue: Queue, switch: Switch, folder: Path
) -> None:
    switch.refuse()
    with Sandbox(_behind(switch, queue, layer, LAST_RESORT="off"), folder) as sandbox:
        sandbox.invoke(THROWS)
        sandbox.kill()  # not even a SHUTDOWN
    switch.pass_on()
    with Sandbox(_behind(switch, queue, layer), folder) as sandbox:
        sandbox.invoke(SUCCEEDS)
        (record,) = queue.wait_for(1)

        assert record.condition == "HandledError"
        assert record.has_event(THROWS)


def test_an_event_near_its_deadline_survives_even_a_kill_of_everything(
    layer: Path, queue: Queue, switch: Switch, folder: Path
) -> None:
    """At 300 ms before the deadline the event in flight is in the spool: the next life sends it."""
    with Sandbox(_behind(switch, queue, layer, timeout_s=2), folder) as sandbox:
        # Given an invocation that hangs, while the queue is away
        switch.refuse()
        sandbox.invoke(SUCCEEDS)
        killed = _invoke_and_kill_near_deadline(sandbox)
        assert killed
    switch.pass_on()
    with Sandbox(_behind(switch, queue, layer), folder) as sandbox:
        sandbox.invoke(SUCCEEDS)
        (record,) = queue.wait_for(1)

        assert record.condition == "Timeout"
        assert record.has_event(TIMES_OUT)


def test_a_queue_that_never_answers_costs_no_more_than_its_budget(
    layer: Path, queue: Queue, switch: Switch, folder: Path
) -> None:
    with Sandbox(_behind(switch, queue, layer, SHIP_BUDGET_MS="300", timeout_s=10), folder) as sandbox:
        plain = sandbox.invoke(SUCCEEDS)
        switch.refuse()
        switch.hang()
        # The emulator holds an answer until the sidecar is through, so that the budget can be seen there.
        assert 0.2 < sandbox.invoke(THROWS).seconds < 1.5
        # A success waits for nothing, with a record under way as without.
        assert max(sandbox.invoke(SUCCEEDS).seconds for _ in range(5)) < plain.seconds + 0.15
        assert len(_spooled(sandbox)) == 1


def _behind(switch: Switch, queue: Queue, layer: Path, *, timeout_s: int = 5, **settings: str) -> Function:
    """The order function, whose sidecar reaches its queue through the switch only."""
    url = queue.url_at(switch.port)
    return node_function(layer, attached(url, f"http://127.0.0.1:{switch.port}", **settings), timeout_s=timeout_s)


def _spooled(sandbox: Sandbox) -> list[str]:
    return [path.name for path in (sandbox.tmp / ".backstop" / "spool").glob("*")]


def _undelivered(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [json.loads(line) for line in re.findall(r'^\{"backstop":"undelivered".*$', sandbox.output(), re.MULTILINE)]


def _invoke_and_kill_near_deadline(sandbox: Sandbox) -> bool:
    """Starts an invocation that runs into its timeout, and kills everything once its event is in the spool."""
    with ThreadPoolExecutor() as pool:
        invocation = pool.submit(sandbox.invoke, TIMES_OUT)
        sandbox.wait_for(lambda: len(_spooled(sandbox)) == 1, "the event's way to the spool", 5.0)
        ran_out = invocation.done()
        sandbox.kill()
        with contextlib.suppress(OSError):
            invocation.result()
        return not ran_out
