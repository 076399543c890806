"""Where an event came from, and who retries it (DESIGN, table of `retryOwner`)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension.event_source import event_source, retry_owner

# Cut down from the examples in the AWS Lambda Developer Guide, each service's page.
EVENTS: list[tuple[str, Any, str | None, str]] = [
    ("SQS", {"Records": [{"messageId": "m", "body": "b", "eventSource": "aws:sqs"}]}, "aws:sqs", "queue"),
    ("Kinesis", {"Records": [{"kinesis": {}, "eventSource": "aws:kinesis"}]}, "aws:kinesis", "stream"),
    ("DynamoDB", {"Records": [{"dynamodb": {}, "eventSource": "aws:dynamodb"}]}, "aws:dynamodb", "stream"),
    ("MSK", {"eventSource": "aws:kafka", "records": {"t-0": []}}, "aws:kafka", "stream"),
    ("Kafka", {"eventSource": "SelfManagedKafka", "records": {"t-0": [{}]}}, "SelfManagedKafka", "stream"),
    ("ActiveMQ", {"eventSource": "aws:mq", "messages": [{}]}, "aws:mq", "stream"),
    ("RabbitMQ", {"eventSource": "aws:rmq", "rmqMessagesByQueue": {"q::/": []}}, "aws:rmq", "stream"),
    ("DocumentDB", {"eventSource": "aws:docdb", "events": [{}]}, "aws:docdb", "stream"),
    ("S3", {"Records": [{"eventSource": "aws:s3", "s3": {}}]}, "aws:s3", "lambda"),
    ("SNS", {"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "aws:sns", "lambda"),
    ("SES", {"Records": [{"eventSource": "aws:ses", "ses": {}}]}, "aws:ses", "lambda"),
    ("EventBridge", {"source": "orders", "detail-type": "t", "detail": {}}, "aws:events", "lambda"),
    ("schedule", {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}, "aws:schedule", "lambda"),
    ("CloudWatch Logs", {"awslogs": {"data": "H4sI"}}, "aws:logs", "lambda"),
    (
        "REST API",
        {"resource": "/", "httpMethod": "GET", "requestContext": {"resourcePath": "/", "httpMethod": "GET"}},
        "aws:apigateway",
        "caller",
    ),
    (
        "HTTP API",
        {"version": "2.0", "requestContext": {"http": {}, "domainName": "id.execute-api.eu-west-1.amazonaws.com"}},
        "aws:apigateway",
        "caller",
    ),
    ("WebSocket", {"requestContext": {"connectionId": "c", "routeKey": "r"}}, "aws:apigateway:websocket", "caller"),
    (
        "Function URL",
        {"version": "2.0", "requestContext": {"http": {}, "domainName": "id.lambda-url.eu-west-1.on.aws"}},
        "aws:lambda-url",
        "caller",
    ),
    ("ALB", {"requestContext": {"elb": {"targetGroupArn": "arn"}}, "httpMethod": "GET"}, "aws:elb", "caller"),
    ("authorizer", {"type": "TOKEN", "methodArn": "arn"}, "aws:apigateway", "caller"),
    ("Cognito", {"triggerSource": "PreSignUp_SignUp", "userPoolId": "p"}, "aws:cognito", "caller"),
    ("AppSync", {"info": {"fieldName": "f", "parentTypeName": "Query"}, "arguments": {}}, "aws:appsync", "caller"),
    ("a direct invocation", {"order": 1}, None, "unknown"),
    ("an unknown source", {"Records": [{"eventSource": "aws:new"}]}, "aws:new", "unknown"),
    ("an empty event", {}, None, "unknown"),
    ("no object", [1], None, "unknown"),
    ("null", None, None, "unknown"),
    ("a text", "aws:sqs", None, "unknown"),
    ("no records", {"Records": []}, None, "unknown"),
    ("records of another kind", {"Records": [7]}, None, "unknown"),
    ("a source that is no text", {"Records": [{"eventSource": {"a": 1}}]}, None, "unknown"),
]


@pytest.mark.parametrize(("event", "source", "owner"), [pytest.param(*fields, id=name) for name, *fields in EVENTS])
def test_a_source_and_who_retries(event: Any, source: str | None, owner: str) -> None:
    assert event_source(event) == source
    assert retry_owner(source) == owner


NAMES = ["Records", "eventSource", "EventSource", "records", "events", "messages", "awslogs", "data", "requestContext"]
NAMES += ["elb", "connectionId", "domainName", "http", "type", "methodArn", "info", "fieldName", "detail", "source"]
NAMES += ["detail-type", "parentTypeName", "triggerSource", "userPoolId", "rmqMessagesByQueue", "httpMethod"]


@given(
    event=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["aws:sqs", "TOKEN"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    )
)
def test_any_shape_has_a_source_or_none(event: Any) -> None:
    source = event_source(event)
    assert source is None or isinstance(source, str)
    assert retry_owner(source) in ("caller", "lambda", "queue", "stream", "unknown")
