"""Where an event came from, and who would retry it: read from the event's shape. Pure; DESIGN, table of `retryOwner`."""

from __future__ import annotations

_OWNER = {
    "aws:sqs": "queue",
    "aws:kinesis": "stream",
    "aws:dynamodb": "stream",
    "aws:kafka": "stream",
    "SelfManagedKafka": "stream",
    "aws:mq": "stream",
    "aws:rmq": "stream",
    "aws:docdb": "stream",
    "aws:s3": "lambda",
    "aws:sns": "lambda",
    "aws:ses": "lambda",
    "aws:events": "lambda",
    "aws:schedule": "lambda",
    "aws:logs": "lambda",
    "aws:iot": "lambda",
    "aws:codecommit": "lambda",
    "aws:apigateway": "caller",
    "aws:apigateway:websocket": "caller",
    "aws:elb": "caller",
    "aws:lambda-url": "caller",
    "aws:cognito": "caller",
    "aws:appsync": "caller",
}


def retry_owner(source: str | None) -> str:
    """Return who retries an invocation from this source: caller, lambda, queue, stream or unknown."""
    return _OWNER.get(source or "", "unknown")


def event_source(event: object) -> str | None:
    """Return the source of an event, or None for a shape that no AWS service sends (a direct invocation)."""
    if not isinstance(event, dict):
        return None
    records = event.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], dict):
        named = records[0].get("eventSource") or records[0].get("EventSource")
        return named if isinstance(named, str) else None
    for recognise in (_from_streams, _from_http, _from_events):
        source = recognise(event)
        if source is not None:
            return source
    return None


def _from_streams(event: dict[str, object]) -> str | None:
    named = event.get("eventSource")
    if isinstance(named, str) and isinstance(event.get("records") or event.get("events"), dict | list):
        return named  # Kafka (records by topic), DocumentDB (events)
    if isinstance(event.get("messages"), list) and named in ("aws:mq", "aws:amq"):
        return "aws:mq"
    if named == "aws:rmq" or isinstance(event.get("rmqMessagesByQueue"), dict):
        return "aws:rmq"
    logs = event.get("awslogs")
    return "aws:logs" if isinstance(logs, dict) and "data" in logs else None


def _from_http(event: dict[str, object]) -> str | None:
    context = event.get("requestContext")
    if isinstance(context, dict):
        if "elb" in context:
            return "aws:elb"
        if "connectionId" in context:
            return "aws:apigateway:websocket"
        domain = context.get("domainName")
        if isinstance(domain, str) and ".lambda-url." in domain:
            return "aws:lambda-url"
        if "http" in context or "httpMethod" in context or "resourcePath" in context:
            return "aws:apigateway"
    if event.get("type") in ("TOKEN", "REQUEST") and "methodArn" in event:
        return "aws:apigateway"  # an authorizer
    if "triggerSource" in event and "userPoolId" in event:
        return "aws:cognito"
    info = event.get("info")
    if isinstance(info, dict) and "fieldName" in info and "parentTypeName" in info:
        return "aws:appsync"
    return None


def _from_events(event: dict[str, object]) -> str | None:
    if "detail-type" in event and "detail" in event:
        return "aws:schedule" if event.get("source") == "aws.events" else "aws:events"
    return None
