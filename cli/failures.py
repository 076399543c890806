"""`backstop failures`: list, show, export, purge, release."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import CommandError, console, put_json, put_table
from cli.session import Session
from handlers.redrive import views
from handlers.redrive.dates import iso, seconds
from handlers.redrive.states import Status

app = typer.Typer(help="Captured failures.", no_args_is_help=True)

_COLUMNS = (
    ("seen", "timestamp"),
    ("id", "failureId"),
    ("function", "function"),
    ("condition", "condition"),
    ("status", "status"),
    ("error", "errorType"),
    ("group", "fingerprint"),
    ("owner", "retryOwner"),
    ("bytes", "eventBytes"),
)
Group = Annotated[str | None, typer.Option(help="16 hex digits: only failures of this cause.")]
Function = Annotated[str | None, typer.Option(help="Only failures of this function.")]
Statuses = Annotated[list[Status] | None, typer.Option("--status", help="Only these; may be given several times.")]
Since = Annotated[str | None, typer.Option(help="ISO 8601 time: seen at or after it.")]
Until = Annotated[str | None, typer.Option(help="ISO 8601 time: seen at or before it.")]


def when(text: str | None, option: str) -> str | None:
    """Return a time as the table holds it."""
    if text is None:
        return None
    try:
        return iso(seconds(text))
    except ValueError:
        raise CommandError(
            f"{option}: {text!r} is not an ISO 8601 time", "write it like 2026-11-24T16:00:00Z", 2
        ) from None


def wanted(
    group: str | None, function: str | None, statuses: list[Status] | None, since: str | None, until: str | None
) -> views.Filter:
    """Return the options as a filter."""
    return views.Filter(
        group=group,
        function=function,
        statuses=tuple(map(str, statuses or ())),
        since=when(since, "--since"),
        until=when(until, "--until"),
    )


@app.command("list")
def list_failures(
    context: typer.Context,
    group: Group = None,
    function: Function = None,
    status: Statuses = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the former page ended.")] = None,
) -> None:
    """Failures, newest first."""
    session: Session = context.obj
    page = views.failures(session.table, wanted(group, function, status, since, until), limit, cursor)
    if session.as_json:
        put_json({"failures": page.items, "cursor": page.cursor})
        return
    put_table(f"{len(page.items)} failures", _COLUMNS, page.items)
    if page.cursor:
        console.print(f"more: --cursor '{page.cursor}'", highlight=False, soft_wrap=True)


@app.command()
def show(context: typer.Context, failure_id: str) -> None:
    """One failure with its error, logs and event; secrets are masked."""
    session: Session = context.obj
    found = _failure(session, failure_id, masked=True)
    if session.as_json:
        put_json(found)
    else:
        console.print_json(views.as_line(found))


def _failure(session: Session, failure_id: str, *, masked: bool) -> dict[str, Any]:
    found = views.failure(session.table, session.events, failure_id, masked=masked)
    if found is None:
        raise CommandError(f"there is no failure {failure_id}", "`backstop failures list` shows those there are")
    return found


@app.command()
def export(
    context: typer.Context,
    to: Annotated[Path | None, typer.Option(help="File to write; standard output without it.")] = None,
    group: Group = None,
    function: Function = None,
    status: Statuses = None,
    since: Since = None,
    until: Until = None,
    payloads: Annotated[bool, typer.Option(help="Events as they are, secrets and all (base64).")] = False,
) -> None:
    """Failures as JSON lines, with their events masked, or whole with --payloads."""
    session: Session = context.obj
    stream = sys.stdout if to is None else to.open("w", encoding="utf-8")
    count = 0
    try:
        for item in views.all_failures(session.table, wanted(group, function, status, since, until)):
            found = views.failure(session.table, session.events, item["failureId"], masked=not payloads)
            if found is None:
                continue
            if payloads and isinstance(found["event"], bytes):
                found["event"] = {"base64": base64.b64encode(found["event"]).decode()}
            stream.write(json.dumps(found, ensure_ascii=False, default=str) + "\n")
            count += 1
    finally:
        if to is not None:
            stream.close()
    if to is not None:
        if session.as_json:
            put_json({"exported": count, "to": str(to)})
        else:
            console.print(f"{count} failures written to {to}", highlight=False)


@app.command()
def purge(
    context: typer.Context,
    failure_ids: Annotated[list[str] | None, typer.Argument()] = None,
    group: Annotated[str | None, typer.Option(help="Purge a whole group.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete failures and their events for good."""
    session: Session = context.obj
    if bool(failure_ids) == bool(group):
        raise CommandError("name failures, or a group with --group, not both", code=2)
    what = f"group {group}" if group else f"{len(failure_ids or [])} failures"
    confirm(session, f"Delete {what} with their events for good?", yes)
    if group:
        purged, left = views.purge_group(session.table, session.events, group)
    else:
        purged, left = views.purge(session.table, session.events, failure_ids or [])
    if session.as_json:
        put_json({"purged": purged, "inFlight": left})
    else:
        console.print(f"{purged} purged" + (f", {len(left)} left: they are in flight" if left else ""))


@app.command()
def release(context: typer.Context, failure_ids: list[str]) -> None:
    """Let quarantined, failed or ambiguous failures be replayed again, as if newly captured."""
    session: Session = context.obj
    done = {failure_id: session.ledger.reopen(failure_id) for failure_id in failure_ids}
    if session.as_json:
        put_json(
            {"released": [one for one, ok in done.items() if ok], "not": [one for one, ok in done.items() if not ok]}
        )
        return
    for failure_id, ok in done.items():
        console.print(
            f"{failure_id}: {'released' if ok else 'not there, or in no state to be released'}", highlight=False
        )


def confirm(session: Session, question: str, yes: bool) -> None:
    """Ask, unless it was said already. Raises CommandError where nobody can answer, or the answer is no."""
    if yes:
        return
    if session.as_json or not sys.stdin.isatty():
        raise CommandError("nobody is there to confirm", "add --yes if you mean it", 2)
    if not typer.confirm(question):
        raise CommandError("nothing was done", code=1)
