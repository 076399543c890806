"""What an answer of a function, or an error on the way to it, says of a replay. Pure."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
)

_HTTP_SOURCES = frozenset({"aws:apigateway", "aws:elb", "aws:lambda-url"})
_BATCH_SOURCES = frozenset({"aws:sqs", "aws:kinesis", "aws:dynamodb"})
_TOLD = 256
_THROTTLES = frozenset(
    {
        "TooManyRequestsException",
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "RequestThrottled",
        "EC2ThrottledException",
        "ServiceQuotaExceededException",
        "ENILimitReachedException",
    }
)
# Errors of Invoke that say that the function's environment was asked already, though their status is 4xx or 5xx.
_NOT_STARTED_5XX = frozenset(
    {"EC2ThrottledException", "ENILimitReachedException", "SubnetIPAddressLimitReachedException"}
)


class Certainty(StrEnum):
    """Whether a call that raised ran anything."""

    NOT_NOW = "not now"  # certainly nothing ran; trying again later makes sense
    NOT_EVER = "not ever"  # certainly nothing ran; trying again the same way makes none
    UNKNOWN = "unknown"


def failure_in(answer: bytes, function_error: str | None, event_source: str | None) -> str | None:
    """Return why an invocation that was answered failed all the same, or None. Never more of the answer than the error it names."""
    if function_error is not None:
        return _told(_parsed(answer), function_error)
    if event_source in _HTTP_SOURCES:
        value = _parsed(answer)
        status = value.get("statusCode") if isinstance(value, dict) else None
        if isinstance(status, int) and status >= 500:
            return f"HttpError: status {status}"
    if event_source in _BATCH_SOURCES:
        value = _parsed(answer)
        failures = value.get("batchItemFailures") if isinstance(value, dict) else None
        if failures:
            return f"PartialBatch: {len(failures) if isinstance(failures, list) else 1} items"
    return None


def certainty(error: Exception) -> Certainty:
    """Return what an exception of botocore says. Whatever is not known to come before the request ran is UNKNOWN."""
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        if code in _THROTTLES or status == 429:
            return Certainty.NOT_NOW
        if code in _NOT_STARTED_5XX:
            return Certainty.NOT_NOW
        return Certainty.NOT_EVER if 400 <= status < 500 else Certainty.UNKNOWN
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError | NoCredentialsError):
        return Certainty.NOT_NOW
    if isinstance(error, ParamValidationError):
        return Certainty.NOT_EVER
    assert isinstance(error, BotoCoreError)
    return Certainty.UNKNOWN


def told(error: Exception) -> str:
    """Return an exception in few words."""
    if isinstance(error, ClientError):
        given = error.response.get("Error", {})
        return f"{given.get('Code', 'ClientError')}: {given.get('Message', '')}"[:_TOLD]
    return f"{type(error).__name__}"


def _parsed(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None


def _told(error: Any, function_error: str) -> str:
    if not isinstance(error, dict):
        return function_error
    return f"{error.get('errorType') or function_error}: {error.get('errorMessage') or ''}"[:_TOLD]
