"""The pure rules as tables: states, who may be replayed, what an answer means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from handlers.redrive.eligibility import refusal
from handlers.redrive.judge import Certainty, certainty, failure_in
from handlers.redrive.masking import MASK, mask, mask_bytes
from handlers.redrive.planner import choose
from handlers.redrive.request import relations
from handlers.redrive.request_model import FunctionTarget, ReplayRequest, ResumeRequest, parse_request
from handlers.redrive.states import NotAllowed, Status, Step, after, after_failed_replay, sources
from handlers.redrive.targets import address
from tests.handlers.conftest import NOW

HOUR = 3600


def failure(**changes: Any) -> dict[str, Any]:
    return {
        "failureId": "f",
        "status": "captured",
        "retryOwner": "caller",
        "function": "orders",
        "functionArn": "arn:aws:lambda:eu-central-1:123456789012:function:orders",
        "timestamp": "2026-11-24T16:08:00.123Z",
        "eventBytes": 10,
        "whole": True,
        "requestId": "r",
        **changes,
    }


def request(**changes: Any) -> ReplayRequest:
    return ReplayRequest.model_validate({"select": {"function": "orders"}, **changes})


@pytest.mark.parametrize(
    ("changes", "asked", "hours", "reason"),
    [
        # by owner
        ({}, {}, 0, None),
        ({"retryOwner": "lambda"}, {}, 0, "Lambda may still retry"),
        ({"retryOwner": "lambda", "exhausted": "AWS: RetriesExhausted"}, {}, 0, None),
        ({"retryOwner": "lambda"}, {}, 5.0, "Lambda may still retry"),
        ({"retryOwner": "lambda"}, {}, 5.2, None),
        ({"retryOwner": "lambda"}, {"force": True}, 0, None),
        ({"retryOwner": "queue"}, {}, 99, "its queue retries it"),
        ({"retryOwner": "queue"}, {"force": True}, 99, "its queue retries it"),
        ({"retryOwner": "queue", "exhausted": "x"}, {}, 99, "its queue retries it"),
        ({"retryOwner": "stream"}, {}, 99, "its stream may still retry"),
        ({"retryOwner": "stream", "exhausted": "x"}, {}, 0, None),
        ({"retryOwner": "stream"}, {"streamMaximumAgeHours": 24}, 23, "its stream may still retry"),
        ({"retryOwner": "stream"}, {"streamMaximumAgeHours": 24}, 24, None),
        ({"retryOwner": "unknown"}, {}, 99, "confirmUnknown"),
        ({"retryOwner": "unknown"}, {"confirmUnknown": True}, 0, None),
        # by what was kept of the event
        ({"marks": ["absent"]}, {"force": True}, 0, "no event was kept"),
        ({"marks": ["truncated"]}, {}, 0, "only the beginning"),
        ({"marks": ["redacted"]}, {}, 0, "cut out"),
        ({"marks": ["masked"]}, {}, 0, "masked"),
        ({"marks": ["redacted", "truncated"]}, {"force": True}, 0, None),
        ({"marks": ["rebuilt"]}, {}, 0, None),
        # by size
        ({"eventBytes": 6 * 1024 * 1024}, {}, 0, None),
        ({"eventBytes": 6 * 1024 * 1024 + 1}, {}, 0, "too large"),
        ({"eventBytes": 1024 * 1024 + 1}, {"target": {"kind": "function", "asynchronous": True}}, 0, "too large"),
        ({"eventBytes": 1024 * 1024}, {"target": {"kind": "queue", "url": "u"}}, 0, "too large"),
        ({"eventBytes": 1024 * 1024}, {"target": {"kind": "bus", "name": "b"}}, 0, "too large"),
        # by status
        ({"status": "failed"}, {}, 0, None),
        ({"status": "resolved"}, {"force": True}, 0, "resolved already"),
        ({"status": "inflight"}, {"force": True}, 0, "in flight"),
        ({"status": "quarantined"}, {"force": True}, 0, "quarantined"),
        ({"status": "superseded"}, {"force": True}, 0, "a later attempt"),
        ({"status": "linked"}, {"force": True}, 0, "its root"),
        ({"status": "ambiguous"}, {"force": True}, 0, "rerunAmbiguous"),
        ({"status": "ambiguous", "claimUntil": NOW - 1}, {"rerunAmbiguous": True}, 0, None),
        ({"status": "ambiguous", "claimUntil": NOW + 1}, {"rerunAmbiguous": True}, 0, "may still be running"),
        ({"status": "ambiguous", "claimUntil": 0, "reruns": 1}, {"rerunAmbiguous": True}, 0, "second time"),
        # by target
        ({"function": "unknown", "functionArn": ""}, {}, 0, "name it as the target"),
        (
            {"function": "unknown", "functionArn": ""},
            {"target": {"kind": "function", "function": "arn:aws:lambda:eu-central-1:1:function:x"}},
            0,
            None,
        ),
        ({"function": "unknown", "functionArn": ""}, {"target": {"kind": "queue", "url": "u"}}, 0, None),
    ],
)
def test_who_may_be_replayed(changes: dict[str, Any], asked: dict[str, Any], hours: float, reason: str | None) -> None:
    found = refusal(failure(**changes), request(**asked), NOW + hours * HOUR)
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_of_several_attempts_of_one_request_the_last_is_chosen() -> None:
    attempts = [failure(failureId="a"), failure(failureId="b"), failure(failureId="c", requestId="other")]
    chosen = choose(attempts, request(), NOW)
    assert chosen.ids == ["b", "c"]
    assert "later attempt" in chosen.refused["a"]


def test_every_step_leads_somewhere_or_says_that_it_does_not() -> None:
    for step in Step:
        for status in set(Status) - set(sources(step)):
            with pytest.raises(NotAllowed, match=str(status)):
                after(status, step)
        assert all(after(status, step) in Status for status in sources(step))
    assert after(Status.CAPTURED, Step.CLAIM) is Status.INFLIGHT
    with pytest.raises(NotAllowed):
        after(Status.RESOLVED, Step.CLAIM)
    assert [after_failed_replay(n, 3) for n in (1, 2, 3, 4)] == [Step.FAIL, Step.FAIL, Step.GIVE_UP, Step.GIVE_UP]


def client_error(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Invoke")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("error", "sure"),
    [
        (client_error("TooManyRequestsException", 429), Certainty.NOT_NOW),
        (client_error("ResourceNotFoundException", 404), Certainty.NOT_EVER),
        (client_error("AccessDeniedException", 403), Certainty.NOT_EVER),
        (client_error("RequestTooLargeException", 413), Certainty.NOT_EVER),
        (client_error("EC2ThrottledException", 502), Certainty.NOT_NOW),
        (client_error("ServiceException", 500), Certainty.UNKNOWN),
        (EndpointConnectionError(endpoint_url="u"), Certainty.NOT_NOW),
        (ConnectTimeoutError(endpoint_url="u"), Certainty.NOT_NOW),
        (ReadTimeoutError(endpoint_url="u"), Certainty.UNKNOWN),
        (ConnectionClosedError(endpoint_url="u"), Certainty.UNKNOWN),
    ],
)
def test_what_an_error_says_of_whether_anything_ran(error: Exception, sure: Certainty) -> None:
    assert certainty(error) is sure


@pytest.mark.parametrize(
    ("answer", "function_error", "source", "reason"),
    [
        (b"null", None, None, None),
        (b'{"errorType":"E","errorMessage":"m"}', None, None, None),
        (b'{"errorType":"E","errorMessage":"m"}', "Unhandled", None, "E: m"),
        (b"not json", "Unhandled", None, "Unhandled"),
        (b'{"statusCode":502}', None, "aws:apigateway", "HttpError: status 502"),
        (b'{"statusCode":404}', None, "aws:apigateway", None),
        (b'{"statusCode":502}', None, None, None),
        (b'{"batchItemFailures":[{"itemIdentifier":"1"}]}', None, "aws:kinesis", "PartialBatch: 1 items"),
        (b'{"batchItemFailures":[]}', None, "aws:kinesis", None),
    ],
)
def test_what_an_answer_says(answer: bytes, function_error: str | None, source: str | None, reason: str | None) -> None:
    assert failure_in(answer, function_error, source) == reason


@pytest.mark.parametrize(
    ("arn", "target", "wanted"),
    [
        ("arn:aws:lambda:r:1:function:f", {}, ("arn:aws:lambda:r:1:function:f", None)),
        ("arn:aws:lambda:r:1:function:f:$LATEST", {}, ("arn:aws:lambda:r:1:function:f", None)),
        ("arn:aws:lambda:r:1:function:f:live", {}, ("arn:aws:lambda:r:1:function:f", "live")),
        ("arn:aws:lambda:r:1:function:f:live", {"qualifier": "7"}, ("arn:aws:lambda:r:1:function:f", "7")),
        ("arn:aws:lambda:r::function:f", {}, ("f", None)),
        ("arn:aws:lambda:r:1:function:f:live", {"function": "arn:aws:lambda:r:1:function:g"},
         ("arn:aws:lambda:r:1:function:g", None)),
    ],
)  # fmt: skip
def test_which_version_is_invoked(arn: str, target: dict[str, Any], wanted: tuple[str, str | None]) -> None:
    assert address(FunctionTarget.model_validate(target), arn) == wanted


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"select": {}}, "not a selection"),
        ({"select": {"function": "f", "where": "a["}}, "JMESPath"),
        ({"select": {"function": "f", "since": "yesterday"}}, "Invalid isoformat"),
        ({"select": {"function": "f"}, "canary": -1}, "canary"),
        ({"select": {"function": "f"}, "speed": 9}, "speed"),
        ({"select": {"function": "f"}, "target": {"kind": "moon"}}, "target"),
        ({"resume": "no such id!"}, "resume"),
    ],
)
def test_requests_that_make_no_sense_say_why(value: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        parse_request(value)
    assert isinstance(parse_request({"resume": "r-1"}), ResumeRequest)


@given(st.permutations(range(5)))
def test_what_a_request_ids_items_mean_does_not_depend_on_their_order(order: list[int]) -> None:
    items: list[dict[str, Any]] = [
        {"itemType": "Sighting", "failureId": "a", "timestamp": "1", "by": "sidecar", "whole": True},
        {"itemType": "Sighting", "failureId": "b", "timestamp": "2", "by": "sidecar", "whole": True},
        {"itemType": "Sighting", "failureId": "native", "timestamp": "3", "by": "aws", "whole": True},
        {"itemType": "Sighting", "failureId": "part", "timestamp": "4", "by": "sidecar", "whole": False},
        {"itemType": "Exhausted", "reason": "x"},
    ]
    found = relations(items[index] for index in order)
    assert (found.leading, set(found.superseded), found.exhausted) == ("b", {"a", "native"}, "x")
    owned = relations([*items, {"itemType": "Owner", "failureId": "a"}])
    assert owned.leading == "a"


def test_views_never_show_secrets() -> None:
    event = {
        "headers": {"Authorization": "Bearer x", "Accept": "*"},
        "multi": [["Cookie", "x"], ["Accept", "y"]],
        "body": json.dumps({"password": "x", "user": "u"}),
        "x_api_key": "x",
        "tokens": {"a": 1},
    }
    shown = mask(event)
    assert shown["headers"] == {"Authorization": MASK, "Accept": "*"}
    assert shown["multi"] == [["Cookie", MASK], ["Accept", "y"]]
    assert json.loads(shown["body"]) == {"password": MASK, "user": "u"}
    assert (shown["x_api_key"], shown["tokens"]) == (MASK, MASK)
    assert mask_bytes(b"\xff") == {"notShown": "1 bytes that are not JSON"}
