"""Messages out of records, and what SQS's answers mean: tables and properties, no sockets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension import sqs_protocol as sqs
from extension.aws_error import Failure
from extension.record import Record


def record(number: int = 0, body: bytes = b"{}", function: str = "orders", fingerprint: str = "00ff") -> Record:
    return Record(f"id-{number}", function, "Crash", fingerprint, body, (0, 0, 0))


def test_a_message_on_a_standard_queue_is_grouped_by_function() -> None:
    assert sqs.message(record(1, '{"a":"é"}'.encode()), fifo=False, grouped=True) == {
        "MessageBody": '{"a":"é"}',
        "MessageGroupId": "orders",
        "MessageAttributes": {
            "backstop.id": {"DataType": "String", "StringValue": "id-1"},
            "backstop.function": {"DataType": "String", "StringValue": "orders"},
            "backstop.condition": {"DataType": "String", "StringValue": "Crash"},
            "backstop.fingerprint": {"DataType": "String", "StringValue": "00ff"},
        },
    }


def test_a_message_on_a_fifo_queue_is_its_own_group() -> None:
    members = sqs.message(record(1), fifo=True, grouped=True)
    assert (members["MessageGroupId"], members["MessageDeduplicationId"]) == ("id-1", "id-1")
    assert "MessageGroupId" not in sqs.message(record(1), fifo=False, grouped=False)


def test_empty_attributes_are_left_out() -> None:
    assert "backstop.fingerprint" not in sqs.attributes(record(fingerprint=""))


@given(st.text(max_size=300))
def test_group_ids_are_what_sqs_allows(text: str) -> None:
    made = sqs.group_id(text)
    assert 1 <= len(made) <= 128
    assert made.isascii()
    assert made.isprintable()
    assert " " not in made


@given(st.lists(st.integers(1, 500), max_size=40), st.integers(300, 2_000))
def test_batches_keep_order_and_bounds(sizes: list[int], limit: int) -> None:
    records = [record(number, bytes(size)) for number, size in enumerate(sizes)]
    cut = sqs.batches(records, limit)
    assert [one for batch in cut for one in batch] == records
    for batch in cut:
        assert 1 <= len(batch) <= 10
        assert len(batch) == 1 or sum(map(sqs.message_bytes, batch)) <= limit
    for batch, following in zip(cut, cut[1:], strict=False):
        room = limit - sum(map(sqs.message_bytes, batch))
        assert len(batch) == 10 or sqs.message_bytes(following[0]) > room, "a batch was left half empty"


SHORTER = "One or more parameters are invalid. Reason: Message must be shorter than 262144 bytes."
BIG = 1_000_000

JUDGEMENTS = [
    (500, "InternalError", "", sqs.RETRY),
    (503, "HTTP 503", "", sqs.RETRY),
    (429, "HTTP 429", "", sqs.RETRY),
    (408, "RequestTimeout", "", sqs.RETRY),
    (403, "RequestThrottled", "", sqs.RETRY),
    (400, "Throttling", "Rate exceeded", sqs.RETRY),
    (400, "KmsThrottled", "", sqs.RETRY),
    (400, "InvalidMessageContents", "Invalid binary character '#x1'", sqs.REFUSED),
    (400, "InvalidParameterValue", "Value for parameter MessageGroupId is invalid.", sqs.REFUSED),
    (400, "InvalidParameterValue", SHORTER, sqs.TOO_LONG),
    (400, "AWS.SimpleQueueService.BatchRequestTooLong", "", sqs.TOO_LONG),
    (413, "HTTP 413", "", sqs.TOO_LONG),
    (403, "AccessDenied", "User: arn:... is not authorized to perform: sqs:sendmessage", sqs.DENIED),
    (400, "QueueDoesNotExist", "", sqs.DENIED),
    (400, "AWS.SimpleQueueService.NonExistentQueue", "", sqs.DENIED),
    (400, "KmsAccessDenied", "", sqs.DENIED),
    (403, "InvalidSignature", "", sqs.DENIED),
    (400, "ExpiredToken", "", sqs.DENIED),
    (403, "SignatureDoesNotMatch", "the key is longer than 20000 years", sqs.DENIED),
    (301, "HTTP 301", "", sqs.DENIED),
    (404, "HTTP 404", "", sqs.DENIED),
    (400, "SomethingOfTheFuture", "", sqs.DENIED),
]


@pytest.mark.parametrize(("status", "code", "message", "kind"), JUDGEMENTS)
def test_what_an_error_means(status: int, code: str, message: str, kind: str) -> None:
    outcome = sqs.judge(Failure(status, code, message), BIG)
    assert outcome.kind == kind
    assert code in outcome.reason
    assert message in outcome.reason


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (SHORTER, 262_144),
        ("Batch requests cannot be longer than 262144 bytes. You have sent 300000 bytes.", 262_144),
        ("must be shorter than 1024 bytes", 1_024),
        ("must be shorter than 1 bytes", None),
        ("must be shorter than ever", None),
        ("must be shorter than 99999999999999 bytes", None),
        ("", None),
    ],
)
def test_the_limit_in_an_error(text: str, limit: int | None) -> None:
    assert sqs.named_limit(text) == limit


def test_an_unnamed_limit_is_looked_for_below() -> None:
    def limit(size: int) -> int:
        return sqs.judge(Failure(413, "HTTP 413", ""), size).limit

    assert [limit(1_000_000), limit(262_144), limit(131_072)] == [262_144, 131_072, 65_536]
    assert sqs.judge(Failure(400, "InvalidParameterValue", SHORTER), BIG).limit == 262_144


def batch_answer(successful: object, failed: object) -> bytes:
    return json.dumps({"Successful": successful, "Failed": failed}).encode()


def test_each_entry_of_a_batch_has_its_own_outcome() -> None:
    body = batch_answer(
        [{"Id": "0", "MessageId": "m"}, {"Id": "4", "MessageId": ""}],
        [
            {"Id": "1", "SenderFault": False, "Code": "InternalError", "Message": "later"},
            {"Id": "2", "SenderFault": True, "Code": "InvalidMessageContents", "Message": "no"},
            {"Id": "3", "SenderFault": True, "Code": "InvalidParameterValue", "Message": SHORTER},
            {"Id": "5", "SenderFault": True, "Code": "KmsAccessDenied"},
            {"Id": "6", "SenderFault": True, "Code": "SomethingOfTheFuture"},
            {"Id": "99", "Code": "Nonsense"},
            {"Code": "Nonsense"},
        ],
    )
    outcomes = sqs.read_batch(body, [record(number) for number in range(8)])
    assert [outcome.kind for outcome in outcomes] == [
        sqs.ACCEPTED,
        sqs.RETRY,
        sqs.REFUSED,
        sqs.TOO_LONG,
        sqs.RETRY,
        sqs.DENIED,
        sqs.REFUSED,
        sqs.RETRY,
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Successful", "Failed", "Id", "MessageId", "Code", "SenderFault", "Message"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20))
def test_no_answer_makes_a_record_accepted_without_a_message_id(body: bytes) -> None:
    accepted = sqs.read_sent(body).kind == sqs.ACCEPTED
    outcomes = sqs.read_batch(body, [record(0), record(1)])
    assert len(outcomes) == 2
    if b"MessageId" not in body:
        assert not accepted
        assert all(outcome.kind != sqs.ACCEPTED for outcome in outcomes)


@given(st.integers(100, 599), st.text(max_size=20), st.text(max_size=50), st.integers(0, 2_000_000))
def test_every_error_has_a_meaning(status: int, code: str, message: str, size: int) -> None:
    outcome = sqs.judge(Failure(status, code, message), size)
    assert outcome.kind in (sqs.RETRY, sqs.REFUSED, sqs.TOO_LONG, sqs.DENIED)
