"""A Node.js function under AWS's emulator, one invocation at a time: which invocations are captured, and with what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.demo.story import Result, play, scenes
from tests.e2e.harness.functions import attached, node_function
from tests.e2e.harness.roots import python_files
from tests.e2e.harness.sandbox import Answer, Sandbox
from tests.e2e.harness.sqs import Moto

TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class Story:
    """The same five invocations of a function with the layer and of one without."""

    results: dict[str, Result]
    plain_answers: list[Answer]
    output: str
    python: list[str]
    tmp: Path


@pytest.fixture(scope="module")
def story(layer: Path, moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    queue = moto.queue()
    with_layer = node_function(layer, attached(queue.url, moto.url, TAGS="team:orders,env:test"), timeout_s=TIMEOUT_S)
    without = node_function(None, {}, timeout_s=TIMEOUT_S)
    with (
        Sandbox(with_layer, tmp_path_factory.mktemp("with")) as sandbox,
        Sandbox(without, tmp_path_factory.mktemp("without")) as plain,
        ThreadPoolExecutor() as pool,
    ):
        python = python_files(sandbox.inside())
        answers = pool.submit(lambda: [plain.invoke(scene.event) for scene in scenes()])
        results = {result.scene.name: result for result in play(sandbox, queue)}
        yield Story(results, answers.result(), sandbox.output(), python, sandbox.tmp)


def test_no_success_is_captured(story: Story) -> None:
    for name in ("succeeds", "succeeds again"):
        assert story.results[name].outcome == "success"
        assert story.results[name].record is None


@pytest.mark.parametrize(
    ("name", "outcome", "condition", "error_type"),
    [
        ("throws", "error", "HandledError", "PaymentDeclined"),
        ("times out", "timeout", "Timeout", "Sandbox.Timedout"),
        ("process exits", "crash", "Crash", "Runtime.ExitError"),
    ],
)
def test_every_failure_is_captured_with_its_event(
    story: Story, name: str, outcome: str, condition: str, error_type: str
) -> None:
    result = story.results[name]

    assert result.outcome == outcome
    assert result.record is not None
    assert result.record.condition == condition
    assert result.record.backstop["error"]["type"] == error_type
    assert result.record.has_event(result.scene.event)


def test_the_error_is_kept_as_the_runtime_gave_it(story: Story) -> None:
    result = story.results["throws"]

    assert result.record is not None
    assert result.record.error == json.loads(result.answer.body)
    assert result.record.error["trace"][0].startswith("PaymentDeclined: card of Zoë Müller declined")
    assert result.record.backstop["error"]["message"] == result.record.error["errorMessage"]


def test_answers_are_the_same_with_and_without_the_layer(story: Story) -> None:
    answers = [result.answer for result in story.results.values()]

    assert [_without_ids(answer) for answer in answers] == [_without_ids(answer) for answer in story.plain_answers]


def test_the_function_recovers_after_a_timeout_and_after_a_crash(story: Story) -> None:
    # The crash is the first invocation after the timeout's reset, the last success the first one after the crash's.
    assert story.results["process exits"].outcome == "crash"
    assert story.results["succeeds again"].outcome == "success"


def test_records_name_their_invocation(story: Story) -> None:
    request_ids = re.findall(r"START RequestId: (\S+)", story.output)
    for request_id, result in zip(request_ids, story.results.values(), strict=True):
        if result.record is not None:
            context = result.record.record["requestContext"]
            assert context["requestId"] == request_id
            assert context["functionArn"].endswith(":function:orders")


def test_message_attributes_repeat_the_record(story: Story) -> None:
    records = [result.record for result in story.results.values() if result.record is not None]
    for record in records:
        assert record.attributes == {
            "backstop.id": record.backstop["id"],
            "backstop.function": "orders",
            "backstop.condition": record.condition,
            "backstop.fingerprint": record.backstop["fingerprint"],
        }
        assert record.group == "orders"
        assert record.backstop["tags"] == {"team": "orders", "env": "test"}
    assert len({record.backstop["id"] for record in records}) == 3


def test_each_life_of_the_sidecar_says_once_that_it_is_ready(story: Story) -> None:
    # One at first, one after the timeout, one after the crash.
    ready = [json.loads(line) for line in story.output.splitlines() if line.startswith('{"backstop":"ready"')]

    assert len(ready) == 3
    assert all(0 < line["start_ms"] < 1000 for line in ready)
    assert '"backstop":"warning"' not in story.output


def test_the_spool_is_empty_when_everything_was_accepted(story: Story) -> None:
    assert _spooled(story.tmp) == []


def test_the_root_holds_no_python_but_the_layers(story: Story) -> None:
    assert story.python == []


def _without_ids(answer: Answer) -> tuple[int, bytes]:
    return answer.status, re.sub(rb"[0-9a-f-]{36}", b"ID", answer.body)


def _spooled(tmp: Path) -> list[str]:
    return [path.name for path in (tmp / ".backstop" / "spool").glob("*")]
