"""What people and programs are shown of the table: pages, newest first, secrets masked. And purging."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from handlers.redrive import groups, keys
from handlers.redrive.dates import iso
from handlers.redrive.events import EventGone, EventStore
from handlers.redrive.groups import GroupStatus
from handlers.redrive.masking import mask, mask_bytes
from handlers.redrive.states import Status
from handlers.redrive.table import Change, Table

_FIRST = "0"
_LAST = "~"
_HIDDEN = frozenset(
    {"id", "sk", "itemType", "statusPart", "groupPart", "functionPart", "seenKey", "recordRank", "claimToken"}
)


@dataclass(frozen=True, slots=True)
class Page:
    """Some items, and where the next page begins (None after the last)."""

    items: list[dict[str, Any]]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which failures: of one group, else of one function, else of some statuses. `since` and `until` are ISO 8601 times."""

    group: str | None = None
    function: str | None = None
    statuses: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None


def failures(table: Table, wanted: Filter, limit: int, cursor: str | None = None) -> Page:
    """Return a page of failures, newest first. `cursor` is the former page's."""
    found: list[dict[str, Any]] = []
    ordered = _newest_first(table, _partitions(wanted), wanted.since, wanted.until, cursor)
    while len(found) <= limit and (chunk := list(islice(ordered, limit + 1))):
        heads = {item["id"]: item for item in table.get_many([_key(item) for item in chunk], consistent=False)}
        kept = (heads[item["id"]] for item in chunk if item["id"] in heads)
        found += [item for item in kept if _matches(item, wanted)]
    shown = found[:limit]
    more = len(found) > limit
    return Page([summary(item) for item in shown], shown[-1]["seenKey"] if more and shown else None)


def all_failures(table: Table, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Yield every failure's summary, newest first."""
    cursor = None
    while True:
        page = failures(table, wanted, 500, cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return


def _partitions(wanted: Filter) -> list[tuple[str, str, str]]:
    found = []
    for part in keys.shards():
        if wanted.group is not None:
            found.append((keys.GROUP_INDEX, "groupPart", keys.group_part(wanted.group, part)))
        elif wanted.function is not None:
            found.append((keys.FUNCTION_INDEX, "functionPart", keys.function_part(wanted.function, part)))
        else:
            found += [
                (keys.STATUS_INDEX, "statusPart", keys.status_part(status, part))
                for status in wanted.statuses or tuple(Status)
            ]
    return found


def _newest_first(
    table: Table,
    partitions: Iterable[tuple[str, str, str]],
    since: str | None,
    until: str | None,
    cursor: str | None,
) -> Iterator[dict[str, Any]]:
    last = cursor or ((until or "") + _LAST)
    streams = (
        table.query(
            partition,
            index=index,
            attribute=attribute,
            sort="seenKey",
            between=(since or _FIRST, last),
            newest_first=True,
            page_size=100,
        )
        for index, attribute, partition in partitions
    )
    merged = heapq.merge(*streams, key=lambda item: str(item["seenKey"]), reverse=True)
    return (item for item in merged if item["seenKey"] != cursor)


def _matches(item: Mapping[str, Any], wanted: Filter) -> bool:
    return (
        (wanted.function is None or item["function"] == wanted.function)
        and (not wanted.statuses or item["status"] in wanted.statuses)
        and (wanted.group is None or item["fingerprint"] == wanted.group)
    )


def _key(item: Mapping[str, Any]) -> dict[str, str]:
    return {"id": item["id"], "sk": item["sk"]}


def summary(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item without what only the table needs."""
    return {name: _plain(value) for name, value in item.items() if name not in _HIDDEN}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value


def failure(table: Table, events: EventStore, failure_id: str, *, masked: bool = True) -> dict[str, Any] | None:
    """Return one failure with its event, error and logs, or None. `masked=False` gives the event as it is, as text or base64."""
    head = table.get(keys.failure(failure_id))
    if head is None:
        return None
    body = table.get(keys.body(failure_id))
    shown = summary(head)
    if body is not None:
        response = body.get("response")
        shown |= {
            "error": mask(body.get("error")),
            "logs": mask(body.get("logs", [])),
            "response": mask(response) if response else None,
        }
    try:
        event = events.read(body, head.get("eventSha256"))
    except EventGone as error:
        return {**shown, "event": None, "eventMissing": str(error)}
    return {**shown, "event": mask_bytes(event) if masked else event}


def group(table: Table, fingerprint: str) -> dict[str, Any] | None:
    """Return a group with its counts added up, or None."""
    item = table.get(keys.group(fingerprint), consistent=False)
    if item is None:
        return None
    parts = table.get_many([keys.tally(fingerprint, part) for part in keys.shards()], consistent=False)
    total = groups.total(parts)
    return {
        **summary(item),
        "count": total.count,
        "firstSeen": total.first_seen,
        "lastSeen": total.last_seen,
        "functions": sorted(total.functions),
    }


def all_groups(table: Table, statuses: Iterable[str] = tuple(GroupStatus)) -> list[dict[str, Any]]:
    """Return the groups, the one seen last first."""
    found = []
    for status in statuses:
        for part in keys.shards():
            partition = keys.status_part(f"group:{status}", part)
            for item in table.query(partition, index=keys.STATUS_INDEX, attribute="statusPart"):
                one = group(table, item["id"].removeprefix("GROUP#"))
                if one is not None:
                    found.append(one)
    return sorted(found, key=lambda one: one["lastSeen"] or "", reverse=True)


def set_group(table: Table, fingerprint: str, status: GroupStatus, now: float) -> bool:
    """Say of a group that it is open, resolved or muted. False if there is none. `now` in seconds since 1970."""
    return table.change(
        Change(
            keys.group(fingerprint),
            sets={
                "status": status,
                "statusPart": groups.part_of(status, fingerprint),
                "resolvedAt": iso(now) if status is GroupStatus.RESOLVED else None,
            },
            condition="attribute_exists(#id)",
        )
    )


def purge(table: Table, events: EventStore, failure_ids: Iterable[str]) -> tuple[int, list[str]]:
    """Delete failures with their events. Returns how many, and the ids that are in flight and so were left.

    A group's counts stay: they tell what was seen, not what is kept.
    """
    purged, left = 0, []
    for failure_id in failure_ids:
        head = table.get(keys.failure(failure_id))
        body = table.get(keys.body(failure_id))
        if head is None and body is None:
            continue
        if head is not None and head["status"] == Status.INFLIGHT:
            left.append(failure_id)
            continue
        if body is not None:
            events.remove(body)
        gone = [keys.body(failure_id), keys.failure(failure_id)]
        if head is not None and head.get("requestId"):
            gone.append(keys.sighting(head["requestId"], failure_id))
        table.remove(gone)
        purged += 1
    return purged, left


def purge_group(table: Table, events: EventStore, fingerprint: str) -> tuple[int, list[str]]:
    """Delete a group's failures, and, where none is left, the group itself."""
    ids = [item["failureId"] for item in all_failures(table, Filter(group=fingerprint))]
    purged, left = purge(table, events, ids)
    if not left:
        table.remove([keys.group(fingerprint), *(keys.tally(fingerprint, part) for part in keys.shards())])
    return purged, left


def as_line(item: Mapping[str, Any]) -> str:
    """Return an item as one line of JSON; bytes that are text as text, others as base64."""
    return json.dumps(item, default=_json, ensure_ascii=False)


def _json(value: Any) -> Any:
    import base64

    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    raise TypeError(type(value).__name__)
