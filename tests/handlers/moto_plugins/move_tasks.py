"""SQS message move tasks for moto: StartMessageMoveTask, ListMessageMoveTasks, CancelMessageMoveTask.

Amazon SQS API Reference: one active task per source, which must be some queue's dead-letter queue; newest first;
a handle only while running; moved messages get new ids. A task without a rate moves all at once. Time is the
process's, or `clock`'s.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moto.core.responses import ActionResult
from moto.sqs.exceptions import SQSException
from moto.sqs.models import Message, Queue, SQSBackend
from moto.sqs.responses import SQSResponse

clock: Callable[[], float] = time.time
_MOST_PER_SECOND = 500


def _no_such_task(message: str) -> SQSException:
    return SQSException("ResourceNotFoundException", message)


@dataclass
class MoveTask:
    """One task. It moves when somebody looks."""

    handle: str
    source: Queue
    destination: Queue | None
    rate: int | None
    started: float
    to_move: int
    status: str = "RUNNING"
    moved: int = 0
    failure: str | None = None

    def advance(self, backend: SQSBackend, now: float) -> None:
        if self.status == "CANCELLING":
            self.status = "CANCELLED"
        if self.status != "RUNNING":
            return
        allowed = self.to_move if self.rate is None else min(self.to_move, int((now - self.started) * self.rate))
        while self.moved < allowed:
            message = next((one for one in self.source._messages if one.visible), None)
            if message is None:
                break
            target = self.destination or _origin(backend, message, self.source)
            if target is None:
                self.status, self.failure = "FAILED", "CouldNotDetermineMessageSource"
                return
            self.source._messages.remove(message)
            message.id = str(uuid.uuid4())
            message.approximate_receive_count = 0
            message.visible_at = 0
            target.add_message(message)
            self.moved += 1
        if self.moved >= self.to_move or not any(one.visible for one in self.source._messages):
            self.status = "COMPLETED"

    def shown(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "Status": self.status,
            "SourceArn": self.source.queue_arn,
            "ApproximateNumberOfMessagesMoved": self.moved,
            "ApproximateNumberOfMessagesToMove": self.to_move,
            "StartedTimestamp": int(self.started * 1000),
        }
        if self.status == "RUNNING":
            entry["TaskHandle"] = self.handle
        if self.destination is not None:
            entry["DestinationArn"] = self.destination.queue_arn
        if self.rate is not None:
            entry["MaxNumberOfMessagesPerSecond"] = self.rate
        if self.failure is not None:
            entry["FailureReason"] = self.failure
        return entry


def _origin(backend: SQSBackend, message: Message, dlq: Queue) -> Queue | None:
    """Where a message came from. moto does not keep it: one that was received came from the (first) queue that names
    this DLQ,
    one that never was received had been sent straight to the DLQ."""
    sources = backend.list_dead_letter_source_queues(dlq.name)
    return sources[0] if sources and message.approximate_receive_count > 0 else None


def _tasks(backend: SQSBackend) -> list[MoveTask]:
    found: list[MoveTask] = backend.__dict__.setdefault("move_tasks", [])
    for task in found:
        task.advance(backend, clock())
    return found


def _queue(backend: SQSBackend, arn: str) -> Queue:
    for queue in backend.queues.values():
        if queue.queue_arn == arn:
            return queue
    raise _no_such_task("The resource that you specified for the SourceArn parameter doesn't exist.")


def _start(self: SQSResponse) -> ActionResult:
    backend = self.sqs_backend
    source = _queue(backend, self._get_param("SourceArn"))
    destination = self._get_param("DestinationArn")
    rate = self._get_param("MaxNumberOfMessagesPerSecond")
    if not backend.list_dead_letter_source_queues(source.name):
        raise SQSException("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
    if rate is not None and not 1 <= int(rate) <= _MOST_PER_SECOND:
        raise SQSException("InvalidParameterValue", "MaxNumberOfMessagesPerSecond must be between 1 and 500.")
    if any(task.source is source and task.status == "RUNNING" for task in _tasks(backend)):
        raise SQSException(
            "InvalidParameterValue",
            "There is already a task running. Only one active task is allowed for a source queue arn.",
        )
    task = MoveTask(
        handle=str(uuid.uuid4()),
        source=source,
        destination=_queue(backend, destination) if destination else None,
        rate=int(rate) if rate is not None else None,
        started=clock(),
        to_move=sum(one.visible for one in source._messages),
    )
    backend.__dict__["move_tasks"].insert(0, task)
    return ActionResult({"TaskHandle": task.handle})


def _list(self: SQSResponse) -> ActionResult:
    backend = self.sqs_backend
    source = _queue(backend, self._get_param("SourceArn"))
    most = int(self._get_param("MaxResults") or 1)
    found = [task for task in _tasks(backend) if task.source is source]
    return ActionResult({"Results": [task.shown() for task in found[: min(most, 10)]]})


def _cancel(self: SQSResponse) -> ActionResult:
    handle = self._get_param("TaskHandle")
    for task in _tasks(self.sqs_backend):
        if task.handle == handle and task.status == "RUNNING":
            task.status = "CANCELLING"
            return ActionResult({"ApproximateNumberOfMessagesMoved": task.moved})
    raise _no_such_task("Task does not exist.")


def install() -> None:
    SQSResponse.start_message_move_task = _start  # type: ignore[attr-defined]
    SQSResponse.list_message_move_tasks = _list  # type: ignore[attr-defined]
    SQSResponse.cancel_message_move_task = _cancel  # type: ignore[attr-defined]
