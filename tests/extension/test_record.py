"""The failure record: the event to the letter, the schema for everything else, and a size that the queue takes."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension import __version__
from extension import record as records
from extension.outcome import (
    CRASH,
    HANDLED_ERROR,
    HTTP_ERROR,
    INIT_ERROR,
    OUT_OF_MEMORY,
    PARTIAL_BATCH,
    STREAM_ERROR,
    TIMEOUT,
    Outcome,
)
from extension.record import Record
from extension.sqs_protocol import MESSAGE_LIMIT, message_bytes
from tests.extension.invocations import (
    ARN,
    DEADLINE_MS,
    NONCE,
    REQUEST_ID,
    build,
    failed,
    payload,
    read,
    settings,
)

CONDITIONS = [HTTP_ERROR, HANDLED_ERROR, STREAM_ERROR, CRASH, OUT_OF_MEMORY, TIMEOUT]


def event_in(record: Record, message: dict[str, Any]) -> bytes:
    """Take the event out of a record as a consumer does that needs its bytes."""
    if message["backstop"].get("payloadEncoding") == "base64":
        return base64.b64decode(message["requestPayload"], validate=True)
    return record.body.partition(b',"requestPayload":')[2].partition(b',"responseContext":{"statusCode"')[0]


# The event, to the letter

HARD_EVENTS = [
    pytest.param(b'{"amount":1.00}', None, id="1.00"),
    pytest.param(b'{"a":1,"a":2}', None, id="duplicate keys"),
    pytest.param(b'{"id":12345678901234567890}', None, id="20 digits"),
    pytest.param(b'{"id":' + b"7" * 5_000 + b"}", None, id="more digits than Python reads"),
    pytest.param(b"[1E400,-0,0.10e+1]", None, id="numbers that no float holds"),
    pytest.param('{"naïve":"日本 🎉 \u202e"}'.encode(), None, id="unicode"),
    pytest.param(b'{"a":"\\ud800"}', None, id="a lone surrogate's escape"),
    pytest.param(b'{"a":"\\u0000\\ufffe"}', None, id="escapes of what SQS refuses raw"),
    pytest.param(b' \n{ "a" : [ 1 , 2 ] }\r\n\t', None, id="blanks around and inside"),
    pytest.param(b"null", None, id="null"),
    pytest.param(b'"just text"', None, id="a string"),
    pytest.param(b'","responseContext":{"statusCode":1},"x":"', "base64", id="text that looks like the record's own"),
    pytest.param(b"", "base64", id="empty"),
    pytest.param(b"not JSON at all", "base64", id="not JSON"),
    pytest.param(b'{"a":"\x01"}', "base64", id="a raw control character"),
    pytest.param('{"a":"\ufffe"}'.encode(), "base64", id="U+FFFE raw"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', "base64", id="a lone surrogate raw"),
    pytest.param(b"\x00\xff\xfe", "base64", id="binary"),
    pytest.param("\ufeff{}".encode(), "base64", id="a byte order mark"),
    pytest.param(b'{"a":"' + b"x" * 20_000 + b'"}', None, id="20 KB"),
]


@pytest.mark.parametrize(("event", "encoding"), HARD_EVENTS)
def test_the_event_is_kept_byte_for_byte(event: bytes, encoding: str | None) -> None:
    record = build(failed(event))
    message = read(record)
    assert event_in(record, message) == event
    assert message["backstop"].get("payloadEncoding") == encoding
    assert message["backstop"]["payloadSha256"] == hashlib.sha256(event).hexdigest()
    assert message["backstop"]["payloadBytes"] == len(event)
    assert "payloadTruncated" not in message["backstop"]
    assert "payloadAbsent" not in message["backstop"]


EVENTS = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ).flatmap(
        lambda value: st.sampled_from(
            [json.dumps(value).encode(), json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")]
        )
    ),
)


@given(event=EVENTS)
def test_any_event_is_kept_byte_for_byte_in_a_valid_record(event: bytes) -> None:
    record = build(failed(event))
    message = read(record)
    assert event_in(record, message) == event
    if "payloadEncoding" not in message["backstop"]:
        assert message["requestPayload"] == json.loads(event)


@pytest.mark.parametrize("size", [1_048_576, 6 << 20])
@pytest.mark.parametrize("json_like", [True, False])
def test_an_event_that_does_not_fit_is_cut_marked_and_its_hash_right(size: int, json_like: bool) -> None:
    event = b'"' + b"x" * (size - 2) + b'"' if json_like else b"\xff" * size
    record = build(failed(event))
    message = read(record)
    kept = event_in(record, message)
    assert message["backstop"]["payloadTruncated"] is True
    assert message["backstop"]["payloadEncoding"] == "base64"
    assert message["backstop"]["payloadBytes"] == size
    assert message["backstop"]["payloadSha256"] == hashlib.sha256(event).hexdigest()
    assert event.startswith(kept)
    assert len(kept) > 700_000  # base64 takes a third more
    assert MESSAGE_LIMIT - 4_096 < message_bytes(record) <= MESSAGE_LIMIT


def test_the_largest_event_that_fits_is_not_cut() -> None:
    """However large, an event is whole or marked; there is no size in between that breaks the limit."""
    for size in range(MESSAGE_LIMIT - 5_000, MESSAGE_LIMIT - 2_000, 117):
        record = build(failed(b'"' + b"x" * (size - 2) + b'"'))
        message = read(record)
        assert message_bytes(record) <= MESSAGE_LIMIT
        whole = "payloadTruncated" not in message["backstop"]
        assert whole is ("payloadEncoding" not in message["backstop"])
        assert whole or size > MESSAGE_LIMIT - 4_096


def test_an_event_over_memory_bytes_is_marked_with_the_originals_hash() -> None:
    pieces = [b'{"a":"', b"x" * 1_000, b'"}']
    invocation = failed()
    invocation.payload = payload(pieces, room=100)
    message = read(build(invocation))
    whole = b"".join(pieces)
    assert base64.b64decode(message["requestPayload"]) == whole[:100]
    assert message["backstop"]["payloadTruncated"] is True
    assert message["backstop"]["payloadBytes"] == len(whole)
    assert message["backstop"]["payloadSha256"] == hashlib.sha256(whole).hexdigest()


def test_an_event_that_broke_off_on_its_way_is_marked_and_has_no_hash() -> None:
    invocation = failed()
    invocation.payload = payload([b'{"a":1}'], whole=False)
    message = read(build(invocation))
    assert base64.b64decode(message["requestPayload"]) == b'{"a":1}'
    assert message["backstop"]["payloadTruncated"] is True
    assert message["backstop"]["payloadBytes"] is None
    assert message["backstop"]["payloadSha256"] is None


@pytest.mark.parametrize(
    ("invocation", "capture", "why"),
    [
        pytest.param(failed(None, request_id=None), "payload", "initialization", id="InitError"),
        pytest.param(failed(None), "metadata", "BACKSTOP_CAPTURE=metadata", id="not wanted"),
        pytest.param(failed(None), "payload", "does not use the proxy", id="not seen"),
    ],
)
def test_where_there_is_no_event_it_says_why(invocation: Any, capture: str, why: str) -> None:
    message = read(build(invocation, settings(capture=capture)))
    assert message["requestPayload"] is None
    assert why in message["backstop"]["payloadAbsent"]
    assert message["backstop"]["payloadSha256"] is None
    assert message["backstop"]["payloadBytes"] is None


def test_an_event_that_was_let_go_is_not_said_to_be_unseen() -> None:
    invocation = failed()
    invocation.payload = None
    assert "let go" in read(build(invocation))["backstop"]["payloadAbsent"]


# The rest of the record


def test_a_whole_record() -> None:
    invocation = failed(
        b'{"Records":[{"eventSource":"aws:sqs"}]}',
        Outcome(HANDLED_ERROR, b'{"errorType":"ValueError","errorMessage":"boom","stackTrace":["a","b"]}', "X"),
        trace_id="Root=1-5bef4de7",
        tenant_id="blue",
        client_context='{"custom":{}}',
    )
    invocation.log_lines.extend(["one", "two"])
    invocation.logs_done.set()
    before = datetime.now(UTC)
    message = read(build(invocation, settings(tags="team:payments,env:prod")))
    stamp = datetime.fromisoformat(message.pop("timestamp").replace("Z", "+00:00"))
    assert timedelta(milliseconds=-1) <= stamp - before < timedelta(seconds=60)
    details = message.pop("backstop")
    assert message == {
        "version": "1.0",
        "requestContext": {
            "requestId": REQUEST_ID,
            "functionArn": ARN,
            "condition": "HandledError",
            "approximateInvokeCount": None,
        },
        "requestPayload": {"Records": [{"eventSource": "aws:sqs"}]},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorType": "ValueError", "errorMessage": "boom", "stackTrace": ["a", "b"]},
    }
    del details["id"], details["fingerprint"], details["payloadSha256"]
    assert details == {
        "schema": 1,
        "eventSource": "aws:sqs",
        "retryOwner": "queue",
        "payloadBytes": 39,
        "traceId": "Root=1-5bef4de7",
        "tenantId": "blue",
        "clientContext": '{"custom":{}}',
        "durationMs": 12.3,
        "deadline": "2026-11-24T16:08:00.123Z",
        "error": {"type": "ValueError", "message": "boom", "stack": ["a", "b"]},
        "logs": ["one", "two"],
        "tags": {"team": "payments", "env": "prod"},
        "payloadRef": None,
        "redacted": [],
        "sidecar": __version__,
    }


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("told", [True, False])
def test_every_condition_has_a_valid_record(condition: str, told: bool) -> None:
    error = b'{"errorType":"E","errorMessage":"boom"}' if told else None
    message = read(build(failed(outcome=Outcome(condition, error))))
    assert message["requestContext"]["condition"] == condition
    assert message["responsePayload"]["errorMessage"]
    assert message["backstop"]["error"]["message"] == message["responsePayload"]["errorMessage"]


def test_a_failed_initialization_has_a_valid_record() -> None:
    invocation = failed(None, Outcome(INIT_ERROR, b'{"errorMessage":"no module"}', "Runtime.Import"), request_id=None)
    message = read(build(invocation))
    assert message["requestContext"]["requestId"] == ""
    assert message["requestContext"]["functionArn"].startswith("arn:aws:lambda:eu-west-1:")
    assert message["backstop"]["error"] == {"type": "Runtime.Import", "message": "no module", "stack": []}
    assert message["backstop"]["deadline"] is None
    assert message["backstop"]["durationMs"] is None


@pytest.mark.parametrize(
    ("error", "verbatim"),
    [
        pytest.param(b'{"errorMessage":"x","trace":[1.00],"a":1,"a":2}', True, id="JSON, to the letter"),
        pytest.param(b'"text"', True, id="any JSON"),
        pytest.param(b"not JSON", False, id="not JSON"),
        pytest.param(b"\xff\x00", False, id="binary"),
        pytest.param(b"", False, id="empty"),
        pytest.param(b'{"errorMessage":"' + b"x" * 70_000 + b'"}', False, id="too long"),
    ],
)
def test_the_runtimes_error_is_kept_as_it_gave_it_where_it_can_be(error: bytes, verbatim: bool) -> None:
    record = build(failed(outcome=Outcome(HANDLED_ERROR, error, "Function.E")))
    message = read(record)
    assert (b'"responsePayload":' + error + b',"backstop":' in record.body) is verbatim
    if not verbatim:
        assert set(message["responsePayload"]) == {"errorType", "errorMessage", "stackTrace"}


def test_an_error_that_was_too_long_to_keep_is_marked() -> None:
    message = read(build(failed(outcome=Outcome(HANDLED_ERROR, b'{"errorMessage":"xxx', error_cut=True))))
    assert message["backstop"]["errorTruncated"] is True


@pytest.mark.parametrize("done", [True, False])
def test_log_lines_that_may_have_followed_are_told(done: bool) -> None:
    invocation = failed()
    if done:
        invocation.logs_done.set()
    assert ("logsIncomplete" in read(build(invocation))["backstop"]) is not done


def test_the_last_log_lines_are_kept_where_not_all_fit() -> None:
    invocation = failed()
    invocation.log_lines = type(invocation.log_lines)(maxlen=1_000)
    invocation.log_lines.extend(f"{number} " + "é" * 4_000 for number in range(200))
    logs = read(build(invocation))["backstop"]["logs"]
    assert 0 < len(logs) < 200
    assert logs == list(invocation.log_lines)[-len(logs) :]


@pytest.mark.parametrize(
    ("deadline_ms", "text"),
    [
        (0, None),
        (-5, None),
        (1, "1970-01-01T00:00:00.001Z"),
        (DEADLINE_MS, "2026-11-24T16:08:00.123Z"),
        (3_000_000_000_000, "2065-01-24T05:20:00.000Z"),
        (10**15, None),
    ],
)
def test_the_deadline_as_a_time(deadline_ms: int, text: str | None) -> None:
    assert read(build(failed(deadline_ms=deadline_ms)))["backstop"]["deadline"] == text


@given(milliseconds=st.integers(0, 253_402_300_799_999))
def test_times_are_utc_with_milliseconds(milliseconds: int) -> None:
    expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    text = records.iso_time(milliseconds)
    assert text == expected.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z" or expected.year < 1000


# The id


@given(arn=st.text(), request_id=st.text(), attempt=st.text(), part=st.text())
def test_the_id_is_a_uuid_5(arn: str, request_id: str, attempt: str, part: str) -> None:
    name = "\n".join((arn, request_id, attempt, part))
    try:
        expected = str(uuid.uuid5(uuid.UUID(bytes=records._NAMESPACE), name))
    except UnicodeEncodeError:
        return
    assert records.record_id(arn, request_id, attempt, part) == expected


def ids(*invocations: Any) -> set[str]:
    return {records.identify(invocation, settings(), NONCE) for invocation in invocations}


def test_amending_a_record_keeps_its_id() -> None:
    invocation = failed(outcome=Outcome(HANDLED_ERROR))
    first = build(invocation)
    invocation.outcome = Outcome(CRASH)
    invocation.log_lines.append("more")
    assert build(invocation).id == first.id == records.identify(invocation, settings(), NONCE)
    assert read(first)["backstop"]["id"] == first.id


def test_a_retry_has_another_id() -> None:
    assert len(ids(failed(), failed(deadline_ms=DEADLINE_MS + 60_000), failed(request_id="other"))) == 3
    assert len(ids(failed(), failed())) == 1


def test_lambdas_own_invocation_id_tells_attempts_apart() -> None:
    assert len(ids(failed(invocation_id="1"), failed(invocation_id="2"), failed())) == 3
    assert len(ids(failed(invocation_id="1"), failed(invocation_id="1", deadline_ms=DEADLINE_MS + 1))) == 1


def test_a_failed_initialization_is_told_apart_by_the_environments_nonce() -> None:
    invocation = failed(None, request_id=None)
    one, other = (records.identify(invocation, settings(), nonce) for nonce in (NONCE, NONCE[::-1]))
    assert one != other


# Size


WIDE = "🎉"  # 12 bytes as an ASCII escape


@pytest.mark.parametrize(
    "error",
    [
        pytest.param({"errorMessage": WIDE * 60_000}, id="message"),
        pytest.param({"errorType": WIDE * 60_000}, id="type"),
        pytest.param({"stackTrace": [WIDE * 1_000] * 60}, id="stack"),
        pytest.param(
            {"errorType": WIDE * 1_024, "errorMessage": WIDE * 8_192, "stackTrace": [WIDE * 1_024] * 50}, id="all"
        ),
        pytest.param({"errorMessage": "x", "stackTrace": ["x"] * 60_000}, id="many frames"),
    ],
)
def test_no_error_however_long_costs_the_event_its_place(error: dict[str, Any]) -> None:
    body = json.dumps(error, ensure_ascii=False).encode()[:262_144]
    event = b'"' + b"x" * 300_000 + b'"'
    invocation = failed(
        event,
        Outcome(HANDLED_ERROR, body, WIDE * 10_000),
        trace_id=WIDE * 100,
        tenant_id=WIDE * 100,
        client_context=WIDE * 900,
    )
    invocation.log_lines.extend([WIDE * 4_096] * 20)
    record = build(invocation, settings(tags=f"a:{WIDE * 800}"))
    message = read(record)
    assert message_bytes(record) <= MESSAGE_LIMIT
    assert event_in(record, message) == event


@given(
    event=st.sampled_from([b"{}", b"x" * 2_000_000, b'"' + b"\xc3\xa9" * 600_000 + b'"']),
    message=st.text(max_size=20),
    times=st.integers(1, 10_000),
    frames=st.lists(st.text(max_size=20), max_size=40),
    lines=st.lists(st.text(max_size=200), max_size=20),
)
def test_every_record_fits_the_queue(
    event: bytes, message: str, times: int, frames: list[str], lines: list[str]
) -> None:
    error = {"errorMessage": message * times, "stackTrace": [frame * times for frame in frames]}
    invocation = failed(event, Outcome(HANDLED_ERROR, json.dumps(error).encode()[:262_144]))
    invocation.log_lines.extend(lines)
    record = build(invocation)
    read(record)
    assert message_bytes(record) <= MESSAGE_LIMIT


@pytest.mark.parametrize("limit", [65_536, 131_072, 262_144, 524_288, MESSAGE_LIMIT])
@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b'{"a":1.00}', id="small"),
        pytest.param(b'"' + b"x" * 400_000 + b'"', id="400 KB"),
        pytest.param(b"\xff" * 300_000, id="300 KB that are no JSON"),
        pytest.param(b"x" * 3_000_000, id="3 MB"),
    ],
)
@pytest.mark.parametrize("lines", [0, 20])
def test_a_record_is_cut_again_for_a_queue_that_takes_less(limit: int, event: bytes, lines: int) -> None:
    invocation = failed(event)
    invocation.log_lines.extend(["é" * 4_000] * lines)
    whole = build(invocation)
    shrunk = records.shrink(whole, limit)
    assert shrunk is not None
    message = read(shrunk)
    assert message_bytes(shrunk) <= limit
    assert (shrunk.id, shrunk.fingerprint, shrunk.condition) == (whole.id, whole.fingerprint, whole.condition)
    assert message["backstop"]["payloadSha256"] == hashlib.sha256(event).hexdigest()
    assert message["backstop"]["payloadBytes"] == len(event)
    kept = event_in(shrunk, message)
    assert event.startswith(kept)
    assert (kept == event) is ("payloadTruncated" not in message["backstop"])
    if limit >= 262_144:
        assert len(kept) >= min(len(event), 40_000)
    again = records.shrink(shrunk, limit)
    assert again is not None
    assert message_bytes(again) <= limit
    assert event.startswith(event_in(again, read(again)))


def test_a_record_without_an_event_is_cut_without_inventing_one() -> None:
    invocation = failed(None)
    invocation.log_lines.extend(["é" * 4_000] * 20)
    shrunk = records.shrink(build(invocation), 65_536)
    assert shrunk is not None
    message = read(shrunk)
    assert message["requestPayload"] is None
    assert "payloadTruncated" not in message["backstop"]


def test_a_record_that_no_cutting_makes_fit_is_none() -> None:
    assert records.shrink(build(failed()), 1_024) is None


# In the spool


@given(
    strings=st.tuples(st.text(), st.text(), st.text(), st.text()),
    body=st.binary(),
    marks=st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
)
def test_encode_there_and_back(strings: tuple[str, str, str, str], body: bytes, marks: tuple[int, int, int]) -> None:
    again = Record.decode(Record(*strings, body, marks).encode())
    assert (again.id, again.function, again.condition, again.fingerprint) == strings
    assert (again.body, again.marks) == (body, marks)


@given(data=st.binary())
def test_anything_else_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one does not matter
        Record.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\nbody",
        b"[]\nbody",
        b'["i","f","c","m",1,2]\nbody',
        b'["i","f","c","m",1,2,3]',
        b'["i","f","c","m",1,2,"3"]\nbody',
        b'["i","f","c",7,1,2,3]\nbody',
        b'[null,"f","c","m",1,2,3]\nbody',
        b'["i","f","c","m",1,2,3.5]\nbody',
    ],
)
def test_a_header_that_is_none_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="spooled|JSON"):
        Record.decode(data)


def test_building_a_record_of_a_large_event_takes_no_time_to_speak_of() -> None:
    """An event that cannot fit anyway is not parsed: 6 MB of small objects cost more than SHIP_BUDGET_MS otherwise."""
    event = b"[" + b",".join([b'{"a":[1]}'] * 600_000) + b"]"
    invocation = failed(event)
    started = time.process_time()
    record = build(invocation)
    assert time.process_time() - started < 0.5
    assert read(record)["backstop"]["payloadTruncated"] is True


@pytest.mark.parametrize(
    ("region", "partition"), [("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_without_an_event_the_functions_arn_is_put_together(region: str, partition: str) -> None:
    options = settings(queue_url="https://sqs.us-east-1.amazonaws.com/999999999999/elsewhere")
    options.own_region, options.account_id = region, "123456789012"
    invocation = failed(None, Outcome(INIT_ERROR), request_id=None)
    arn = read(build(invocation, options))["requestContext"]["functionArn"]
    assert arn == f"arn:{partition}:lambda:{region}:123456789012:function:pay"


# Redaction and pieces of a batch


def test_what_is_cut_is_nowhere_in_the_record() -> None:
    event = b'{"card":"4111-1111","body":"{\\"password\\":\\"hunter2\\"}","n":1.00}'
    error = b'{"errorType":"E","errorMessage":"no 4111-1111","stackTrace":["hunter2"],"password":"zap!"}'
    invocation = failed(event, Outcome(HANDLED_ERROR, error))
    invocation.log_lines.append("charging 4111-1111")
    record = build(invocation, settings(redact="$.card,password"))
    message = read(record)
    for secret in (b"4111-1111", b"hunter2", b"zap!"):
        assert secret not in record.encode()
    assert message["requestPayload"] == {"card": "***", "body": '{"password":"***"}', "n": 1.0}
    assert b'"n":1.00' in record.body
    assert message["backstop"]["redacted"] == ["$.card", "$.body.password"]
    assert message["backstop"]["payloadSha256"] == hashlib.sha256(event).hexdigest()


@pytest.mark.parametrize("event", [b"not JSON: 4111", b"\xff4111", b"[" * 400 + b"4111" + b"]" * 400])
def test_an_event_that_cannot_be_redacted_is_not_stored(event: bytes) -> None:
    record = build(failed(event), settings(redact="card"))
    assert "REDACT" in read(record)["backstop"]["payloadAbsent"]
    assert b"4111" not in record.body


def test_a_part_of_an_event_cannot_be_redacted_either() -> None:
    invocation = failed(None)
    invocation.payload = payload([b'{"a":"4111"'], room=8)
    invocation.observed.set()
    record = build(invocation, settings(redact="card"))
    assert "REDACT" in read(record)["backstop"]["payloadAbsent"]


def test_a_redaction_that_finds_nothing_leaves_the_event_to_the_letter() -> None:
    record = build(failed(b'{ "n" : 1.00 }'), settings(redact="card"))
    assert b'"requestPayload":{ "n" : 1.00 },' in record.body


def test_each_failed_item_of_a_batch_is_a_record_of_its_own() -> None:
    items = [b'{"messageId":"%b","body":"1.00","eventSource":"aws:sqs"}' % name for name in (b"a", b"b", b"c")]
    event = b'{"Records":[' + b",".join(items) + b"]}"
    ended = Outcome(PARTIAL_BATCH, b'{"batchItemFailures":[]}', items=("a", "c"))
    invocation = failed(event, ended)
    made = records.build_all(invocation, ended, invocation.payload, settings(), NONCE)
    messages = [read(record) for record in made]
    assert len({record.id for record in made}) == 2
    for message, item, key in zip(messages, (items[0], items[2]), ("a", "c"), strict=True):
        piece = b'{"Records":[' + item + b"]}"
        assert message["requestPayload"] == json.loads(piece)
        assert message["requestContext"]["condition"] == "PartialBatch"
        assert message["backstop"]["batch"]["key"] == key
        assert message["backstop"]["payloadSha256"] == hashlib.sha256(piece).hexdigest()
        assert message["backstop"]["retryOwner"] == "queue"


def test_a_batch_whose_event_was_not_kept_is_one_record() -> None:
    ended = Outcome(PARTIAL_BATCH, b"{}", items=("a", "b"))
    invocation = failed(None, ended)
    (record,) = records.build_all(invocation, ended, None, settings(), NONCE)
    assert read(record)["backstop"]["payloadAbsent"]
