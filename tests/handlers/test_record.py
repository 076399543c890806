"""Given a message on the collect queue, then it is read as what it is, or refused with a reason that tells nothing of the event."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.redrive.raw_json import value_text
from handlers.redrive.record import BadRecord, Captured, Exhausted, function_name, normal_time, parse
from tests.handlers.records import (
    ORDERS,
    by_event_bridge,
    by_sns,
    destination_record,
    message,
    record_id,
    sidecar_record,
    stream_record,
)

DLQ = "arn:aws:sqs:eu-central-1:123456789012:orders-dlq"
VERBATIM = b'{"price":1.00,"id":12345678901234567890123,"id":2,"text":"\\u00e9 \xc3\xa9","deep":{"requestPayload":1}}'


def captured(body: str, queue_arn: str = DLQ, functions: dict[str, str] | None = None, **attributes: str) -> Captured:
    parsed = parse(message(body, queue_arn, 1_795_536_480_123, **attributes), functions)
    assert parsed.captured is not None
    return parsed.captured


@pytest.mark.parametrize("encoded", [False, True])
def test_a_sidecars_event_is_taken_byte_for_byte(encoded: bool) -> None:
    one = captured(sidecar_record(event=VERBATIM, encoded=encoded))
    assert one.event == VERBATIM
    assert (one.id, one.by, one.function, one.request_id) == (record_id("one"), "sidecar", "orders", "request-one")
    assert (one.retry_owner, one.fingerprint, one.marks) == ("caller", "00000000000000aa", frozenset())
    assert one.error.type == "ValueError"
    assert one.logs == ("a line",)


def test_an_event_with_a_number_that_python_refuses_to_read_is_taken_all_the_same() -> None:
    event = b'{"n":' + b"9" * 5_000 + b"}"
    assert captured(sidecar_record(event=event)).event == event


def test_bytes_that_are_not_text_come_by_base64() -> None:
    assert captured(sidecar_record(event=b"\xff\x00\xfe", encoded=True)).event == b"\xff\x00\xfe"


@pytest.mark.parametrize(
    ("details", "marks"),
    [
        ({"redacted": ["$.a"]}, {"redacted"}),
        ({"payloadTruncated": True, "payloadSha256": "0" * 64}, {"truncated"}),
        (
            {"payloadRef": {"bucket": "b", "key": "k", "bytes": 9, "sha256": "0" * 64, "truncated": True}},
            {"truncated"},
        ),
    ],
)
def test_what_forbids_a_replay_is_marked(details: dict[str, Any], marks: set[str]) -> None:
    cut = "payloadTruncated" in details
    event, encoded = (b'{"', True) if cut else (b'{"a":1}', False)
    assert captured(sidecar_record(event=event, encoded=encoded, **details)).marks == marks


def test_an_absent_event_is_marked_and_a_referenced_one_stays_in_its_bucket() -> None:
    absent = captured(sidecar_record(event=None))
    assert absent.event is None
    assert absent.marks == {"absent"}
    ref = {"bucket": "b", "key": "k", "bytes": 9, "sha256": "0" * 64, "truncated": False}
    referenced = captured(sidecar_record(event=b"null", payloadRef=ref))
    assert referenced.event is None
    assert referenced.event_ref is not None
    assert (referenced.event_ref.bucket, referenced.event_ref.key) == ("b", "k")


@pytest.mark.parametrize("wrap", [str, by_sns, by_event_bridge], ids=["sqs", "sns", "eventbridge"])
def test_a_destination_record_tells_the_failure_and_that_retries_are_used_up(wrap: type[str]) -> None:
    event = b'{"price":1.00,"id":12345678901234567890123}'
    parsed = parse(message(wrap(destination_record(event=event))))
    assert parsed.exhausted == Exhausted("request-one", "AWS: RetriesExhausted")
    one = parsed.captured
    assert one is not None
    assert (one.event, one.event_sha256) == (event, hashlib.sha256(event).hexdigest())
    assert (one.by, one.retry_owner, one.function, one.condition) == ("aws", "lambda", "orders", "RetriesExhausted")
    assert one.id == parse(message(destination_record(event=event))).captured.id  # type: ignore[union-attr]


def test_a_destination_record_whose_event_sns_dropped_is_absent() -> None:
    assert captured(by_sns(destination_record(event=None))).marks == {"absent"}


def test_a_streams_record_tells_only_that_retries_are_used_up() -> None:
    parsed = parse(message(stream_record()))
    assert parsed.captured is None
    assert parsed.exhausted == Exhausted("request-one", "AWS: RetryAttemptsExhausted")


def test_a_functions_dead_letter_message_is_the_event_itself() -> None:
    attributes: dict[str, Any] = {"RequestID": "r-1", "ErrorCode": "200", "ErrorMessage": "no stock"}
    named = captured("[1, 1.00]", functions={DLQ: ORDERS}, **attributes)
    assert (named.event, named.function, named.request_id) == (b"[1, 1.00]", "orders", "r-1")
    assert captured("[1, 1.00]", **attributes).function == "unknown"
    by_topic = captured(by_sns("[1, 1.00]", attributes), functions={DLQ: ORDERS})
    assert (by_topic.event, by_topic.id) == (named.event, named.id)


def test_eventbridge_and_sns_dead_letters_were_never_seen_by_the_function() -> None:
    event = '{"version":"0","id":"e-1","detail-type":"x","source":"y","detail":{"n":1.00}}'
    one = captured(event, RULE_ARN="arn:rule", TARGET_ARN=ORDERS, ERROR_CODE="NO_PERMISSIONS", ERROR_MESSAGE="denied")
    assert (one.event, one.function, one.request_id) == (event.encode(), "orders", "")
    assert (one.condition, one.event_source, one.marks) == ("Undelivered", "aws:events", frozenset())
    two = captured(by_sns("hello"), functions={DLQ: ORDERS})
    assert (two.function, two.event_source, set(two.marks)) == ("orders", "aws:sns", {"rebuilt"})
    assert json.loads(two.event or b"")["Records"][0]["Sns"]["Message"] == "hello"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("secret-in-event{", "not JSON"),
        ('["secret-in-event"]', "not a JSON object"),
        ('{"secret-in-event":1}', "version"),
        (sidecar_record(event=b'"secret-in-event"').replace('"schema": 1', '"schema": 2'), "backstop.schema"),
        (sidecar_record(event=b'"secret-in-event"').replace("function:orders", "layer:orders"), "functionArn"),
        (sidecar_record(event=b'"secret-in-event"').replace("secret-in-event", "secret-in-evenT"), "hash"),
        (sidecar_record(event=b'"secret-in-event"', encoded=True).replace("InN", "!!!"), "base64"),
        (sidecar_record(event=b'"secret-in-event"', timestamp="2026-11-24T16:08:00.123Z").replace("2026-11", "2026-99", 1), "time"),
        (by_sns('{"secret-in-event":1}'), "SNS"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_reason_and_nothing_of_the_event(body: str, reason: str) -> None:
    with pytest.raises(BadRecord) as refused:
        parse(message(body))
    assert reason in str(refused.value)
    assert "secret-in" not in str(refused.value)


def test_lone_surrogates_in_errors_and_logs_do_not_stop_the_record() -> None:
    text = sidecar_record(logs=["bad \ud800 line"])
    assert captured(text).logs == ("bad ? line",)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ),
    st.sampled_from(["", " ", "\n\t "]),
)
def test_a_value_is_cut_out_as_it_was_written(value: object, blank: str) -> None:
    written = json.dumps(value)
    text = f'{blank}{{{blank}"a"{blank}:{blank}[1,"}}"]{blank},{blank}"b"{blank}:{blank}{written}{blank}}}{blank}'
    assert value_text(text, "b") == written
    assert value_text(text, "c") is None


@pytest.mark.parametrize("text", ['{"a" 1}', '{"a":1 "b":2}', '{"a":', "{"])
def test_a_broken_object_is_no_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        value_text(text, "a")


def test_times_are_brought_into_one_form() -> None:
    assert normal_time("2026-11-24T17:08:00+01:00") == "2026-11-24T16:08:00.000Z"
    assert function_name(f"{ORDERS}:live") == "orders"
