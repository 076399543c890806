"""Finds the failures that a selection names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jmespath

from handlers.redrive import keys
from handlers.redrive.events import EventGone, EventStore
from handlers.redrive.request_model import Selection
from handlers.redrive.states import Status
from handlers.redrive.table import Table

_BEFORE_ALL = "0"
_AFTER_ALL = "~"
_GET_AT_ONCE = 100
_REPLAYABLE = (Status.CAPTURED, Status.FAILED, Status.AMBIGUOUS)


@dataclass(frozen=True, slots=True)
class Selected:
    """The failures, oldest first, and ids that were asked for by name but are not there."""

    failures: list[dict[str, Any]]
    missing: list[str]


def select(table: Table, events: EventStore, wanted: Selection) -> Selected:
    """Return what a selection names. Reads the events only where it has `where`."""
    missing: list[str] = []
    if wanted.ids is not None:
        found = table.get_many([keys.failure(one) for one in dict.fromkeys(wanted.ids)])
        missing = sorted(set(wanted.ids) - {item["failureId"] for item in found})
    else:
        found = list(_heads(table, _indexed(table, wanted)))
    kept = sorted((item for item in found if _matches(item, wanted)), key=lambda item: item["seenKey"])
    if wanted.where is not None:
        expression = jmespath.compile(wanted.where)
        kept = [item for item in kept if _holds(expression, table, events, item)]
    return Selected(kept[: wanted.limit], missing)


def _indexed(table: Table, wanted: Selection) -> Iterator[dict[str, Any]]:
    between = (wanted.since or _BEFORE_ALL, (wanted.until or "") + _AFTER_ALL)
    for part in keys.shards():
        if wanted.group is not None:
            searches = [(keys.GROUP_INDEX, "groupPart", keys.group_part(wanted.group, part))]
        elif wanted.function is not None:
            searches = [(keys.FUNCTION_INDEX, "functionPart", keys.function_part(wanted.function, part))]
        else:
            searches = [
                (keys.STATUS_INDEX, "statusPart", keys.status_part(status, part))
                for status in wanted.statuses or _REPLAYABLE
            ]
        for index, attribute, partition in searches:
            yield from table.query(partition, index=index, attribute=attribute, sort="seenKey", between=between)


def _heads(table: Table, found: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return the whole items: the indexes hold only keys, and may lag."""
    while chunk := list(islice(found, _GET_AT_ONCE)):
        yield from table.get_many([{"id": item["id"], "sk": item["sk"]} for item in chunk])


def _matches(item: dict[str, Any], wanted: Selection) -> bool:
    return (
        (wanted.group is None or item["fingerprint"] == wanted.group)
        and (wanted.function is None or item["function"] == wanted.function)
        and (wanted.since is None or item["timestamp"] >= wanted.since)
        and (wanted.until is None or item["timestamp"] <= wanted.until)
        and (wanted.statuses is None or item["status"] in wanted.statuses)
    )


def _holds(expression: Any, table: Table, events: EventStore, item: dict[str, Any]) -> bool:
    """Whether the expression holds of the event: anything but null, false and what is empty (JMESPath Specification, "filters")."""
    try:
        event = events.read(table.get(keys.body(item["failureId"]), consistent=False), item.get("eventSha256"))
        value = expression.search(json.loads(event))
    except (EventGone, ValueError, RecursionError, jmespath.exceptions.JMESPathError):
        return False
    return value is not None and value is not False and value not in ("", [], {})
