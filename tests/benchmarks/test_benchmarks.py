"""The measuring tools themselves: that they measure what they say. No test looks at how long anything took."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config

from benchmarks import delivery, processes, publish
from benchmarks.invocation import Runtime, Straight
from benchmarks.report import BUDGETS, Figure, beside, percentile, verdict
from benchmarks.stand_in import Lambda, Queue

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import MessageAttributeValueTypeDef


@contextlib.contextmanager
def platform() -> Iterator[Lambda]:
    lambda_ = Lambda()
    try:
        yield lambda_
    finally:
        lambda_.close()


@contextlib.contextmanager
def queue() -> Iterator[Queue]:
    sqs = Queue()
    try:
        yield sqs
    finally:
        sqs.close()


@pytest.mark.parametrize("size", [1024, 6_000_000])
def test_the_relay_and_the_straight_way_carry_an_invocation_whole(size: int) -> None:
    event = b'"' + b"x" * (size - 2) + b'"'
    with platform() as lambda_, processes.relay(lambda_.api.address[1]) as relay_address:
        for way in (Straight(lambda_), Straight(lambda_, relay_address)):
            for _ in range(3):
                assert way.invoke(event) > 0  # raises where the event arrives changed
            way.close()


def test_the_few_lines_extension_registers_and_sends_each_invocation_to_the_queue() -> None:
    with platform() as lambda_, queue() as sqs, tempfile.TemporaryDirectory() as state:
        environment = processes.function_environment(lambda_.runtime_api, Path(state), sqs)
        with processes.spawned(processes.few_lines_command(), environment) as process:
            lambda_.await_ready()
            for _ in range(2):
                request_id, deadline_ms, _head = lambda_.new_invocation()
                lambda_.invoke_extension(request_id, deadline_ms)
                sqs.accept()
                lambda_.await_idle()
            lambda_.shut_down_extension()
            assert process.wait(timeout=20) == 0


def test_a_failure_reported_to_the_sidecar_reaches_the_queue() -> None:
    with (
        processes.unpacked_layer() as layer,
        platform() as lambda_,
        queue() as sqs,
        processes.sidecar(layer, lambda_, sqs) as (_, state),
    ):
        runtime = Runtime(processes.proxy_address(state))
        delivery.fail_once(lambda_, sqs, runtime)
        runtime.close()


def test_boto3_accepts_the_queue_stand_ins_digests() -> None:
    """botocore checks both MD5 digests; `accept` runs in this thread, so the client gets a thread of its own."""
    with queue() as sqs, ThreadPoolExecutor(1) as pool:
        client = boto3.client(
            "sqs",
            endpoint_url=sqs.endpoint,
            region_name="eu-west-1",
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="secret",
            config=Config(retries={"total_max_attempts": 1}),
        )
        attribute: MessageAttributeValueTypeDef = {"DataType": "String", "StringValue": "Zürich"}
        sent = pool.submit(
            lambda: client.send_message(
                QueueUrl=sqs.url, MessageBody="äöü", MessageAttributes={"backstop.id": attribute, "a": attribute}
            )
        )
        sqs.accept()
        assert sent.result(timeout=20)["MessageId"]


def test_a_figure_is_one_json_line_with_its_ratio() -> None:
    bare = Figure("start.bare", 6.0, "ms")
    line = json.loads(beside("start.backstop", 9.0, "ms", bare).line())
    assert line == {"name": "start.backstop", "value": 9.0, "unit": "ms", "ratio_to": "start.bare", "ratio": 1.5}
    assert json.loads(bare.line())["ratio"] is None


@pytest.mark.parametrize(("ratio", "said"), [(1.6, "meets the aim"), (2.9, "meets the must"), (3.1, "MISSES THE MUST")])
def test_the_verdict_holds_a_figure_against_its_budget(ratio: float, said: str) -> None:
    words = verdict(Figure("start.backstop", 6 * ratio, "ms", "start.bare", ratio))
    assert words is not None
    assert said in words
    assert verdict(Figure("start.few_lines_boto3", 100, "ms")) is None
    assert BUDGETS["start.backstop"].must == 3


def test_percentiles() -> None:
    values = [float(number) for number in range(1, 102)]
    assert percentile(values, 50) == 51
    assert percentile(values, 99) == 100


def test_what_is_missed_of_the_aims_is_said() -> None:
    within, over = (Figure("start.backstop", 6 * ratio, "ms", "start.bare", ratio) for ratio in (1.5, 2.0))
    assert publish.missed([within]) == "Every figure meets its aim."
    assert publish.missed([over]) == "Missed of the aims: `start.backstop`: 2.00 × (aim 1.7, must 3)."
    *_, row = publish.rows([over])
    assert row == "| `start.backstop` | 12.00 ms | 2.00 × `start.bare` | 3 × | 1.7 × | meets the must |"


def test_published_figures_replace_those_before_them() -> None:
    page = f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n"
    assert publish.renewed(page, "new") == f"before\n{publish.BEGIN}\nnew\n{publish.END}\nafter\n"
    with pytest.raises(ValueError, match="put the lines"):
        publish.renewed("no marks", "new")
