"""Groups: failures of one cause (one fingerprint). The counts are spread over shards and added up when read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from handlers.redrive import keys
from handlers.redrive.record import Captured


class GroupStatus(StrEnum):
    """What a person said of a group. A resolved one opens again with the next failure; a muted one does not."""

    OPEN = "open"
    RESOLVED = "resolved"
    MUTED = "muted"


@dataclass(frozen=True, slots=True)
class Tally:
    """A group's counts: failures seen (each id once, expired ones too), the times of the first and the last."""

    count: int = 0
    first_seen: str | None = None
    last_seen: str | None = None
    functions: frozenset[str] = frozenset()


def total(parts: Iterable[Mapping[str, Any]]) -> Tally:
    """Add up the shards of a group. A shard whose failures all moved to another group (amended records) says nothing."""
    parts = [part for part in parts if part.get("count", 0) > 0]
    first = [part["firstSeen"] for part in parts if part.get("firstSeen")]
    last = [part["lastSeen"] for part in parts if part.get("lastSeen")]
    functions: set[str] = set()
    for part in parts:
        functions |= part.get("functions", set())
    return Tally(
        count=sum(part["count"] for part in parts),
        first_seen=min(first, default=None),
        last_seen=max(last, default=None),
        functions=frozenset(functions),
    )


def part_of(status: str, fingerprint: str) -> str:
    """Partition of the status index in which a group stands."""
    return keys.status_part(f"group:{status}", keys.shard(fingerprint))


def new_group(captured: Captured, created_at: str) -> dict[str, Any]:
    """Return the Group item that the first failure of a cause makes; that failure is its sample."""
    return {
        **keys.group(captured.fingerprint),
        "itemType": "Group",
        "fingerprint": captured.fingerprint,
        "status": GroupStatus.OPEN,
        "statusPart": part_of(GroupStatus.OPEN, captured.fingerprint),
        "seenKey": keys.seen(captured.timestamp, captured.fingerprint),
        "function": captured.function,
        "condition": captured.condition,
        "errorType": captured.error.type[:256] or None,
        "errorMessage": captured.error.message[:256] or None,
        "sampleId": captured.id,
        "createdAt": created_at,
    }


def opens_again(group: Mapping[str, Any], timestamp: str) -> bool:
    """Whether a failure seen at `timestamp` opens a group again."""
    return bool(group["status"] == GroupStatus.RESOLVED and timestamp > group.get("resolvedAt", ""))
