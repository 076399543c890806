"""The last-resort line: enough to know what was lost, and never a secret (DESIGN, rules 8 and 9)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension import last_resort
from extension.outcome import HANDLED_ERROR, INIT_ERROR, Outcome
from extension.record import Record
from tests.extension.invocations import ARN, REQUEST_ID, build, failed, settings

SECRET = "hunter2-9f8e7d"
MARKER = "kept-4b5c6d"


def line_of(record: Record, mode: str = "metadata") -> dict[str, Any]:
    text = last_resort.line(record, mode, "the queue is out of reach")
    assert "\n" not in text
    assert text.isascii()
    line = json.loads(text)
    assert isinstance(line, dict)
    return line


def test_the_line_says_who_failed_when_and_why() -> None:
    invocation = failed(b'{"a":1}', Outcome(HANDLED_ERROR, b'{"errorType":"E","errorMessage":"boom"}'))
    record = build(invocation)
    line = line_of(record)
    assert line["backstop"] == "undelivered"
    assert line["why"] == "the queue is out of reach"
    assert line["id"] == record.id
    assert line["function"] == "pay"
    assert line["condition"] == "HandledError"
    assert line["requestContext"]["requestId"] == REQUEST_ID
    assert line["requestContext"]["functionArn"] == ARN
    assert line["record"]["error"] == {"type": "E", "message": "boom", "stack": []}
    assert line["record"]["payloadBytes"] == 7
    assert line["record"]["payloadSha256"]


def test_metadata_holds_no_payload_no_log_lines_and_no_clients_context() -> None:
    for event in (f'{{"a":"{MARKER}"}}'.encode(), MARKER.encode()):
        invocation = failed(event, client_context=f'{{"custom":"{MARKER}"}}')
        invocation.log_lines.append(MARKER)
        for text in (json.dumps(line_of(build(invocation))), last_resort.line(build(invocation), "metadata", "x")):
            assert MARKER not in text
            assert "maskedPayload" not in text


@pytest.mark.parametrize("mode", ["metadata", "masked"])
def test_a_failed_initialization_has_a_line(mode: str) -> None:
    line = line_of(build(failed(None, Outcome(INIT_ERROR), request_id=None)), mode)
    assert line["condition"] == "InitError"
    assert line["record"]["payloadAbsent"] == "initialization"
    assert "maskedPayload" not in line


# Masked


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ({"password": "x"}, {"password": "***"}),
        ({"Authorization": "Bearer x"}, {"Authorization": "***"}),
        ({"headers": {"cookie": "a=b", "Set-Cookie": "c"}}, {"headers": {"cookie": "***", "Set-Cookie": "***"}}),
        ({"cookies": ["a=b"]}, {"cookies": "***"}),
        (
            {"X-Api-Key": "x", "x_api_key": "x", "apiKey": "x"},
            {"X-Api-Key": "***", "x_api_key": "***", "apiKey": "***"},
        ),
        ({"accessToken": {"a": 1}, "client_secret": [1]}, {"accessToken": "***", "client_secret": "***"}),
        ({"db_PASSWORD": None}, {"db_PASSWORD": "***"}),
        ([{"token": 1}, 2], [{"token": "***"}, 2]),
        ({"a": 1.5, "b": "text", "c": None, "d": [True]}, {"a": 1.5, "b": "text", "c": None, "d": [True]}),
        ({"body": '{"password":"x","n":1.00}'}, {"body": '{"password":"***","n":"1.00"}'}),
        ({"body": '{"n":1.00}'}, {"body": '{"n":1.00}'}),
        ({"body": ' [{"token":"x"}]'}, {"body": '[{"token":"***"}]'}),
        ({"body": '"{\\"token\\":\\"x\\"}"'}, {"body": '"{\\"token\\":\\"***\\"}"'}),
        ({"body": '{"token":"x"}\n{"token":"y"}'}, {"body": "***"}),
        ({"body": '{"token":"x'}, {"body": "***"}),
        ({"body": "{not JSON, and nothing more"}, {"body": "{not JSON, and nothing more"}),
        ({"body": "plain text of a token"}, {"body": "plain text of a token"}),
        ("text", "text"),
        (None, None),
    ],
)
def test_the_values_of_secret_keys_are_masked(value: Any, masked: Any) -> None:
    assert last_resort.mask(value) == masked


def test_what_is_nested_too_deeply_to_be_looked_through_is_masked() -> None:
    value: Any = {"password": SECRET}
    for _ in range(100):
        value = [value]
    assert SECRET not in json.dumps(last_resort.mask(value))


SECRET_KEYS = ["authorization", "Cookie", "x-api-key", "PASSWORD", "my_token", "clientSecret", "set-cookie", "ApiKey"]
KEYS = st.sampled_from([*SECRET_KEYS, "a", "b", "name", "body"])


def hidden(value: Any) -> Any:
    """Put a secret under every secret key, however it is wrapped, and a marker elsewhere."""
    if isinstance(value, dict):
        return {key: SECRET if key in SECRET_KEYS else hidden(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hidden(inner) for inner in value]
    return value


@st.composite
def wrapped(draw: st.DrawFn, inner: Any) -> Any:
    return json.dumps(hidden(draw(inner)), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))


EVENTS = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3) | wrapped(inner),
    max_leaves=12,
)


@given(event=EVENTS, mode=st.sampled_from(["masked", "metadata"]))
def test_no_secret_ever_meets_the_log(event: Any, mode: str) -> None:
    record = build(failed(json.dumps(hidden(event)).encode()))
    text = last_resort.line(record, mode, "x")
    assert SECRET not in text
    assert json.loads(text)["id"] == record.id


@given(event=EVENTS)
def test_an_event_without_secret_keys_is_there_as_it_was(event: Any) -> None:
    text = json.dumps(event)
    if not any(
        word in text.lower().replace("_", "-") for word in ("author", "cookie", "api", "password", "token", "secret")
    ):
        assert line_of(build(failed(text.encode())), "masked")["maskedPayload"] == event


@pytest.mark.parametrize(
    ("event", "why"),
    [
        pytest.param(b"password=" + SECRET.encode(), "not JSON", id="not JSON"),
        pytest.param(b"\xff\xfe" + SECRET.encode(), "not JSON", id="binary"),
        pytest.param(b'{"a":"' + b"x" * 204_800 + b'"}', "over 204800 bytes", id="too large"),
        pytest.param(b"x" * 3_000_000, "bytes", id="cut"),
    ],
)
def test_what_cannot_be_masked_is_left_out_and_said(event: bytes, why: str) -> None:
    record = build(failed(event))
    assert why in line_of(record, "masked")["payloadOmitted"]
    assert SECRET not in last_resort.line(record, "masked", "x")


def test_an_event_on_its_way_to_the_bucket_is_not_shown_as_null() -> None:
    record = build(failed(b'"' + b"x" * 2_000_000 + b'"'), settings(bucket="large-events"))
    line = line_of(record, "masked")
    assert "maskedPayload" not in line
    assert line["payloadOmitted"]


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (b'{"n":1e999,"password":"x"}', {"n": "1e999", "password": "***"}),
        (b'{"n":%b}' % (b"9" * 5_000), {"n": "9" * 5_000}),
        ('{"é":"\\ud800"}'.encode(), {"é": "\ud800"}),
        (b'{"body":"{\\"n\\":1e999,\\"token\\":\\"x\\"}"}', {"body": '{"n":"1e999","token":"***"}'}),
    ],
)
def test_odd_numbers_and_characters_cost_no_line(event: bytes, shown: Any) -> None:
    assert line_of(build(failed(event)), "masked")["maskedPayload"] == shown


def test_secrets_in_an_error_are_masked_where_it_is_json() -> None:
    message = json.dumps({"errorMessage": json.dumps({"input": {"password": SECRET}})}).encode()
    record = build(failed(b"{}", Outcome(HANDLED_ERROR, message)))
    for mode in ("metadata", "masked"):
        assert SECRET not in last_resort.line(record, mode, "x")
