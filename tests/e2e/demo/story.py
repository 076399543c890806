"""The demo's five invocations: what each is sent, what should become of it, and what did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.e2e.harness.sandbox import Answer, Sandbox
from tests.e2e.harness.sqs import Arrived, Queue

NO_TELEMETRY = "no log lines: this mode of AWS's emulator has no Telemetry API, real Lambda has"


@dataclass(frozen=True, slots=True)
class Scene:
    """One invocation: its name, the event's bytes, and the condition its record must have (None: no record)."""

    name: str
    event: bytes
    expected: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """What an invocation's caller got, and the records that arrived for it: none or one, if all is well."""

    scene: Scene
    answer: Answer
    records: Sequence[Arrived]

    @property
    def record(self) -> Arrived | None:
        """The record as it was last sent."""
        return self.records[-1] if self.records else None

    @property
    def outcome(self) -> str:
        """What the caller saw: success, error, timeout or crash."""
        if b"Task timed out" in self.answer.body:
            return "timeout"
        if self.answer.status != 200:
            return "crash"
        try:
            body = json.loads(self.answer.body)
        except ValueError:
            return "error"
        return "error" if isinstance(body, dict) and "errorType" in body else "success"

    @property
    def intact(self) -> bool | None:
        """Whether the record's event is the sent one, byte for byte. None where there is no record."""
        return None if self.record is None else self.record.has_event(self.scene.event)

    @property
    def log_lines(self) -> list[str]:
        return [] if self.record is None else list(self.record.backstop["logs"])

    @property
    def complaint(self) -> str | None:
        """What is not as it should be; None where all is well."""
        expected, record = self.scene.expected, self.record
        if expected is None:
            if self.outcome != "success":
                return f"it ended as {self.outcome}, not as a success"
            return None if record is None else "a success was captured"
        if record is None:
            return f"nothing was captured of its {self.outcome}"
        if len(self.records) > 1:
            return f"captured {len(self.records)} times"
        if record.condition != expected:
            return f"captured as {record.condition}, not as {expected}"
        return None if self.intact else "the event is not what was sent"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.scene.name,
            "outcome": self.outcome,
            "captured": self.record is not None,
            "condition": None if self.record is None else self.record.condition,
            "payload_intact": self.intact,
            "log_lines": len(self.log_lines),
        }


def scenes() -> list[Scene]:
    """The five invocations, in order."""
    return [
        Scene("succeeds", _order("A-1001"), None),
        Scene("throws", _order("A-1002", "throw"), "HandledError"),
        Scene("times out", _order("A-1003", "timeout"), "Timeout"),
        Scene("process exits", _order("A-1004", "exit"), "Crash"),
        Scene("succeeds again", _order("A-1005"), None),
    ]


def _order(order_id: str, simulate: str = "nothing") -> bytes:
    # Written out by hand: what a JSON library would change (1.00, a key given twice, a 20-digit number, escapes) has to stay.
    return (
        f'{{"orderId":"{order_id}", "customer":"Zoë Müller","simulate":"{simulate}",\n'
        f'  "items":[{{"sku":"MUG-WHITE","quantity":2,"unitPrice":12.50}},\n'
        f'           {{"sku":"TEA-GREEN-100G","quantity":1,"unitPrice":6.90}}],\n'
        f'  "discount":1.00,"discount":1.0e0,"loyaltyNumber":12345678901234567890,"note":"caf\\u00e9 \\ud83c\\udf75"}}'
    ).encode()


def play(sandbox: Sandbox, queue: Queue) -> list[Result]:
    """Sends the five invocations one after the other, ends the environment, and pairs each with the record of its order."""
    planned = scenes()
    answers = [sandbox.invoke(scene.event) for scene in planned]
    # Whatever is not on the queue by now is sent at the environment's end, or never.
    sandbox.stop()
    return match(planned, answers, queue.take())


def match(planned: Sequence[Scene], answers: Sequence[Answer], arrived: Sequence[Arrived]) -> list[Result]:
    """Pairs each invocation with the records that hold its order."""
    return [
        Result(scene, answer, [record for record in arrived if _is_of(record, scene)])
        for scene, answer in zip(planned, answers, strict=True)
    ]


def _is_of(record: Arrived, scene: Scene) -> bool:
    order_id: str = json.loads(scene.event)["orderId"]
    payload = record.payload()
    return payload is not None and order_id.encode() in payload
