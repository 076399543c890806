"""Follows a redrive: counts, rate and the time that is left."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.output import CommandError, console, put_json
from cli.session import Session
from handlers.redrive.ledger import Outcome

_EVERY_S = 1.0
_ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


def follow(session: Session, redrive_id: str, execution: str) -> None:
    """Stay until an execution has ended. Raises CommandError where it did not succeed."""
    began = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        disable=session.as_json or not console.is_terminal,
    ) as progress:
        task = progress.add_task(redrive_id, total=None, rate="")
        while True:
            described = session.states.describe_execution(executionArn=execution)
            counts, planned = _counts(session, redrive_id)
            done = sum(counts.values()) - counts[Outcome.INFLIGHT]
            rate = done / max(0.001, time.monotonic() - began)
            progress.update(
                task,
                total=planned,
                completed=done,
                description=f"{redrive_id} {_words(counts)}",
                rate=f"{rate:.1f}/s",
            )
            if session.as_json:
                put_json(
                    {"redriveId": redrive_id, "planned": planned, "counts": dict(counts), "perSecond": round(rate, 2)}
                )
            if described["status"] in _ENDED:
                break
            time.sleep(_EVERY_S)
    _tell_end(session, redrive_id, dict(described))


def _counts(session: Session, redrive_id: str) -> tuple[Counter[str], int | None]:
    redrive = session.ledger.redrive(redrive_id, consistent=False)
    if redrive is None:
        return Counter(), None
    return Counter(str(entry["outcome"]) for entry in session.ledger.entries(redrive_id)), redrive["summary"]["planned"]


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))


def _tell_end(session: Session, redrive_id: str, described: dict[str, Any]) -> None:
    redrive = session.ledger.redrive(redrive_id) or {}
    report = redrive.get("report")
    if session.as_json:
        put_json({"redriveId": redrive_id, "execution": described["status"], "report": report})
    elif report:
        tell_report({**report, "ambiguousIds": redrive.get("ambiguousIds") or []})
    if described["status"] == "SUCCEEDED":
        return
    why = (report or {}).get("why") or described.get("cause") or described["status"]
    step = f"look at `backstop failures list --status failed`, then `backstop redrive resume {redrive_id}`"
    raise CommandError(f"redrive {redrive_id} did not complete: {why}", step if report else "")


def tell_report(report: dict[str, Any]) -> None:
    """Print a report for people."""
    console.print(
        f"{report['redriveId']} {report['status']}: {report['resolved']} resolved, {report['failed']} failed, "
        f"{report['quarantined']} quarantined, {report['ambiguous']} ambiguous, {report['notRun']} not run",
        highlight=False,
    )
    for failure_id in report["ambiguousIds"]:
        console.print(f"  ambiguous: {failure_id}", highlight=False)
