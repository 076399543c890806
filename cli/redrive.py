"""`backstop redrive`: plan, start, watch, cancel, resume, list, show; and `redrive queue` for dead-letter queues."""

from __future__ import annotations

import json
import time
import uuid
from typing import Annotated, Any

import boto3
import typer

from cli import queue
from cli.failures import Function, Group, Since, Statuses, Until, confirm, when
from cli.output import CommandError, console, put_json, put_table
from cli.session import Session, plain
from cli.watch import follow, tell_report
from handlers.redrive.ledger import RedriveStatus
from handlers.redrive.planner import preview
from handlers.redrive.replay import is_running
from handlers.redrive.report import Reporter
from handlers.redrive.request_model import ReplayRequest
from handlers.redrive.views import summary

app = typer.Typer(help="Replays of captured failures, and moves of dead-letter queues.", no_args_is_help=True)
app.add_typer(queue.app, name="queue")

_COLUMNS = (
    ("created", "createdAt"),
    ("redrive", "redriveId"),
    ("status", "status"),
    ("planned", "planned"),
    ("resolved", "resolved"),
    ("failed", "failed"),
    ("ambiguous", "ambiguous"),
    ("by", "by"),
)

Ids = Annotated[list[str] | None, typer.Option("--id", help="This failure; may be given several times.")]
Where = Annotated[str | None, typer.Option(help="JMESPath over the event; only where it holds.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")]
Qualifier = Annotated[str | None, typer.Option(help="Version or alias to invoke, instead of the one that failed.")]
ToFunction = Annotated[str | None, typer.Option(help="ARN of another function to invoke.")]
ToQueue = Annotated[str | None, typer.Option(help="URL of a queue to send the events to instead.")]
ToBus = Annotated[str | None, typer.Option(help="Name of an event bus to put the events on instead.")]
Asynchronous = Annotated[bool, typer.Option("--async", help="Hand the events over; do not wait for each answer.")]
Canary = Annotated[int, typer.Option(min=0, help="So many first; if one fails, the rest is left alone.")]
Concurrency = Annotated[int, typer.Option(min=1, help="So many at once.")]
Rate = Annotated[float | None, typer.Option(help="So many a second at most.")]
Tolerate = Annotated[float, typer.Option(min=0, max=100, help="Percent that may fail before the rest is left alone.")]
QuarantineAfter = Annotated[int, typer.Option(min=1, help="Failed replays after which a failure is quarantined.")]
Force = Annotated[bool, typer.Option(help="Also cut or redacted events, and those that AWS may still retry.")]
ConfirmUnknown = Annotated[bool, typer.Option(help="Also direct invocations, whose caller may have retried.")]
RerunAmbiguous = Annotated[bool, typer.Option(help="Also those of which nobody knows whether they ran.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _request(**given: Any) -> ReplayRequest:
    target: dict[str, Any] = {"kind": "function"}
    if given["to_queue"]:
        target = {"kind": "queue", "url": given["to_queue"]}
    elif given["to_bus"]:
        target = {"kind": "bus", "name": given["to_bus"]}
    else:
        target |= {
            "function": given["to_function"],
            "qualifier": given["qualifier"],
            "asynchronous": given["asynchronous"],
        }
    return ReplayRequest.model_validate(
        {
            "select": {
                "ids": given["ids"] or None,
                "group": given["group"],
                "function": given["function"],
                "since": when(given["since"], "--since"),
                "until": when(given["until"], "--until"),
                "where": given["where"],
                "statuses": given["statuses"] or None,
                "limit": given["limit"],
            },
            "target": target,
            "canary": given["canary"],
            "concurrency": given["concurrency"],
            "ratePerSecond": given["rate"],
            "toleratedFailurePercent": given["tolerate"],
            "quarantineAfter": given["quarantine_after"],
            "force": given["force"],
            "confirmUnknown": given["confirm_unknown"],
            "rerunAmbiguous": given["rerun_ambiguous"],
        }
    )


@app.command()
def plan(
    context: typer.Context,
    ids: Ids = None,
    group: Group = None,
    function: Function = None,
    since: Since = None,
    until: Until = None,
    where: Where = None,
    statuses: Statuses = None,
    limit: Limit = None,
    qualifier: Qualifier = None,
    to_function: ToFunction = None,
    to_queue: ToQueue = None,
    to_bus: ToBus = None,
    asynchronous: Asynchronous = False,
    force: Force = False,
    confirm_unknown: ConfirmUnknown = False,
    rerun_ambiguous: RerunAmbiguous = False,
) -> None:
    """What a replay would run, and what not and why. Runs nothing."""
    session: Session = context.obj
    request = _request(**_given(locals()), canary=1, concurrency=10, rate=None, tolerate=10, quarantine_after=3)
    found = preview(session.table, session.events, request, time.time())
    if session.as_json:
        put_json({"summary": found.summary, "refused": found.refused})
    else:
        _tell_plan(found.summary)


def _given(names: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name not in ("context", "session")}


def _tell_plan(found: dict[str, Any]) -> None:
    console.print(f"{found['planned']} of {found['selected']} failures would be replayed", highlight=False)
    if found["planned"]:
        console.print(
            f"  into {', '.join(found['functions'])}; seen {found['oldest']} to {found['newest']}; "
            f"{found['bytes']} bytes, the largest {found['largestBytes']}",
            highlight=False,
        )
    for reason, count in found["reasons"].items():
        console.print(f"  {count} not: {reason}", highlight=False)


@app.command()
def start(
    context: typer.Context,
    ids: Ids = None,
    group: Group = None,
    function: Function = None,
    since: Since = None,
    until: Until = None,
    where: Where = None,
    statuses: Statuses = None,
    limit: Limit = None,
    qualifier: Qualifier = None,
    to_function: ToFunction = None,
    to_queue: ToQueue = None,
    to_bus: ToBus = None,
    asynchronous: Asynchronous = False,
    canary: Canary = 1,
    concurrency: Concurrency = 10,
    rate: Rate = None,
    tolerate: Tolerate = 10,
    quarantine_after: QuarantineAfter = 3,
    force: Force = False,
    confirm_unknown: ConfirmUnknown = False,
    rerun_ambiguous: RerunAmbiguous = False,
    yes: Yes = False,
    watch_it: Annotated[bool, typer.Option("--watch/--no-watch", help="Stay until it has ended.")] = True,
) -> None:
    """Replay failures: a canary first, then the rest."""
    session: Session = context.obj
    request = _request(**{name: value for name, value in _given(locals()).items() if name not in ("yes", "watch_it")})
    found = preview(session.table, session.events, request, time.time())
    if not session.as_json:
        _tell_plan(found.summary)
    if not found.ids:
        raise CommandError("there is nothing to replay", "`backstop redrive plan` tells why")
    confirm(session, f"Run {found.summary['planned']} events through {', '.join(found.summary['functions'])}?", yes)
    redrive_id = f"r-{uuid.uuid4().hex[:12]}"
    value = {**request.model_dump(mode="json", exclude_none=True), "redriveId": redrive_id}
    _execute(session, redrive_id, value, watch_it)


def _execute(session: Session, redrive_id: str, value: dict[str, Any], watch_it: bool) -> None:
    name = f"{redrive_id}-{uuid.uuid4().hex[:6]}"
    started = session.states.start_execution(
        stateMachineArn=session.machine("redrive-replay"), name=name, input=json.dumps(value)
    )
    if not watch_it:
        if session.as_json:
            put_json({"redriveId": redrive_id, "execution": started["executionArn"]})
        else:
            console.print(f"started {redrive_id}: `backstop redrive watch {redrive_id}`", highlight=False)
        return
    follow(session, redrive_id, started["executionArn"])


@app.command()
def watch(context: typer.Context, redrive_id: str) -> None:
    """Follow a redrive until it ends."""
    session: Session = context.obj
    follow(session, redrive_id, _redrive(session, redrive_id)["execution"])


@app.command()
def cancel(
    context: typer.Context,
    redrive_id: str,
    now: Annotated[
        bool, typer.Option("--now", help="Also stop the execution; what is in flight becomes ambiguous.")
    ] = False,
) -> None:
    """Stop a redrive: no further event is started, those in flight end."""
    session: Session = context.obj
    found = _redrive(session, redrive_id)
    if not session.ledger.cancel(redrive_id) and found["status"] != RedriveStatus.CANCELLING:
        raise CommandError(f"redrive {redrive_id} is {found['status']}: there is nothing to cancel")
    if now:
        session.states.stop_execution(
            executionArn=found["execution"], error="Redrive.Cancelled", cause="backstop redrive cancel"
        )
        _tell_settled(session, _settle(session, redrive_id, ""))
        return
    if session.as_json:
        put_json({"redriveId": redrive_id, "status": str(RedriveStatus.CANCELLING)})
    else:
        console.print(f"redrive {redrive_id} is being cancelled", highlight=False)


@app.command()
def settle(context: typer.Context, redrive_id: str) -> None:
    """Close the books of a redrive whose execution has ended before its report: what is in flight becomes ambiguous."""
    session: Session = context.obj
    found = _redrive(session, redrive_id)
    if is_running(found["execution"]):
        raise CommandError(f"redrive {redrive_id} is still running", f"`backstop redrive cancel {redrive_id}` stops it")
    _tell_settled(session, _settle(session, redrive_id, "its execution ended before its report"))


def _settle(session: Session, redrive_id: str, ending: str) -> dict[str, Any]:
    if session.bucket is None:
        raise CommandError(
            "the bucket is not known", "give --bucket, or set BACKSTOP_BUCKET (output BucketName of the stack)"
        )
    return Reporter(session.ledger, boto3.client("s3"), session.bucket, time.time).report(redrive_id, ending)


def _tell_settled(session: Session, report: dict[str, Any]) -> None:
    if session.as_json:
        put_json(report)
    else:
        tell_report(report)


@app.command()
def resume(
    context: typer.Context,
    redrive_id: str,
    rerun_ambiguous: RerunAmbiguous = False,
    yes: Yes = False,
    watch_it: Annotated[bool, typer.Option("--watch/--no-watch", help="Stay until it has ended.")] = True,
) -> None:
    """Go on with a redrive that was stopped or cut off. Nothing that has an outcome runs again."""
    session: Session = context.obj
    found = _redrive(session, redrive_id)
    confirm(session, f"Go on with {redrive_id} ({found['summary']['planned']} planned)?", yes)
    _execute(session, redrive_id, {"resume": redrive_id, "rerunAmbiguous": rerun_ambiguous}, watch_it)


@app.command("list")
def list_redrives(context: typer.Context, limit: Annotated[int, typer.Option(min=1, max=1000)] = 20) -> None:
    """Redrives, newest first."""
    session: Session = context.obj
    found = []
    for item in session.ledger.redrives():
        found.append(summary(item))
        if len(found) == limit:
            break
    if session.as_json:
        put_json({"redrives": found})
        return
    rows = [
        {**one, **one.get("report", {}), "planned": one["summary"]["planned"], "by": one["request"].get("requestedBy")}
        for one in found
    ]
    put_table(f"{len(found)} redrives", _COLUMNS, rows)


@app.command()
def show(context: typer.Context, redrive_id: str) -> None:
    """One redrive: request, plan, report, and what is ambiguous."""
    session: Session = context.obj
    found = plain(summary(_redrive(session, redrive_id)))
    if session.as_json:
        put_json(found)
    else:
        console.print_json(json.dumps(found))


def _redrive(session: Session, redrive_id: str) -> dict[str, Any]:
    found = session.ledger.redrive(redrive_id)
    if found is None:
        raise CommandError(f"there is no redrive {redrive_id}", "`backstop redrive list` shows those there are")
    return found
