"""Failures inside an answer that Lambda takes as a success."""

from __future__ import annotations

import json

import pytest

from extension import members
from extension.outcome import HTTP_ERROR, PARTIAL_BATCH
from extension.soft_failures import failed_items, failed_parts, http_status, judge

GATEWAY = b'{"version":"2.0","requestContext":{"http":{"method":"GET"},"domainName":"x.execute-api"}}'


def sqs(*ids: str) -> str:
    return '{"Records":[' + " , ".join(f'{{"messageId":"{i}","n":1.00,"eventSource":"aws:sqs"}}' for i in ids) + "]}"


def stream(source: str, *numbers: str) -> str:
    part, name = ("kinesis", "sequenceNumber") if source == "aws:kinesis" else ("dynamodb", "SequenceNumber")
    return json.dumps({"Records": [{"eventSource": source, part: {name: number}} for number in numbers]})


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b'{"statusCode":503,"body":"x"}', 503),
        (b'{"body":"x","statusCode":"502"}', 502),
        (b'{"statusCode":500}' + b"\0" * 8 + b"a body of any kind", 500),
        (b'{"statusCode":500,"body":"cut off he', 500),
        (b'{"body":"cut off he', None),
        (b'{"statusCode":5.0e2}', None),
        (b'{"statusCode":null}', None),
        (b'[{"statusCode":500}]', None),
        (b"not JSON", None),
        (b"", None),
    ],
)
def test_the_status_in_an_answer(answer: bytes, status: int | None) -> None:
    assert http_status(answer) == status


@pytest.mark.parametrize(
    ("event", "answer", "found"),
    [
        (GATEWAY, b'{"statusCode":500}', True),
        (GATEWAY, b'{"statusCode":599}', True),
        (GATEWAY, b'{"statusCode":499}', False),
        (b'{"requestContext":{"elb":{}}}', b'{"statusCode":502}', True),
        (b'{"requestContext":{"domainName":"a.lambda-url.eu-west-1.on.aws","http":{}}}', b'{"statusCode":502}', True),
        (b'{"statusCode":1}', b'{"statusCode":502}', False),  # a direct invocation: its answer means what it likes
        (b"not JSON", b'{"statusCode":502}', False),
        (None, b'{"statusCode":502}', False),
    ],
)
def test_a_server_error_in_an_answer_to_http(event: bytes | None, answer: bytes, found: bool) -> None:
    judged = judge(event, answer, batches=False, http=True)
    assert (judged is not None and judged.condition == HTTP_ERROR) is found
    assert judge(event, answer, batches=True, http=False) is None


@pytest.mark.parametrize(
    ("answer", "items"),
    [
        (b'{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"b"}]}', ["a", "b"]),
        (b'{"batchItemFailures":[{"itemIdentifier":""},{"itemIdentifier":null},{},7]}', [None] * 4),
        (b'{"batchItemFailures":[]}', None),
        (b'{"batchItemFailures":null}', None),
        (b'{"other":"batchItemFailures"}', None),
        (b'{"batchItemFailures":[{"item', None),
        (b"null", None),
    ],
)
def test_the_items_reported_as_failed(answer: bytes, items: list[str | None] | None) -> None:
    assert failed_items(answer) == items
    judged = judge(b"{}", answer, batches=True, http=False)
    assert (judged is None) is (items is None)
    if judged is not None:
        assert judged.condition == PARTIAL_BATCH
        assert list(judged.items) == items


def test_each_failed_message_of_a_queue_is_a_piece_to_the_letter() -> None:
    parts = failed_parts(sqs("a", "b", "c"), ["c", "a", "a"])
    assert [part.key for part in parts] == ["c", "a"]
    assert parts[1].event == sqs("a")
    assert '"n":1.00' in parts[1].event


@pytest.mark.parametrize("items", [["zz"], ["a", None], [None]])
def test_an_unknown_or_empty_identifier_means_the_whole_batch(items: list[str | None]) -> None:
    event = sqs("a", "b")
    (part,) = failed_parts(event, items)
    assert (part.key, part.event) == ("*", event)


@pytest.mark.parametrize("source", ["aws:kinesis", "aws:dynamodb"])
@pytest.mark.parametrize(
    ("items", "first"),
    [(["3", "2"], "2"), (["1"], "1"), (["4"], "4"), (["2", None], "1"), (["9"], "1")],
)
def test_a_stream_is_tried_again_from_the_lowest_listed_place(source: str, items: list[str | None], first: str) -> None:
    (part,) = failed_parts(stream(source, "1", "2", "3", "4"), items)
    numbers = ["1", "2", "3", "4"]
    assert part.checkpoint == first
    assert part.range == (first, "4")
    assert json.loads(part.event) == json.loads(stream(source, *numbers[numbers.index(first) :]))


@pytest.mark.parametrize("event", ["{}", "[]", "not JSON", '{"Records":[]}', '{"Records":[1]}', '{"Records":[{}]}'])
def test_an_event_of_another_shape_is_one_piece(event: str) -> None:
    (part,) = failed_parts(event, ["a"])
    assert (part.key, part.event) == ("*", event)


def test_members_are_found_as_they_stand() -> None:
    text = ' { "a" : [1, 2.50 , {}] , "b":"x" , "a":null } '
    assert [(name, text[start:end]) for name, start, end in members.object_members(text)] == [
        ("a", "[1, 2.50 , {}]"),
        ("b", '"x"'),
        ("a", "null"),
    ]
    inner = text.index("[")
    assert [text[start:end] for start, end in members.array_items(text, inner)] == ["1", "2.50", "{}"]


@pytest.mark.parametrize(
    "text", ["", "{", '{"a"', '{"a":', '{"a":1', '{"a":1,', "{1:2}", "[1 2]", "[1,", "[", '{"a":1;"b":2}']
)
def test_a_broken_text_is_a_value_error(text: str) -> None:
    reader = members.array_items if text.startswith("[") else members.object_members
    with pytest.raises(ValueError, match=r".+"):
        list(reader(text))
