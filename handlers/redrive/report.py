"""The end of a redrive: what is still in flight becomes ambiguous, everything is counted, and the report is kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from handlers.redrive.dates import iso
from handlers.redrive.ledger import Ledger, Outcome, RedriveStatus
from handlers.redrive.planner import PREFIX, settle

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_SHOWN = 100


class Reporter:
    """Makes reports. `clock` gives seconds since 1970."""

    def __init__(self, ledger: Ledger, s3: S3Client, bucket: str, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._s3 = s3
        self._bucket = bucket
        self._clock = clock

    def report(self, redrive_id: str, ending: str) -> dict[str, Any]:
        """Settle and count a redrive whose workers have ended. `ending` is why it ended before its plan, or empty.

        May be called again: the same redrive gives the same report, but for outcomes that came late. Raises KeyError
        for no such redrive.
        """
        settled = settle(self._ledger, redrive_id)
        redrive = self._ledger.redrive(redrive_id)
        if redrive is None:
            raise KeyError(redrive_id)
        counts = Counter(settled.values())
        planned = redrive["summary"]["planned"]
        done = sum(counts[one] for one in (Outcome.RESOLVED, Outcome.FAILED, Outcome.QUARANTINED, Outcome.REFUSED))
        ambiguous = sorted(one for one, outcome in settled.items() if outcome == Outcome.AMBIGUOUS)
        left = planned - done - len(ambiguous)
        status, why = _status(redrive, left, ending)
        report = {
            "redriveId": redrive_id,
            "status": str(status),
            "why": why,
            "planned": planned,
            "refused": redrive["summary"]["refused"],
            "resolved": counts[Outcome.RESOLVED],
            "failed": counts[Outcome.FAILED],
            "quarantined": counts[Outcome.QUARANTINED],
            "notTaken": counts[Outcome.REFUSED],
            "ambiguous": len(ambiguous),
            "notRun": left,
            "endedAt": iso(self._clock()),
        }
        key = f"{PREFIX}{redrive_id}/report.json"
        whole = {**report, "summary": redrive["summary"], "outcomes": settled, "ambiguousIds": ambiguous}
        self._s3.put_object(
            Bucket=self._bucket, Key=key, Body=json.dumps(whole).encode(), ContentType="application/json"
        )
        self._ledger.update(redrive_id, status=status, report=report, ambiguousIds=ambiguous[:_SHOWN], reportKey=key)
        return {**report, "ambiguousIds": ambiguous[:_SHOWN], "report": {"bucket": self._bucket, "key": key}}


def _status(redrive: dict[str, Any], left: int, ending: str) -> tuple[RedriveStatus, str | None]:
    if redrive["status"] in (RedriveStatus.CANCELLING, RedriveStatus.CANCELLED):
        return RedriveStatus.CANCELLED, "cancelled"
    if ending == "canary":
        return RedriveStatus.STOPPED, "a canary did not succeed: the rest was left alone"
    if ending:
        return RedriveStatus.FAILED, ending[:512]
    failed = redrive["failed"] - redrive.get("failedBefore", 0)
    if left > 0 and failed > redrive["toleratedFailures"]:
        return RedriveStatus.STOPPED, "more replays failed than are tolerated"
    return RedriveStatus.COMPLETED, None
