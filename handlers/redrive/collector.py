"""Collecting: one message becomes items of the table, and becomes the same items if it comes again, twice at once,
or out of order.

Order of writes: body, then failure + tally + sighting in one transaction, then what follows from them. Each step may
be repeated,
and the message is only acknowledged after the last, so a crash between two steps is mended by the redelivery.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from handlers.redrive import groups, items, keys
from handlers.redrive.dates import iso
from handlers.redrive.events import EventStore
from handlers.redrive.groups import GroupStatus
from handlers.redrive.linker import Linker
from handlers.redrive.record import Captured, Exhausted, Message, parse
from handlers.redrive.settings import Settings
from handlers.redrive.table import Change, Conflict, Insert, Table

_AMEND_TRIES = 5
_GROUP_KNOWN_S = 10.0
_GROUPS_KNOWN = 1000


class Collected(StrEnum):
    """What a message came to."""

    NEW = "new"
    AMENDED = "amended"
    KNOWN = "known"
    NOTED = "noted"


class Collector:
    """Puts messages into the table. `clock` gives seconds since 1970."""

    def __init__(self, table: Table, events: EventStore, settings: Settings, clock: Callable[[], float]) -> None:
        self._table = table
        self._events = events
        self._settings = settings
        self._clock = clock
        self._linker = Linker(table)
        self._open_groups: dict[str, float] = {}

    def collect(self, message: Message) -> Collected:
        """Store what a message says. Raises BadRecord, EventGone, Conflict, and what botocore raises."""
        parsed = parse(message, self._settings.dlq_functions)
        outcome = Collected.NOTED
        if parsed.exhausted is not None:
            self._note_exhausted(parsed.exhausted)
        if parsed.captured is not None and not self._seen_by_sidecar(parsed.captured):
            outcome = self._capture(parsed.captured)
        request_id = _request_id(parsed.captured, parsed.exhausted)
        if request_id:
            self._linker.relate(request_id)
        return outcome

    def _expires_at(self) -> int:
        return int(self._clock()) + self._settings.retention_s

    def _seen_by_sidecar(self, captured: Captured) -> bool:
        """Whether AWS's own record tells of an invocation that a sidecar's record tells better."""
        if captured.by != "aws" or not captured.request_id:
            return False
        return any(item.get("by") == "sidecar" for item in self._table.query(keys.request(captured.request_id)))

    def _note_exhausted(self, exhausted: Exhausted) -> None:
        note = {
            **keys.exhausted(exhausted.request_id),
            "itemType": "Exhausted",
            "reason": exhausted.reason,
            "expiresAt": self._expires_at(),
        }
        self._table.insert(Insert(note))

    def _capture(self, captured: Captured) -> Collected:
        expires_at = self._expires_at()
        self._put_body(captured, expires_at)
        outcome, fingerprint = self._put_head(captured, expires_at)
        if fingerprint == captured.fingerprint:  # not so where a later record has moved the failure to another group
            self._mark_seen(captured, expires_at)
            self._open_group(captured)
        return outcome

    def _put_body(self, captured: Captured, expires_at: int) -> None:
        stored = self._events.keep(captured)
        self._table.insert(
            Insert(
                items.body(captured, stored, expires_at),
                "attribute_not_exists(#id) OR #recordRank <= :rank",
                {"rank": items.rank(captured)},
            )
        )

    def _put_head(self, captured: Captured, expires_at: int) -> tuple[Collected, str]:
        """Write or amend the failure. Returns what was done, and the fingerprint the failure has now."""
        for _ in range(_AMEND_TRIES):
            writes: list[Change | Insert] = [
                Insert(items.head(captured, expires_at, iso(self._clock())), "attribute_not_exists(#id)"),
                self._count(captured.fingerprint, captured.id, 1),
            ]
            if captured.request_id:
                writes.append(Insert(items.sighting(captured, expires_at)))
            if self._table.transact(*writes) is None:
                return Collected.NEW, captured.fingerprint
            known = self._table.get(keys.failure(captured.id))
            if known is None:
                continue  # purged between the two
            if items.rank(captured) <= known["recordRank"]:
                return Collected.KNOWN, str(known["fingerprint"])
            if self._amend(captured, known, expires_at):
                return Collected.AMENDED, captured.fingerprint
        raise Conflict("the same failure kept being amended by others")

    def _amend(self, captured: Captured, known: dict[str, Any], expires_at: int) -> bool:
        """Write a later record over an earlier one. What replays did to the failure stays as it is."""
        change = Change(
            keys.failure(captured.id),
            sets={**items.described(captured), "expiresAt": expires_at},
            condition="#recordRank = :rank",
            values={"rank": known["recordRank"]},
        )
        writes: list[Change | Insert] = [change]
        if known["fingerprint"] != captured.fingerprint:
            writes.append(self._count(known["fingerprint"], captured.id, -1))
            writes.append(self._count(captured.fingerprint, captured.id, 1))
        if captured.request_id:
            writes.append(Insert(items.sighting(captured, expires_at)))
        return self._table.transact(*writes) is None

    def _count(self, fingerprint: str, failure_id: str, by: int) -> Change:
        return Change(
            keys.tally(fingerprint, keys.shard(failure_id)),
            adds={"count": by},
            once={"itemType": "Tally", "fingerprint": fingerprint},
        )

    def _mark_seen(self, captured: Captured, expires_at: int) -> None:
        key = keys.tally(captured.fingerprint, keys.shard(captured.id))
        is_last = self._table.change(
            Change(
                key,
                sets={"lastSeen": captured.timestamp, "expiresAt": expires_at + self._settings.retention_s},
                once={"firstSeen": captured.timestamp},
                adds={"functions": {captured.function}},
                condition="attribute_not_exists(#lastSeen) OR #lastSeen < :seen",
                values={"seen": captured.timestamp},
            )
        )
        if not is_last:  # out of order: it may be the first
            self._table.change(
                Change(
                    key,
                    sets={"firstSeen": captured.timestamp},
                    adds={"functions": {captured.function}},
                    condition="#firstSeen > :seen",
                    values={"seen": captured.timestamp},
                )
            )

    def _open_group(self, captured: Captured) -> None:
        """Make the group, or open a resolved one again; asked once in a while, since the item is one for all its failures."""
        now = self._clock()
        if self._open_groups.get(captured.fingerprint, 0.0) > now:
            return
        group = self._table.get(keys.group(captured.fingerprint), consistent=False)
        if group is None:
            self._table.insert(Insert(groups.new_group(captured, iso(now)), "attribute_not_exists(#id)"))
        elif groups.opens_again(group, captured.timestamp):
            self._table.change(
                Change(
                    keys.group(captured.fingerprint),
                    sets={
                        "status": GroupStatus.OPEN,
                        "statusPart": groups.part_of(GroupStatus.OPEN, captured.fingerprint),
                    },
                    adds={"reopened": 1},
                    condition="#status = :resolved",
                    values={"resolved": GroupStatus.RESOLVED},
                )
            )
        if len(self._open_groups) >= _GROUPS_KNOWN:
            self._open_groups.clear()
        self._open_groups[captured.fingerprint] = now + _GROUP_KNOWN_S


def _request_id(captured: Captured | None, exhausted: Exhausted | None) -> str:
    if captured is not None:
        return captured.request_id
    return exhausted.request_id if exhausted is not None else ""
