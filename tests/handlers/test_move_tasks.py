"""Given the same story of move tasks, then the plugin for moto answers as localstack-core did, but for the
differences listed here."""

from __future__ import annotations

import json
from pathlib import Path

from tests.handlers.conftest import World
from tests.handlers.move_task_story import tell

RECORDED = Path(__file__).with_name("move_task_story.json")

# step → what the plugin answers instead, and why
DIFFERENT = {
    # Amazon SQS API Reference, CancelMessageMoveTask: only a RUNNING task can be cancelled.
    "cancel what has ended": "ResourceNotFoundException",
    # localstack fails with an error of its own (AttributeError) and loses the message; SQS names the reason and keeps it.
    "sent straight to the DLQ": {"FailureReason": "CouldNotDetermineMessageSource"},
    "it is still there": 1,
}


def test_the_plugin_answers_as_the_peer_did(world: World) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    for step, answer in DIFFERENT.items():
        recorded[step] = {**recorded[step], **answer} if isinstance(answer, dict) else answer
    assert tell(world.sqs) == recorded
