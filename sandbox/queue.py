"""A stand-in for an SQS queue: takes messages (AWS JSON protocol 1.0, SendMessage and SendMessageBatch) and keeps them.

It is there so that one command shows what a layer sent. It does not check signatures, and nothing can be received from it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import threading
import uuid
from dataclasses import dataclass
from typing import Any

from sandbox.answers import Answer
from sandbox.http import BodyTooLarge, Request, Server

_JSON = "application/x-amz-json-1.0"
# "Amazon SQS message quotas": 1 MiB for a message and for a batch; the request around it is a little longer.
MAX_MESSAGE = 1_048_576
_MAX_REQUEST = 8 * MAX_MESSAGE
_ACCOUNT = "123456789012"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was sent."""

    body: str
    attributes: dict[str, str]
    group: str | None


class Queue:
    """Runs on a thread of its own. Use it as a context manager; `url` and `endpoint` are there then."""

    def __init__(self, name: str = "failures") -> None:
        self._name = name
        self._messages: list[Message] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="queue", daemon=True)
        self._server = Server(self._handle)

    def __enter__(self) -> Queue:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start("127.0.0.1"), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def url(self) -> str:
        return f"{self.endpoint}/{_ACCOUNT}/{self._name}"

    def messages(self) -> list[Message]:
        """Everything that was taken so far, in order."""
        with self._lock:
            return list(self._messages)

    async def _handle(self, request: Request) -> Answer:
        target = request.headers.get("x-amz-target", "")
        try:
            wanted = json.loads(await request.body.read(_MAX_REQUEST))
            if not isinstance(wanted, dict):
                raise ValueError("not an object")
            if target == "AmazonSQS.SendMessage":
                return _ok(self._send(wanted))
            if target == "AmazonSQS.SendMessageBatch":
                return _ok(self._send_batch(wanted["Entries"]))
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            return _refused("com.amazonaws.sqs#InvalidParameterValue", str(problem))
        except BodyTooLarge as problem:
            return _refused("com.amazonaws.sqs#BatchRequestTooLong", str(problem))
        return _refused("com.amazonaws.sqs#UnsupportedOperation", f"{target} is not one of the stand-in's operations")

    def _send(self, wanted: dict[str, Any]) -> dict[str, str]:
        body = wanted["MessageBody"]
        if len(body.encode()) > MAX_MESSAGE:
            raise ValueError(
                f"One or more parameters are invalid. Reason: Message must be shorter than {MAX_MESSAGE} bytes."
            )
        attributes = wanted.get("MessageAttributes") or {}
        values = {name: str(value["StringValue"]) for name, value in attributes.items()}
        with self._lock:
            self._messages.append(Message(body, values, wanted.get("MessageGroupId")))
        sent = {"MessageId": str(uuid.uuid4()), "MD5OfMessageBody": hashlib.md5(body.encode()).hexdigest()}
        if attributes:
            sent["MD5OfMessageAttributes"] = _attributes_md5(attributes)
        return sent

    def _send_batch(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        if sum(len(entry["MessageBody"].encode()) for entry in entries) > MAX_MESSAGE:
            raise ValueError("Batch requests cannot be longer than 1048576 bytes.")
        return {"Successful": [{"Id": entry["Id"], **self._send(entry)} for entry in entries], "Failed": []}


def _ok(value: dict[str, Any]) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": _JSON, "x-amzn-RequestId": str(uuid.uuid4())})


def _refused(kind: str, why: str) -> Answer:
    body = json.dumps({"__type": kind, "message": why}).encode()
    return Answer(400, body, {"Content-Type": _JSON, "x-amzn-RequestId": str(uuid.uuid4())})


def _attributes_md5(attributes: dict[str, Any]) -> str:
    """As "Calculating the MD5 message digest for message attributes": name, type and value, each with its length before it."""
    digest = hashlib.md5()
    for name in sorted(attributes):
        value = attributes[name]
        for text in (name, value["DataType"]):
            digest.update(struct.pack(">I", len(text.encode())) + text.encode())
        encoded = value["StringValue"].encode()
        digest.update(b"\x01" + struct.pack(">I", len(encoded)) + encoded)
    return digest.hexdigest()
