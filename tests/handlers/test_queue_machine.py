"""Given a dead-letter queue, when `redrive-queue` runs on an engine, then its messages move, or the reason is told."""

from __future__ import annotations

import json
import time
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from handlers.redrive import keys
from handlers.redrive.queue_steps import CheckRequest, StartRequest, check_task, start_task
from tests.handlers.conftest import TABLE, World
from tests.handlers.machine import Machine
from tests.handlers.moto_plugins import move_tasks


class Queues:
    """A queue with its dead-letter queue, a second queue, and the machine."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.sqs = world.sqs
        self.dlq, self.dlq_arn = self.make("orders-dlq")
        policy = json.dumps({"deadLetterTargetArn": self.dlq_arn, "maxReceiveCount": 1})
        self.queue, self.queue_arn = self.make("orders", RedrivePolicy=policy, VisibilityTimeout="0")
        self.other, self.other_arn = self.make("elsewhere")
        self.machine = Machine("queue.asl.json", {"TableName": TABLE})

    def make(self, name: str, **attributes: str) -> tuple[str, str]:
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]
        arn = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return url, arn

    def fail(self, count: int) -> None:
        """Messages that were received once too often."""
        for number in range(count):
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=f"m-{number}")
        self.take()

    def take(self) -> None:
        """A consumer that fails: it receives everything until all lies in the dead-letter queue."""
        while self.depth(self.queue):
            self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10, VisibilityTimeout=0)

    def depth(self, url: str) -> int:
        attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"])

    def run(self, **request: Any) -> dict[str, Any]:
        return self.machine.run({"queueArn": self.dlq_arn, "returnsSeconds": 0, "pollSeconds": 0, **request})


@pytest.fixture
def queues(world: World, monkeypatch: pytest.MonkeyPatch) -> Queues:
    return Queues(world, monkeypatch)


def test_messages_go_back_to_where_they_came_from(queues: Queues) -> None:
    queues.fail(12)
    done = queues.run()
    assert done["status"] == "SUCCEEDED", done
    assert done["output"] == {
        "queueArn": queues.dlq_arn,
        "status": "completed",
        "messages": 12,
        "moved": 12,
        "adopted": False,
        "cameBack": 0,
    }
    assert (queues.depth(queues.dlq), queues.depth(queues.queue)) == (0, 12)


def test_messages_can_go_elsewhere_and_the_second_redrive_of_a_queue_works_as_well(queues: Queues) -> None:
    for turn in (1, 2):
        queues.fail(3)
        done = queues.run(destinationArn=queues.other_arn, maxMessagesPerSecond=500)
        assert (done["status"], done["output"]["moved"]) == ("SUCCEEDED", 3)
        assert queues.depth(queues.other) == 3 * turn


def test_a_dry_run_moves_nothing(queues: Queues) -> None:
    queues.fail(4)
    done = queues.run(dryRun=True)
    assert (done["output"]["status"], done["output"]["messages"]) == ("planned", 4)
    assert (done["output"]["sources"], done["output"]["running"]) == ([queues.queue_arn], False)
    assert queues.depth(queues.dlq) == 4


def test_an_empty_queue_is_done_at_once(queues: Queues) -> None:
    done = queues.run()
    assert (done["status"], done["output"]["status"], done["output"]["moved"]) == ("SUCCEEDED", "completed", 0)


def test_a_queue_that_is_no_dead_letter_queue_or_is_not_there_fails_with_the_reason(queues: Queues) -> None:
    not_one = queues.machine.run({"queueArn": queues.other_arn})
    assert (not_one["status"], not_one["error"]) == ("FAILED", "Redrive.NotADeadLetterQueue")
    missing = queues.machine.run({"queueArn": queues.other_arn + "-gone"})
    assert (missing["status"], missing["error"]) == ("FAILED", "Redrive.NoSuchQueue")


def test_messages_sent_straight_to_the_dead_letter_queue_need_a_destination(queues: Queues) -> None:
    queues.sqs.send_message(QueueUrl=queues.dlq, MessageBody="straight")
    failed = queues.run()
    assert (failed["status"], failed["error"]) == ("FAILED", "Redrive.MoveFailed")
    assert "CouldNotDetermineMessageSource" in failed["cause"]
    assert "destinationArn" in failed["cause"]


def test_a_running_task_is_adopted(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    queues.fail(3)
    queues.sqs.start_message_move_task(SourceArn=queues.dlq_arn, MaxNumberOfMessagesPerSecond=1)
    done = queues.run()
    assert (done["status"], done["output"]["adopted"], done["output"]["moved"]) == ("SUCCEEDED", True, 3)


def test_the_deadline_cancels_the_task(queues: Queues) -> None:
    queues.fail(60)
    done = queues.run(maxMessagesPerSecond=1, deadlineSeconds=1, pollSeconds=1)
    assert (done["status"], done["output"]["status"]) == ("SUCCEEDED", "deadline"), done
    assert 0 < done["output"]["moved"] < 60
    assert queues.depth(queues.dlq) == 60 - done["output"]["moved"]


def test_a_task_that_somebody_cancels_is_told_as_cancelled(queues: Queues) -> None:
    queues.fail(60)
    execution = queues.machine.start(
        {"queueArn": queues.dlq_arn, "maxMessagesPerSecond": 1, "returnsSeconds": 0, "pollSeconds": 1}, name="cancelled"
    )
    deadline = time.monotonic() + 20
    while not (tasks := queues.sqs.list_message_move_tasks(SourceArn=queues.dlq_arn)["Results"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    queues.sqs.cancel_message_move_task(TaskHandle=tasks[0]["TaskHandle"])
    assert queues.machine.wait(execution)["output"]["status"] == "cancelled"


def test_messages_that_come_back_mark_the_queue_and_automatic_redrives_are_refused_until_cleared(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues.fail(5)
    advance = move_tasks.MoveTask.advance

    def and_fail_again(self: move_tasks.MoveTask, backend: Any, now: float) -> None:
        advance(self, backend, now)
        if self.status == "COMPLETED" and queues.depth(queues.queue):
            queues.take()

    monkeypatch.setattr(move_tasks.MoveTask, "advance", and_fail_again)
    done = queues.run()
    assert (done["output"]["moved"], done["output"]["cameBack"]) == (5, 5)
    mark = queues.world.table.get(keys.poison(queues.dlq_arn))
    assert mark is not None
    assert "5 of 5" in mark["reason"]
    refused = queues.run(automatic=True)
    assert (refused["status"], refused["error"]) == ("FAILED", "Redrive.Poisoned")
    assert "5 of 5" in refused["cause"]
    assert queues.run(dryRun=True)["output"]["poison"] == mark["reason"]
    queues.world.table.remove([keys.poison(queues.dlq_arn)])
    assert queues.run(automatic=True)["status"] == "SUCCEEDED"


def test_a_long_move_goes_on_as_a_new_execution(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto's engine starts no executions from a state machine: its request is taken, and carried out by hand."""
    queues.fail(3)
    queues.sqs.start_message_move_task(SourceArn=queues.dlq_arn, MaxNumberOfMessagesPerSecond=500)
    started = queues.sqs.list_message_move_tasks(SourceArn=queues.dlq_arn)["Results"][0]["StartedTimestamp"]
    carried = {
        "queueArn": queues.dlq_arn,
        "destinationArn": "",
        "rate": 0,
        "deadlineSeconds": 0,
        "returnsSeconds": 0,
        "startAt": started,
        "url": queues.dlq,
        "before": 3,
        "sources": [{"arn": queues.queue_arn, "returnSeconds": 0}],
        "started": started,
        "handle": "h",
        "adopted": False,
        "cancelling": False,
        "pause": 0,
    }
    definition = json.loads(
        (queues.machine.client.describe_state_machine(stateMachineArn=queues.machine.arn))["definition"]
    )
    handed_on = definition["States"]["Go on as a new execution"]["Arguments"]["Input"]["continued"]
    assert set(handed_on) == set(carried)
    done = queues.machine.run({"continued": carried})
    assert (done["status"], done["output"]["moved"]) == ("SUCCEEDED", 3), done


def test_every_state_can_be_reached(queues: Queues) -> None:
    definition = json.loads(
        boto3.client("stepfunctions").describe_state_machine(stateMachineArn=queues.machine.arn)["definition"]
    )
    states = definition["States"]
    reached, waiting = set(), [definition["StartAt"]]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        state = states[name]
        waiting += [state[key] for key in ("Next", "Default") if key in state]
        waiting += [one["Next"] for key in ("Choices", "Catch") for one in state.get(key, [])]
    assert reached == set(states)


def test_the_two_lambda_steps_start_adopt_and_check(queues: Queues) -> None:
    queues.fail(2)
    request = StartRequest(queueArn=queues.dlq_arn, maxMessagesPerSecond=1)
    first = start_task(queues.sqs, request, time.time())
    assert (first["adopted"], first["startedTimestamp"] is not None) == (False, True)
    assert check_task(queues.sqs, CheckRequest.model_validate(first))["status"] == "RUNNING"
    second = start_task(queues.sqs, request, time.time())
    assert (second["adopted"], second["startedTimestamp"]) == (True, first["startedTimestamp"])
    unknown = CheckRequest(queueArn=queues.dlq_arn, startedTimestamp=1)
    assert check_task(queues.sqs, unknown)["status"] == "NOT_FOUND"
    with pytest.raises(ClientError, match="Dead Letter Queue"):
        start_task(queues.sqs, StartRequest(queueArn=queues.other_arn), time.time())


def test_a_task_that_has_ended_at_once_is_found_without_its_handle(queues: Queues) -> None:
    queues.fail(2)
    started = start_task(queues.sqs, StartRequest(queueArn=queues.dlq_arn), time.time())
    checked = check_task(queues.sqs, CheckRequest.model_validate(started))
    assert (checked["status"], checked["moved"]) == ("COMPLETED", 2)
