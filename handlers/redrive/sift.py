"""Sorts a queue's messages by rules: archived, then sent, then marked as sent, then deleted.

A crash loses nothing: a message is deleted last. One that was sent and not yet deleted is recognised by its mark
when it comes again.
Between the sending and the mark a crash can send it twice on a standard queue; a FIFO queue takes the second for the
same (5 minutes).
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from handlers.redrive.sift_archive import INTENTS, SENT, Archive
from handlers.redrive.sift_rules import Action, Decision, Rules, decide

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

_BATCH = 10
_BATCH_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Places:
    """Queue URLs: what is sifted, where resent messages go, where quarantined ones go."""

    source: str
    resend: str | None = None
    quarantine: str | None = None

    def of(self, decision: Decision) -> str | None:
        """Return where a decision sends to; None where it sends nowhere."""
        if decision.action is Action.RESEND:
            return decision.to or self.resend
        return self.quarantine if decision.action is Action.QUARANTINE else None


@dataclass(slots=True)
class Tally:
    """What was done, by rule and action, and what could not be."""

    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def shown(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        rules: dict[str, dict[str, int]] = {}
        for (rule, action), count in sorted(self.done.items()):
            rules.setdefault(rule, {})[action] = count
        return {"rules": rules, "failed": dict(self.failed), "notes": dict(self.notes), "seen": sum(self.done.values())}


class Sift:
    """One sift. `visibility_s` is how long a received message stays hidden; it is extended while the sift holds it."""

    def __init__(
        self,
        client: SQSClient,
        places: Places,
        rules: Rules,
        archive: Archive | None,
        *,
        visibility_s: int = 300,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`archive` is None for a dry run: nothing is sent or deleted. Raises ValueError where a rule has nowhere to
        send to."""
        for rule in rules.rules:
            if rule.do is Action.RESEND and not (rule.to or places.resend):
                raise ValueError(f"rule {rule.name!r} resends, and no queue is named to resend to")
        if places.quarantine is None and Action.QUARANTINE in (rules.default, *(rule.do for rule in rules.rules)):
            raise ValueError("a rule quarantines, and no quarantine queue is named")
        self._client = client
        self._places = places
        self._rules = rules
        self._archive = archive
        self._visibility_s = visibility_s
        self._clock = clock
        self._held: dict[str, str] = {}
        self._extended_at = clock()
        self._sent = {line["id"] for line in archive.read(SENT)} if archive is not None else set()

    def run(self, most: int | None = None) -> Tally:
        """Sift until the queue gives no message that was not seen, or `most` were. Skipped messages are visible
        again afterwards."""
        tally = Tally()
        try:
            while most is None or sum(tally.done.values()) < most:
                messages = self._receive()
                if not messages:
                    break
                self._batch(messages, tally)
                self._extend_when_due()
        finally:
            self._let_go()
        return tally

    def _receive(self) -> list[Any]:
        answer = self._client.receive_message(
            QueueUrl=self._places.source,
            MaxNumberOfMessages=_BATCH,
            VisibilityTimeout=self._visibility_s,
            WaitTimeSeconds=1,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        fresh = []
        for message in answer.get("Messages", []):
            known = message["MessageId"] in self._held
            self._held[message["MessageId"]] = message["ReceiptHandle"]
            if not known:
                fresh.append(message)
        return fresh

    def _batch(self, messages: Sequence[Mapping[str, Any]], tally: Tally) -> None:
        decided = [(message, decide(self._rules, message)) for message in messages]
        for _, decision in decided:
            tally.done[decision.rule, str(decision.action)] += 1
            if decision.note:
                tally.notes[decision.note] += 1
        touched = [(message, decision) for message, decision in decided if decision.action is not Action.SKIP]
        if self._archive is None or not touched:
            return
        self._archive.put(INTENTS, (_line(message, decision, self._places) for message, decision in touched))
        finished = [message for message, decision in touched if self._places.of(decision) is None]
        finished += [message for message, decision in touched if self._places.of(decision) and self._is_sent(message)]
        to_send = [one for one in touched if self._places.of(one[1]) and not self._is_sent(one[0])]
        finished += self._send(to_send, tally)
        self._delete(finished, tally)

    def _is_sent(self, message: Mapping[str, Any]) -> bool:
        return message["MessageId"] in self._sent

    def _send(self, wanted: Sequence[tuple[Mapping[str, Any], Decision]], tally: Tally) -> list[Mapping[str, Any]]:
        sent: list[Mapping[str, Any]] = []
        blocked: set[tuple[str, str]] = set()
        for url, group in _by_place(wanted, self._places):
            if url.endswith(".fifo"):
                sent += self._send_in_order(url, group, blocked, tally)
            else:
                for batch in _batches(group):
                    sent += self._send_batch(url, batch, tally)
        if sent and self._archive is not None:
            self._archive.put(SENT, ({"id": message["MessageId"]} for message in sent))
            self._sent |= {message["MessageId"] for message in sent}
        return sent

    def _send_batch(
        self, url: str, batch: Sequence[tuple[Mapping[str, Any], Decision]], tally: Tally
    ) -> list[Mapping[str, Any]]:
        entries: Any = [{"Id": str(index), **_entry(*one, url)} for index, one in enumerate(batch)]
        answer = self._client.send_message_batch(QueueUrl=url, Entries=entries)
        for failure in answer.get("Failed", []):
            tally.failed[f"not sent: {failure['Code']}"] += 1
        return [batch[int(entry["Id"])][0] for entry in answer.get("Successful", [])]

    def _send_in_order(
        self,
        url: str,
        wanted: Sequence[tuple[Mapping[str, Any], Decision]],
        blocked: set[tuple[str, str]],
        tally: Tally,
    ) -> list[Mapping[str, Any]]:
        """One by one: after one of a group that was not taken, none of that group follows."""
        sent = []
        for message, decision in wanted:
            entry: Any = _entry(message, decision, url)
            place = (url, entry["MessageGroupId"])
            if place in blocked:
                tally.failed["not sent: an earlier one of its group was not"] += 1
                continue
            try:
                self._client.send_message(QueueUrl=url, **entry)
            except self._client.exceptions.ClientError as error:
                tally.failed[f"not sent: {error.response['Error']['Code']}"] += 1
                blocked.add(place)
            else:
                sent.append(message)
        return sent

    def _delete(self, messages: Sequence[Mapping[str, Any]], tally: Tally) -> None:
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            answer = self._client.delete_message_batch(
                QueueUrl=self._places.source,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]} for index, message in enumerate(batch)
                ],
            )
            for entry in answer.get("Successful", []):
                self._held.pop(batch[int(entry["Id"])]["MessageId"], None)
            for failure in answer.get("Failed", []):
                tally.failed[f"not deleted: {failure['Code']}"] += 1

    def _extend_when_due(self) -> None:
        if self._clock() - self._extended_at >= self._visibility_s / 3:
            self._set_visibility(self._visibility_s)
            self._extended_at = self._clock()

    def _let_go(self) -> None:
        self._set_visibility(0)
        self._held.clear()

    def _set_visibility(self, seconds: int) -> None:
        handles = list(self._held.values())
        for start in range(0, len(handles), _BATCH):
            self._client.change_message_visibility_batch(
                QueueUrl=self._places.source,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
                    for index, handle in enumerate(handles[start : start + _BATCH])
                ],
            )


def _by_place(
    wanted: Sequence[tuple[Mapping[str, Any], Decision]], places: Places
) -> list[tuple[str, list[tuple[Mapping[str, Any], Decision]]]]:
    found: dict[str, list[tuple[Mapping[str, Any], Decision]]] = {}
    for one in wanted:
        url = places.of(one[1])
        assert url is not None
        found.setdefault(url, []).append(one)
    return list(found.items())


def _batches(
    wanted: Sequence[tuple[Mapping[str, Any], Decision]],
) -> list[list[tuple[Mapping[str, Any], Decision]]]:
    """Split into batches that SendMessageBatch takes: at most 10, together under a megabyte."""
    batches: list[list[tuple[Mapping[str, Any], Decision]]] = []
    room = 0
    for one in wanted:
        size = len(one[1].body.encode()) + 4096
        if not batches or len(batches[-1]) == _BATCH or size > room:
            batches.append([])
            room = _BATCH_BYTES
        batches[-1].append(one)
        room -= size
    return batches


def _entry(message: Mapping[str, Any], decision: Decision, url: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"MessageBody": decision.body}
    if message.get("MessageAttributes"):
        entry["MessageAttributes"] = {
            name: {key: value[key] for key in ("DataType", "StringValue", "BinaryValue") if key in value}
            for name, value in message["MessageAttributes"].items()
        }
    system = message.get("Attributes", {})
    if "AWSTraceHeader" in system:
        entry["MessageSystemAttributes"] = {
            "AWSTraceHeader": {"DataType": "String", "StringValue": system["AWSTraceHeader"]}
        }
    if "MessageGroupId" in system:
        entry["MessageGroupId"] = system["MessageGroupId"]
    elif url.endswith(".fifo"):
        entry["MessageGroupId"] = "backstop-sift"
    if url.endswith(".fifo"):
        entry["MessageDeduplicationId"] = f"sift-{message['MessageId']}"
    return entry


def _line(message: Mapping[str, Any], decision: Decision, places: Places) -> dict[str, Any]:
    return {
        "id": message["MessageId"],
        "action": str(decision.action),
        "rule": decision.rule,
        "to": places.of(decision),
        "body": message["Body"],
        "sentBody": decision.body if decision.body != message["Body"] else None,
        "attributes": {name: _archived(value) for name, value in message.get("MessageAttributes", {}).items()},
        "system": dict(message.get("Attributes", {})),
    }


def _archived(value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: base64.b64encode(inner).decode() if isinstance(inner, bytes) else inner
        for key, inner in value.items()
        if key in ("DataType", "StringValue", "BinaryValue")
    }
