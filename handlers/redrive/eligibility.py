"""Which captured failures a replay may touch, and the reason where it may not. Pure; DESIGN, table of `retryOwner`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.redrive.dates import seconds
from handlers.redrive.record import UNKNOWN_FUNCTION
from handlers.redrive.request_model import FunctionTarget, ReplayRequest
from handlers.redrive.states import Status

# Lambda Developer Guide, "Lambda quotas": synchronous and asynchronous request payloads.
SYNCHRONOUS_BYTES = 6 * 1024 * 1024
ASYNCHRONOUS_BYTES = 1024 * 1024
# Amazon SQS and EventBridge quotas, less room for attributes and the entry's other fields.
MESSAGE_BYTES = 1024 * 1024 - 4096
MAXIMUM_EVENT_AGE_S = 6 * 3600
MOST_RERUNS = 1

_UNSURE_MARKS = {
    "truncated": "only the beginning of the event was kept",
    "redacted": "values were cut out of the event before it was stored",
    "masked": "the event's secrets are masked",
}


def refusal(failure: Mapping[str, Any], request: ReplayRequest, now: float) -> str | None:
    """Return why a failure is not to be replayed, or None. `now` in seconds since 1970."""
    return (
        _by_status(failure, request, now)
        or _by_event(failure, request)
        or _by_owner(failure, request, now)
        or _by_target(failure, request)
    )


def _by_status(failure: Mapping[str, Any], request: ReplayRequest, now: float) -> str | None:
    status = Status(failure["status"])
    if status in (Status.CAPTURED, Status.FAILED):
        return None
    if status is Status.AMBIGUOUS:
        return _ambiguous(failure, request, now)
    return {
        Status.INFLIGHT: "in flight in another redrive",
        Status.RESOLVED: "resolved already",
        Status.QUARANTINED: "quarantined after too many failed replays: release it first",
        Status.SUPERSEDED: "a later attempt of the same request stands for it",
        Status.LINKED: "it is the failure of a replay: its root is replayed instead",
    }[status]


def _ambiguous(failure: Mapping[str, Any], request: ReplayRequest, now: float) -> str | None:
    if not request.rerunAmbiguous:
        return "ambiguous: whether it ran is not known; rerunAmbiguous lets it run once more"
    if failure.get("reruns", 0) >= MOST_RERUNS:
        return "ambiguous for a second time: release it by hand if it may run again"
    if failure.get("claimUntil", 0) >= now:
        return "ambiguous, and its worker may still be running"
    return None


def _by_event(failure: Mapping[str, Any], request: ReplayRequest) -> str | None:
    marks = failure.get("marks") or []
    if "absent" in marks:
        return "no event was kept: there is nothing to replay"
    for mark, reason in _UNSURE_MARKS.items():
        if mark in marks and not request.force:
            return f"{reason} (force replays it all the same)"
    size = failure.get("eventBytes") or 0
    if isinstance(request.target, FunctionTarget):
        limit = ASYNCHRONOUS_BYTES if request.target.asynchronous else SYNCHRONOUS_BYTES
    else:
        limit = MESSAGE_BYTES
    return f"the event is too large for this target: over {limit} bytes" if size > limit else None


def _by_owner(failure: Mapping[str, Any], request: ReplayRequest, now: float) -> str | None:
    owner = failure["retryOwner"]
    if owner == "queue":
        return "its queue retries it: redrive the queue's own dead-letter queue instead"
    if owner == "caller" or request.force:
        return None
    if owner == "unknown":
        if request.confirmUnknown:
            return None
        return "a direct invocation, whose caller may have retried: confirmUnknown replays it"
    if failure.get("exhausted"):
        return None
    age_s = now - seconds(failure["timestamp"])
    if owner == "lambda":
        if age_s > MAXIMUM_EVENT_AGE_S:
            return None
        return "Lambda may still retry it: no on-failure record was collected, and the maximum event age (6 h) has not passed"
    if request.streamMaximumAgeHours is not None and age_s > request.streamMaximumAgeHours * 3600:
        return None
    return "its stream may still retry it: no on-failure record was collected"


def _by_target(failure: Mapping[str, Any], request: ReplayRequest) -> str | None:
    if isinstance(request.target, FunctionTarget) and request.target.function is None:
        function = failure["function"]
        if function == UNKNOWN_FUNCTION or not failure.get("functionArn"):
            return "the function is not known: name it as the target"
    return None
