"""The ledger of replays: who has claimed a failure, what became of it, and the redrive's own item.

A claim and an outcome are transactions over the failure, the redrive's entry and, for a whole invocation, the
request id's owner. So a
failure is run by one worker at a time, an attempt of the same request by none beside it, and a recorded outcome is
never run again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from handlers.redrive import keys
from handlers.redrive.dates import iso
from handlers.redrive.eligibility import MOST_RERUNS
from handlers.redrive.settings import Settings
from handlers.redrive.states import Status, Step, after, after_failed_replay
from handlers.redrive.table import Change, Insert, Table

_DAY_S = 86_400
_SHORT_TEXT = 512
REDRIVES_PART = "redrives#00"


class Outcome(StrEnum):
    """What became of one failure in one redrive."""

    INFLIGHT = "inflight"
    RESOLVED = "resolved"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    AMBIGUOUS = "ambiguous"
    RELEASED = "released"
    REFUSED = "refused"
    SKIPPED = "skipped"


# Outcomes that are recorded for good within a redrive.
FINAL = frozenset({Outcome.RESOLVED, Outcome.FAILED, Outcome.QUARANTINED, Outcome.REFUSED})


class RedriveStatus(StrEnum):
    """What a redrive is doing."""

    PLANNED = "planned"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Claim:
    """A failure that this worker may run now."""

    redrive_id: str
    failure: Mapping[str, Any]
    token: str
    prior: Status
    quarantine_after: int


@dataclass(frozen=True, slots=True)
class Denied:
    """A failure that this worker may not run, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a target answered. `accepted`: only taken over, the function's own outcome is not known yet."""

    succeeded: bool
    request_id: str | None = None
    error: str | None = None
    accepted: bool = False


class Ledger:
    """Reads and writes what replays do. `clock` gives seconds since 1970."""

    def __init__(self, table: Table, settings: Settings, clock: Callable[[], float]) -> None:
        self._table = table
        self._settings = settings
        self._clock = clock

    # --- one failure ----------------------------------------------------------------------------------------------------

    def claim(
        self,
        redrive_id: str,
        failure_id: str,
        *,
        seconds: float,
        phase: str,
        quarantine_after: int,
        rerun_ambiguous: bool,
    ) -> Claim | Denied:
        """Claim a failure for at most `seconds`, after which its worker is certainly dead. Raises Conflict."""
        failure = self._table.get(keys.failure(failure_id))
        if failure is None:
            return Denied("purged or expired")
        prior = Status(failure["status"])
        if reason := _not_claimable(failure, prior, redrive_id, rerun_ambiguous, self._clock()):
            return Denied(reason)
        now = self._clock()
        token = uuid.uuid4().hex
        until = int(now + seconds) + 1
        change = Change(
            keys.failure(failure_id),
            sets={
                **_status(failure_id, after(prior, Step.CLAIM)),
                "claimToken": token,
                "claimUntil": until,
                "lastRedrive": redrive_id,
                "lastReplayAt": iso(now),
                "quarantineAfter": quarantine_after,
            },
            adds={"reruns": 1} if prior is Status.AMBIGUOUS else {},
            condition="#status = :from AND " + _same_claim(failure),
            values={"from": prior, "token": failure.get("claimToken")},
        )
        entry = Insert(
            {
                **keys.entry(redrive_id, failure_id),
                "itemType": "Entry",
                "redriveId": redrive_id,
                "failureId": failure_id,
                "outcome": Outcome.INFLIGHT,
                "claimToken": token,
                "claimUntil": until,
                "phase": phase,
                "startedAt": iso(now),
                "expiresAt": self._entry_expires_at(),
            },
            "attribute_not_exists(#id) OR #outcome IN (:released, :ambiguous, :skipped)",
            {"released": Outcome.RELEASED, "ambiguous": Outcome.AMBIGUOUS, "skipped": Outcome.SKIPPED},
        )
        writes: list[Change | Insert] = [change, entry]
        if failure.get("whole"):
            writes.append(self._owner(failure))
        held = self._table.transact(*writes)
        if held is None:
            return Claim(redrive_id, failure, token, prior, quarantine_after)
        if not held[0]:
            return Denied("claimed by another worker just now")
        if not held[1]:
            return Denied("already recorded in this redrive")
        return Denied("another attempt of the same request has been replayed")

    def _owner(self, failure: Mapping[str, Any]) -> Insert:
        return Insert(
            {
                "id": keys.request(failure["requestId"]),
                "sk": "OWNER",
                "itemType": "Owner",
                "failureId": failure["failureId"],
                "expiresAt": failure.get("expiresAt"),
            },
            "attribute_not_exists(#id) OR #failureId = :failure",
            {"failure": failure["failureId"]},
        )

    def note_replay(self, claim: Claim, request_id: str) -> None:
        """Write down that a request id is a replay, before its outcome: a failure of it then finds its root."""
        self._table.insert(
            Insert(
                {
                    **keys.replay(request_id),
                    "itemType": "Replay",
                    "rootId": claim.failure["failureId"],
                    "redriveId": claim.redrive_id,
                    "expiresAt": self._entry_expires_at(),
                }
            )
        )

    def record(self, claim: Claim, result: Result) -> Outcome:
        """Record an outcome. Where the claim was taken away meanwhile (by somebody who took this worker for dead)
        nothing changes,
        and the outcome is ambiguous."""
        failed = claim.failure.get("attempts", 0) + (not result.succeeded)
        step = Step.SUCCEED
        if not result.succeeded:
            step = after_failed_replay(failed, claim.quarantine_after)
        status = after(Status.INFLIGHT, step)
        outcome = Outcome(status.value)
        sets: dict[str, Any] = {
            "attempts": failed,
            "lastOutcome": outcome,
            "lastError": _short(result.error),
            "acceptedBy": claim.redrive_id if result.accepted else None,
        }
        writes = self._outcome(claim, status, outcome, sets, result)
        if not result.succeeded:
            writes.append(Change(keys.redrive(claim.redrive_id), adds={"failed": 1}))
        return outcome if self._table.transact(*writes) is None else Outcome.AMBIGUOUS

    def release(self, claim: Claim, reason: str) -> Outcome:
        """Give a claim back: the target certainly did not run."""
        writes = self._outcome(
            claim, claim.prior, Outcome.RELEASED, {"lastError": _short(reason)}, Result(False, error=reason)
        )
        return Outcome.RELEASED if self._table.transact(*writes) is None else Outcome.AMBIGUOUS

    def refuse(self, claim: Claim, reason: str) -> Outcome:
        """Give a claim back for good in this redrive: the target refused it before running anything. It counts as
        failed for the redrive."""
        writes = self._outcome(
            claim, claim.prior, Outcome.REFUSED, {"lastError": _short(reason)}, Result(False, error=reason)
        )
        writes.append(Change(keys.redrive(claim.redrive_id), adds={"failed": 1}))
        return Outcome.REFUSED if self._table.transact(*writes) is None else Outcome.AMBIGUOUS

    def _outcome(
        self, claim: Claim, status: Status, outcome: Outcome, sets: Mapping[str, Any], result: Result
    ) -> list[Change | Insert]:
        failure_id = claim.failure["failureId"]
        mine = {"token": claim.token, "inflight": Status.INFLIGHT, "ambiguous": Status.AMBIGUOUS}
        return [
            Change(
                keys.failure(failure_id),
                sets={**_status(failure_id, status), **sets},
                condition="#claimToken = :token AND #status IN (:inflight, :ambiguous)",
                values=mine,
            ),
            Change(
                keys.entry(claim.redrive_id, failure_id),
                sets={
                    "outcome": outcome,
                    "requestId": result.request_id,
                    "error": _short(result.error),
                    "endedAt": iso(self._clock()),
                    "accepted": True if result.accepted else None,
                },
                condition="#claimToken = :token",
                values=mine,
            ),
        ]

    def lose(self, entry: Mapping[str, Any]) -> bool:
        """An entry in flight whose worker is gone: whether it ran is not known. True if it was so still."""
        failure_id, redrive_id = entry["failureId"], entry["redriveId"]
        values = {"token": entry["claimToken"], "inflight": Status.INFLIGHT}
        return (
            self._table.transact(
                Change(
                    keys.failure(failure_id),
                    sets={**_status(failure_id, after(Status.INFLIGHT, Step.LOSE)), "lastOutcome": Outcome.AMBIGUOUS},
                    condition="#claimToken = :token AND #status = :inflight",
                    values=values,
                ),
                Change(
                    keys.entry(redrive_id, failure_id),
                    sets={"outcome": Outcome.AMBIGUOUS, "endedAt": iso(self._clock())},
                    condition="#claimToken = :token AND #outcome = :inflight",
                    values=values,
                ),
            )
            is None
        )

    def reopen(self, failure_id: str) -> bool:
        """Let a quarantined, failed or ambiguous failure run again, its counts at zero. True if it was one of those."""
        failure = self._table.get(keys.failure(failure_id))
        if failure is None:
            return False
        try:
            status = after(Status(failure["status"]), Step.REOPEN)
        except ValueError:
            return False
        return self._table.change(
            Change(
                keys.failure(failure_id),
                sets={**_status(failure_id, status), "attempts": 0, "reruns": None, "lastRedrive": None},
                condition="#status = :from AND " + _same_claim(failure),
                values={"from": failure["status"], "token": failure.get("claimToken")},
            )
        )

    # --- one redrive ----------------------------------------------------------------------------------------------------

    def open(self, redrive: Mapping[str, Any]) -> bool:
        """Make a redrive's item. False if there is one of that id."""
        created = iso(self._clock())
        item = {
            **keys.redrive(redrive["redriveId"]),
            "itemType": "Redrive",
            "statusPart": REDRIVES_PART,
            "seenKey": keys.seen(created, redrive["redriveId"]),
            "createdAt": created,
            "failed": 0,
            "expiresAt": self._entry_expires_at(),
            **redrive,
        }
        return self._table.insert(Insert(item, "attribute_not_exists(#id)"))

    def redrive(self, redrive_id: str, *, consistent: bool = True) -> dict[str, Any] | None:
        """Return a redrive's item, or None."""
        return self._table.get(keys.redrive(redrive_id), consistent=consistent)

    def update(self, redrive_id: str, *, only_if: tuple[RedriveStatus, ...] = (), **sets: Any) -> bool:
        """Set a redrive's attributes, if its status is one of `only_if` (or there is one at all)."""
        condition, values = "attribute_exists(#id)", {}
        if only_if:
            names = {f"s{index}": status for index, status in enumerate(only_if)}
            condition, values = f"#status IN ({', '.join(f':{name}' for name in names)})", names
        change = Change(keys.redrive(redrive_id), sets=sets, condition=condition, values=values)
        return self._table.change(change)

    def cancel(self, redrive_id: str) -> bool:
        """Ask a redrive to stop: no worker starts another item. True if it was running or planned."""
        return self.update(
            redrive_id,
            only_if=(RedriveStatus.RUNNING, RedriveStatus.PLANNED),
            status=RedriveStatus.CANCELLING,
            cancelledAt=iso(self._clock()),
        )

    def redrives(
        self, *, newest_first: bool = True, start: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield every redrive's item."""
        for item in self._table.query(
            REDRIVES_PART,
            index=keys.STATUS_INDEX,
            attribute="statusPart",
            newest_first=newest_first,
            start=start,
        ):
            found = self._table.get({"id": item["id"], "sk": item["sk"]}, consistent=False)
            if found is not None:
                yield found

    def entries(self, redrive_id: str) -> Iterator[dict[str, Any]]:
        """Yield what a redrive did, item by item."""
        for part in keys.shards():
            yield from self._table.query(keys.entries(redrive_id, part))

    def _entry_expires_at(self) -> int:
        return int(self._clock()) + self._settings.kept_entries_days * _DAY_S


def _not_claimable(
    failure: Mapping[str, Any], status: Status, redrive_id: str, rerun_ambiguous: bool, now: float
) -> str | None:
    if status is Status.CAPTURED:
        return None
    if status is Status.FAILED:
        return "already recorded in this redrive" if failure.get("lastRedrive") == redrive_id else None
    if status is Status.AMBIGUOUS:
        if not rerun_ambiguous:
            return "ambiguous"
        if failure.get("reruns", 0) >= MOST_RERUNS:
            return "ambiguous for a second time"
        return "ambiguous, and its worker may still be running" if failure.get("claimUntil", 0) >= now else None
    return str(status)


def _same_claim(failure: Mapping[str, Any]) -> str:
    return "#claimToken = :token" if failure.get("claimToken") else "attribute_not_exists(#claimToken)"


def _status(failure_id: str, status: Status) -> dict[str, Any]:
    return {"status": status, "statusPart": keys.status_part(status, keys.shard(failure_id))}


def _short(text: str | None) -> str | None:
    return None if not text else text.encode("utf-8", "replace").decode()[:_SHORT_TEXT]
