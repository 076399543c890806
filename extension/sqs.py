"""The failure queue on SQS: sends records in batches, and learns what this queue takes."""

from __future__ import annotations

import time

from extension import fastjson, http1
from extension.aws import Client
from extension.aws_error import failure_of
from extension.credentials import NoCredentials, Source
from extension.https import Answer, Endpoint
from extension.sigv4 import Signer
from extension.sqs_protocol import (
    DENIED,
    MESSAGE_LIMIT,
    REFUSED,
    RETRY,
    TOO_LONG,
    Outcome,
    about_the_batch,
    batches,
    judge,
    message,
    message_bytes,
    named_limit,
    read_batch,
    read_sent,
)
from extension.tls import Context, NoStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from extension.record import Record
    from extension.settings import Settings


class Queue:
    """Sends records to the queue of the settings. One thread at a time."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        tls: Context | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`environ` is where credentials are read, each time. Raises ValueError where a URL cannot be used."""
        if not settings.queue_url:
            raise ValueError("no queue is set")
        own = Endpoint(settings.queue_url)
        endpoint = Endpoint(settings.endpoint_url_sqs or f"{own.scheme}://{own.authority}")
        signer = Signer(settings.region or "us-east-1", "sqs")
        self._client = Client(endpoint, signer, Source(environ, clock), tls or Context(), clock)
        self._url = settings.queue_url
        self._fifo = settings.queue_url.endswith(".fifo")
        self._grouped = True
        self._message_limit = MESSAGE_LIMIT
        self._batch_limit = MESSAGE_LIMIT

    def close(self) -> None:
        """Close the connection; the next `send` opens a fresh one."""
        self._client.close()

    def send(self, records: list[Record], deadline: float) -> list[Outcome]:
        """Send records before `deadline` (on `time.monotonic()`). Returns an outcome for each, in order.

        Never raises for what the network, AWS or a record may do. The connection stays open until `close`. After an
        outcome that is about all, the rest is not tried.
        """
        outcomes: dict[int, Outcome] = {}
        limit = self._message_limit
        for record in records:
            if message_bytes(record) > limit:
                outcomes[id(record)] = Outcome(TOO_LONG, f"the queue takes {limit} bytes", limit)
        stopped: Outcome | None = None
        for batch in batches([record for record in records if id(record) not in outcomes], self._batch_limit):
            found = [stopped] * len(batch) if stopped is not None else self._send_batch(batch, deadline)
            outcomes.update((id(record), outcome) for record, outcome in zip(batch, found, strict=True))
            stopped = stopped or next((outcome for outcome in found if outcome.about_all), None)
        return [outcomes[id(record)] for record in records]

    def _send_batch(self, batch: list[Record], deadline: float) -> list[Outcome]:
        if len(batch) == 1:
            return [self._send_one(batch[0], deadline)]
        try:
            entries = [
                {"Id": str(index), **message(record, fifo=self._fifo, grouped=self._grouped)}
                for index, record in enumerate(batch)
            ]
        except ValueError:
            return self._one_by_one(batch, deadline)
        answer = self._call("SendMessageBatch", {"QueueUrl": self._url, "Entries": entries}, deadline)
        if isinstance(answer, Outcome):
            return [answer] * len(batch)
        failure = failure_of(answer)
        if failure is None:
            return [
                self._reconsider(record, outcome, deadline)
                for record, outcome in zip(batch, read_batch(answer.body, batch), strict=True)
            ]
        size = sum(map(message_bytes, batch))
        if not about_the_batch(failure):
            return [judge(failure, size)] * len(batch)
        if failure.code.endswith("BatchRequestTooLong"):
            self._batch_limit = min(self._batch_limit, named_limit(failure.message) or size // 2)
        return self._one_by_one(batch, deadline)

    def _one_by_one(self, batch: list[Record], deadline: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for record in batch:
            stopped = outcomes and outcomes[-1].about_all
            outcomes.append(outcomes[-1] if stopped else self._send_one(record, deadline))
        return outcomes

    def _send_one(self, record: Record, deadline: float) -> Outcome:
        while True:
            grouped = self._grouped
            try:
                members = message(record, fifo=self._fifo, grouped=grouped)
            except ValueError:
                return Outcome(REFUSED, "the record is not UTF-8")
            answer = self._call("SendMessage", {"QueueUrl": self._url, **members}, deadline)
            if isinstance(answer, Outcome):
                return answer
            failure = failure_of(answer)
            if failure is None:
                return read_sent(answer.body)
            outcome = judge(failure, message_bytes(record))
            if grouped and self._takes_no_group(outcome):
                self._grouped = False
                continue
            self._learn(outcome)
            return outcome

    def _reconsider(self, record: Record, outcome: Outcome, deadline: float) -> Outcome:
        """Return what a batch's entry came to; one refused for its group goes once more, alone and without it."""
        self._learn(outcome)
        return self._send_one(record, deadline) if self._takes_no_group(outcome) else outcome

    def _takes_no_group(self, outcome: Outcome) -> bool:
        """Whether this is a local stand-in from before fair queues, where only FIFO queues knew groups."""
        return outcome.kind == REFUSED and "MessageGroupId" in outcome.reason and not self._fifo

    def _learn(self, outcome: Outcome) -> None:
        limit = named_limit(outcome.reason) if outcome.kind == TOO_LONG else None
        if limit is not None:
            self._message_limit = min(self._message_limit, limit)
            self._batch_limit = min(self._batch_limit, limit)

    def _call(self, operation: str, members: dict[str, Any], deadline: float) -> Answer | Outcome:
        headers = [("Content-Type", "application/x-amz-json-1.0"), ("X-Amz-Target", f"AmazonSQS.{operation}")]
        body = fastjson.dumps(members).encode()
        try:
            return self._client.call("POST", "/", headers, body, deadline)
        except http1.Malformed as error:
            return Outcome(RETRY, f"no HTTP answer: {error}")
        except OSError as error:
            return Outcome(RETRY, f"{type(error).__name__}: {error.strerror or error}")
        except (NoStore, NoCredentials, ValueError) as error:
            return Outcome(DENIED, f"{type(error).__name__}: {error}")
