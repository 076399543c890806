"""SQS on this machine: moto's server as a real process over HTTP, queues on it, and the failure records that arrived."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config
from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

SCHEMA = Path(__file__).parents[3] / "extension" / "record.schema.json"
REGION = "eu-central-1"
_START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message of the failure queue: the record as parsed, as text, and its message attributes."""

    record: dict[str, Any] = field(repr=False)
    text: str = field(repr=False)
    attributes: Mapping[str, str]
    group: str | None

    @property
    def condition(self) -> str:
        return str(self.record["requestContext"]["condition"])

    @property
    def backstop(self) -> dict[str, Any]:
        part: dict[str, Any] = self.record["backstop"]
        return part

    @property
    def error(self) -> dict[str, Any]:
        part = self.record.get("responsePayload")
        return part if isinstance(part, dict) else {}

    def payload(self) -> bytes | None:
        """The event's bytes as they are in the record, verbatim; None where it has none."""
        if "payloadAbsent" in self.backstop:
            return None
        if self.backstop.get("payloadEncoding") == "base64":
            return base64.b64decode(self.record["requestPayload"], validate=True)
        start, end = _value_span(self.text, "requestPayload")
        return self.text[start:end].encode()

    def has_event(self, event: bytes) -> bool:
        """Whether the record holds exactly the bytes of `event`, and says so by their number and hash."""
        return self.payload() == event and self.describes(event)

    def describes(self, event: bytes) -> bool:
        """Whether payloadBytes and payloadSha256 are those of `event`."""
        backstop = self.backstop
        return (
            backstop.get("payloadBytes") == len(event)
            and backstop.get("payloadSha256") == hashlib.sha256(event).hexdigest()
        )


class Queue:
    """A queue on moto, and what has been taken from it. Records are checked against the shipped JSON Schema as they are read."""

    def __init__(self, client: SQSClient, url: str) -> None:
        self._client = client
        self._validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
        self.url = url

    def url_at(self, port: int) -> str:
        """The same queue, reached over another port of this machine."""
        return f"http://127.0.0.1:{port}/" + self.url.split("/", 3)[3]

    def take(self) -> list[Arrived]:
        """Every record that lies on the queue now, erased from it. Raises jsonschema's ValidationError on a bad one."""
        taken: list[Arrived] = []
        while True:
            answer = self._client.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
            )
            messages = answer.get("Messages", [])
            if not messages:
                return taken
            for message in messages:
                self._client.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
                text = message["Body"]
                record = json.loads(text)
                self._validator.validate(record)
                attributes = {
                    name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()
                }
                taken.append(Arrived(record, text, attributes, message.get("Attributes", {}).get("MessageGroupId")))

    def collect(self, count: int, timeout_s: float = 10.0) -> list[Arrived]:
        """Takes records until there are `count` of them or the time is over."""
        deadline = time.monotonic() + timeout_s
        taken = self.take()
        while len(taken) < count and time.monotonic() < deadline:
            time.sleep(0.02)
            taken += self.take()
        return taken

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Arrived]:
        """Takes exactly `count` records; raises AssertionError if there are fewer in time, or more."""
        taken = self.collect(count, timeout_s)
        assert len(taken) == count, f"{len(taken)} records came in {timeout_s} s instead of {count}: {taken}"
        return taken


class Moto:
    """moto's server as a process. Use it as a context manager."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError("moto's server did not start")
            time.sleep(0.02)
        self.client: SQSClient = boto3.client(
            "sqs",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 2}),
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def queue(self, name: str = "failures", attributes: Mapping[str, str] | None = None) -> Queue:
        """A new queue with a name of its own. 1 MiB messages, as new queues on AWS take them."""
        wanted = {"MaximumMessageSize": "1048576", **(attributes or {})}
        suffix = ".fifo" if wanted.get("FifoQueue") == "true" else ""
        created = self.client.create_queue(QueueName=f"{name}-{uuid.uuid4().hex[:8]}{suffix}", Attributes=wanted)  # type: ignore[arg-type]
        return Queue(self.client, created["QueueUrl"])


def _value_span(text: str, key: str) -> tuple[int, int]:
    """Where the value of a top-level key begins and ends in a JSON object's text, as it was written.

    Blanks between colon and comma count as the value's: an event may begin or end with some.
    """
    decoder = json.JSONDecoder()
    position = text.index("{") + 1
    while True:
        position = _skip_blank(text, position)
        name, position = decoder.raw_decode(text, position)
        start = _skip_blank(text, position) + 1
        _, end = decoder.raw_decode(text, _skip_blank(text, start))
        end = _skip_blank(text, end)
        if name == key:
            return start, end
        position = end + 1


def _skip_blank(text: str, position: int) -> int:
    while text[position] in " \t\r\n":
        position += 1
    return position
