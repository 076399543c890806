"""The plan of a replay: which failures, which not and why, how many first. Made once per redrive and kept in S3; a
resumed redrive goes on with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handlers.redrive import keys
from handlers.redrive.dates import iso
from handlers.redrive.eligibility import refusal
from handlers.redrive.events import EventStore
from handlers.redrive.ledger import FINAL, Ledger, Outcome, RedriveStatus
from handlers.redrive.request_model import ReplayRequest, ResumeRequest
from handlers.redrive.selection import select
from handlers.redrive.table import Table

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_REFUSED_SHOWN = 20
PREFIX = "redrives/"


class NotPlanned(ValueError):
    """The redrive cannot be planned or resumed; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Ids to replay, oldest first, and for each of the others the reason."""

    ids: list[str]
    refused: dict[str, str]


def choose(failures: Iterable[Mapping[str, Any]], request: ReplayRequest, now: float) -> Chosen:
    """Return which failures (oldest first) may be replayed. Of several attempts of one request the last is."""
    failures = list(failures)
    last = {item["requestId"]: item["failureId"] for item in failures if item.get("whole")}
    ids: list[str] = []
    refused: dict[str, str] = {}
    for item in failures:
        reason = refusal(item, request, now)
        if reason is None and item.get("whole") and last[item["requestId"]] != item["failureId"]:
            reason = "a later attempt of the same request stands for it"
        if reason is None:
            ids.append(item["failureId"])
        else:
            refused[item["failureId"]] = reason
    return Chosen(ids, refused)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a request would do."""

    ids: list[str]
    refused: dict[str, str]
    summary: dict[str, Any]


def preview(table: Table, events: EventStore, request: ReplayRequest, now: float) -> Preview:
    """Return what a request would do now. Reads only. `now` in seconds since 1970."""
    selected = select(table, events, request.select)
    chosen = choose(selected.failures, request, now)
    refused = chosen.refused | dict.fromkeys(selected.missing, "there is no such failure")
    planned = set(chosen.ids)
    items = [item for item in selected.failures if item["failureId"] in planned]
    times = [item["timestamp"] for item in items]
    sizes = [item.get("eventBytes") or 0 for item in items]
    summary = {
        "selected": len(selected.failures),
        "planned": len(items),
        "refused": len(refused),
        "reasons": dict(Counter(refused.values()).most_common(_REFUSED_SHOWN)),
        "refusedIds": sorted(refused)[:_REFUSED_SHOWN],
        "oldest": min(times, default=None),
        "newest": max(times, default=None),
        "bytes": sum(sizes),
        "largestBytes": max(sizes, default=0),
        "functions": sorted({item["function"] for item in items})[:_REFUSED_SHOWN],
        "plannedAt": iso(now),
    }
    return Preview(chosen.ids, refused, summary)


class Planner:
    """Makes plans. `is_running` tells whether an execution (ARN) still runs; `clock` gives seconds since 1970."""

    def __init__(
        self,
        table: Table,
        events: EventStore,
        ledger: Ledger,
        s3: S3Client,
        bucket: str,
        is_running: Callable[[str], bool],
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._events = events
        self._ledger = ledger
        self._s3 = s3
        self._bucket = bucket
        self._is_running = is_running
        self._clock = clock

    def plan(self, request: ReplayRequest | ResumeRequest, execution: str, default_id: str) -> dict[str, Any]:
        """Return the plan as the state machine takes it; at most a few KB, the ids are in S3. Raises NotPlanned."""
        if isinstance(request, ResumeRequest):
            return self._resume(request, execution)
        return self._new(request, execution, request.redriveId or default_id)

    # --- a new redrive --------------------------------------------------------------------------------------------------

    def _new(self, request: ReplayRequest, execution: str, redrive_id: str) -> dict[str, Any]:
        known = self._ledger.redrive(redrive_id)
        # The same execution asks again only where the answer to its first asking was lost: nothing has run yet.
        if known is not None and known["execution"] != execution:
            raise NotPlanned(f"there is a redrive {redrive_id} already: resume it, or choose another id")
        found = preview(self._table, self._events, request, self._clock())
        canary = found.ids[: request.canary]
        tolerated = int(len(found.ids) * request.toleratedFailurePercent / 100)
        item = {
            "redriveId": redrive_id,
            "kind": "replay",
            "status": RedriveStatus.PLANNED if request.dryRun else RedriveStatus.RUNNING,
            "request": request.model_dump(mode="json", exclude_none=True),
            "summary": found.summary,
            "toleratedFailures": tolerated,
            "execution": execution,
        }
        self._put(redrive_id, "plan.json", {"ids": found.ids, "refused": found.refused})
        if known is not None:
            self._ledger.update(redrive_id, summary=found.summary, toleratedFailures=tolerated)
        elif not self._ledger.open(item):
            raise NotPlanned(f"there is a redrive {redrive_id} already: resume it, or choose another id")
        return self._answer(redrive_id, request, found.summary, canary, found.ids[len(canary) :], tolerated)

    # --- one that goes on -----------------------------------------------------------------------------------------------

    def _resume(self, wanted: ResumeRequest, execution: str) -> dict[str, Any]:
        redrive_id = wanted.resume
        redrive = self._ledger.redrive(redrive_id)
        if redrive is None or redrive["kind"] != "replay":
            raise NotPlanned(f"there is no replay {redrive_id}")
        former = redrive["execution"]
        if former != execution and self._is_running(former):
            raise NotPlanned(f"redrive {redrive_id} is still running ({former}): cancel it first")
        request = ReplayRequest.model_validate(
            {**redrive["request"], "redriveId": redrive_id, "dryRun": False}
            | ({"rerunAmbiguous": True} if wanted.rerunAmbiguous else {})
        )
        settled = settle(self._ledger, redrive_id)
        plan = json.loads(self._s3.get_object(Bucket=self._bucket, Key=_key(redrive_id, "plan.json"))["Body"].read())
        done = {
            failure_id
            for failure_id, outcome in settled.items()
            if outcome in FINAL or (outcome == Outcome.AMBIGUOUS and not request.rerunAmbiguous)
        }
        heads = self._table.get_many([keys.failure(one) for one in plan["ids"] if one not in done])
        order = {failure_id: position for position, failure_id in enumerate(plan["ids"])}
        failures = sorted(heads, key=lambda item: order[item["failureId"]])
        chosen = choose(failures, request, self._clock())
        passed = any(outcome == Outcome.RESOLVED for outcome in settled.values())
        canary = [] if passed else chosen.ids[: request.canary]
        self._ledger.update(
            redrive_id,
            status=RedriveStatus.RUNNING,
            execution=execution,
            failedBefore=redrive["failed"],
            resumedAt=iso(self._clock()),
        )
        return self._answer(
            redrive_id,
            request,
            {**redrive["summary"], "resumed": len(chosen.ids)},
            canary,
            chosen.ids[len(canary) :],
            redrive["toleratedFailures"],
        )

    # --- both -----------------------------------------------------------------------------------------------------------

    def _answer(
        self,
        redrive_id: str,
        request: ReplayRequest,
        summary: dict[str, Any],
        canary: list[str],
        rest: list[str],
        tolerated: int,
    ) -> dict[str, Any]:
        self._put(redrive_id, "rest.json", rest)
        return {
            "redriveId": redrive_id,
            "dryRun": request.dryRun,
            "summary": summary,
            "canary": canary,
            "rest": {"bucket": self._bucket, "key": _key(redrive_id, "rest.json"), "count": len(rest)},
            "concurrency": request.concurrency,
            "interval": 0 if request.ratePerSecond is None else 1 / request.ratePerSecond,
            "toleratedFailures": tolerated,
            "work": {
                "target": request.target.model_dump(mode="json", exclude_none=True),
                "quarantineAfter": request.quarantineAfter,
                "rerunAmbiguous": request.rerunAmbiguous,
            },
        }

    def _put(self, redrive_id: str, name: str, value: Any) -> None:
        self._s3.put_object(
            Bucket=self._bucket,
            Key=_key(redrive_id, name),
            Body=json.dumps(value, separators=(",", ":")).encode(),
            ContentType="application/json",
        )


def _key(redrive_id: str, name: str) -> str:
    return f"{PREFIX}{redrive_id}/{name}"


def settle(ledger: Ledger, redrive_id: str) -> dict[str, str]:
    """Call ambiguous what is still in flight in a redrive whose workers are gone. Returns every entry's outcome by
    failure id.

    A worker taken for dead that comes back can still record its outcome: the claim's token is its own.
    """
    outcomes: dict[str, str] = {}
    for entry in ledger.entries(redrive_id):
        outcome = entry["outcome"]
        if outcome == Outcome.INFLIGHT and ledger.lose(entry):
            outcome = Outcome.AMBIGUOUS
        outcomes[entry["failureId"]] = str(outcome)
    return outcomes
