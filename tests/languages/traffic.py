"""What a tee recorded, cut into exchanges; and what differs between two runs by nature."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.languages.tee import Recorded


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, raw. The answer is empty where none came: the last GET /next of a run waits for ever."""

    request: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that differs between two runs though nothing changed it."""

    what: str
    pattern: re.Pattern[bytes]
    instead: bytes


_HEADER = r"(?im)^({}: )[^\r\n]*"
BY_NATURE = (
    Rule("request ids", re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), b"REQUEST-ID"),
    Rule("the `Date` header", re.compile(_HEADER.format("Date").encode()), rb"\1DATE"),
    Rule("the deadline", re.compile(_HEADER.format("Lambda-Runtime-Deadline-Ms").encode()), rb"\1DEADLINE"),
    Rule("the trace id", re.compile(_HEADER.format("Lambda-Runtime-Trace-Id").encode()), rb"\1TRACE"),
    Rule("the port of the API in `Host`", re.compile(rb"(?im)^(Host: 127\.0\.0\.1:)\d+"), rb"\1PORT"),
)


def without_nature(message: bytes) -> bytes:
    """A message with everything named in BY_NATURE replaced."""
    for rule in BY_NATURE:
        message = rule.pattern.sub(rule.instead, message)
    return message


def exchanges(connections: list[Recorded]) -> list[Exchange]:
    """Every exchange of every connection, in the order in which their requests began."""
    found = []
    for connection in connections:
        requests, answers = cut(bytes(connection.sent)), cut(bytes(connection.got))
        assert len(answers) <= len(requests), "an answer without a request"
        answers += [b""] * (len(requests) - len(answers))
        start = 0
        for request, answer in zip(requests, answers, strict=True):
            found.append((_number_at(connection, start), Exchange(request, answer)))
            start += len(request)
    return [exchange for _, exchange in sorted(found, key=lambda pair: pair[0])]


def cut(stream: bytes) -> list[bytes]:
    """HTTP/1.1 messages in a stream, heads and bodies together; the last one may be cut off (RFC 9112, sections 2.1 and 6.3)."""
    messages = []
    while stream:
        end = _end_of_message(stream) or len(stream)
        messages.append(stream[:end])
        stream = stream[end:]
    return messages


def is_whole(stream: bytes) -> bool:
    """Whether a stream ends where a message ends."""
    messages = cut(stream)
    return not messages or _end_of_message(messages[-1]) is not None


def _end_of_message(stream: bytes) -> int | None:
    """Where the first message ends; None if it is cut off."""
    head, blank, _ = stream.partition(b"\r\n\r\n")
    if not blank:
        return None
    start = len(head) + len(blank)
    if re.search(rb"(?im)^Transfer-Encoding:\s*chunked\s*$", head):
        return _end_of_chunks(stream, start)
    length = re.search(rb"(?im)^Content-Length:\s*(\d+)\s*$", head)
    end = start + (int(length.group(1)) if length else 0)
    return end if end <= len(stream) else None


def _end_of_chunks(stream: bytes, start: int) -> int | None:
    while True:
        line_end = stream.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(stream[start:line_end].split(b";")[0], 16)
        if size == 0:
            end = stream.find(b"\r\n\r\n", line_end)  # trailers, if any, end with an empty line
            return None if end < 0 else end + 4
        start = line_end + 2 + size + 2


def _number_at(connection: Recorded, offset: int) -> int:
    return next(number for start, number in reversed(connection.pieces) if start <= offset)
