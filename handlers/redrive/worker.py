"""One failure of a replay: stop? → claim → event → target → outcome. Every way out is an Outcome; only throttling is
raised, to be tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict

from handlers.redrive import keys
from handlers.redrive.events import EventGone, EventStore
from handlers.redrive.judge import Certainty, certainty, told
from handlers.redrive.ledger import Claim, Denied, Ledger, Outcome, RedriveStatus, Result
from handlers.redrive.linker import Linker
from handlers.redrive.request_model import BusTarget, FunctionTarget, QueueTarget
from handlers.redrive.table import Table
from handlers.redrive.targets import Target, Unsendable


class Throttled(RuntimeError):
    """The target took nothing for now. The state machine tries again later; the claim was given back."""


class Work(BaseModel):
    """What the state machine hands to a worker: one id, and the plan's settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    redriveId: str
    failureId: str
    phase: str
    target: FunctionTarget | QueueTarget | BusTarget
    quarantineAfter: int
    rerunAmbiguous: bool = False


class Worker:
    """Replays failures one by one. `target_of` makes the target of a piece of work, which may take `seconds` to answer."""

    def __init__(
        self,
        table: Table,
        events: EventStore,
        ledger: Ledger,
        target_of: Callable[[Work, float], Target],
    ) -> None:
        self._table = table
        self._events = events
        self._ledger = ledger
        self._linker = Linker(table)
        self._target_of = target_of

    def run(self, work: Work, seconds: float) -> dict[str, Any]:
        """Replay one failure within `seconds`, the worker's own remaining time. Returns its outcome.

        Raises Throttled; and Conflict or botocore's errors where the table itself fails: then the report finds what
        is in flight.
        """
        if reason := self._stopped(work):
            return _answer(work, Outcome.SKIPPED, reason)
        claim = self._ledger.claim(
            work.redriveId,
            work.failureId,
            seconds=seconds,
            phase=work.phase,
            quarantine_after=work.quarantineAfter,
            rerun_ambiguous=work.rerunAmbiguous,
        )
        if isinstance(claim, Denied):
            return _answer(work, Outcome.SKIPPED, claim.reason)
        return self._replay(work, claim, seconds)

    def _stopped(self, work: Work) -> str | None:
        # The next canary must see the failure of the last; elsewhere a reading half as dear will do.
        careful = work.phase == "canary"
        redrive = self._ledger.redrive(work.redriveId, consistent=careful) or self._ledger.redrive(work.redriveId)
        if redrive is None:
            return "there is no such redrive"
        if redrive["status"] != RedriveStatus.RUNNING:
            return f"the redrive is {redrive['status']}"
        if work.phase == "canary" and redrive["failed"] > redrive.get("failedBefore", 0):
            return "a canary failed"
        if redrive["failed"] - redrive.get("failedBefore", 0) > redrive["toleratedFailures"]:
            return "more replays failed than are tolerated"
        return None

    def _replay(self, work: Work, claim: Claim, seconds: float) -> dict[str, Any]:
        try:
            body = self._table.get(keys.body(work.failureId))
            event = self._events.read(body, claim.failure.get("eventSha256"))
        except EventGone as error:
            return _answer(work, self._ledger.refuse(claim, str(error)), str(error))
        except (ClientError, BotoCoreError) as error:
            self._ledger.release(claim, told(error))
            raise
        try:
            result = self._target_of(work, seconds).send(claim.failure, body or {}, event, work.redriveId)
        except Unsendable as error:
            return _answer(work, self._ledger.refuse(claim, str(error)), str(error))
        except (ClientError, BotoCoreError) as error:
            return self._not_answered(work, claim, error)
        return self._answered(work, claim, result)

    def _not_answered(self, work: Work, claim: Claim, error: Exception) -> dict[str, Any]:
        sure = certainty(error)
        if sure is Certainty.NOT_NOW:
            self._ledger.release(claim, told(error))
            raise Throttled(told(error)) from error
        if sure is Certainty.NOT_EVER:
            return _answer(work, self._ledger.refuse(claim, told(error)), told(error))
        # It may have run. It stays in flight; whoever reports finds it there and calls it ambiguous.
        self._ledger.lose(
            {"failureId": work.failureId, "redriveId": work.redriveId, "claimToken": claim.token},
        )
        return _answer(work, Outcome.AMBIGUOUS, told(error))

    def _answered(self, work: Work, claim: Claim, result: Result) -> dict[str, Any]:
        if isinstance(work.target, FunctionTarget) and result.request_id is not None:
            self._ledger.note_replay(claim, result.request_id)
            outcome = self._ledger.record(claim, result)
            self._linker.relate(result.request_id)
        else:
            outcome = self._ledger.record(claim, result)
        return _answer(work, outcome, result.error)


def _answer(work: Work, outcome: Outcome, reason: str | None) -> dict[str, Any]:
    answer = {"failureId": work.failureId, "outcome": str(outcome)}
    return answer if reason is None else {**answer, "reason": reason[:256]}
