"""`backstop groups`: list, show, and what a person says of them."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cli.output import CommandError, console, put_json, put_table
from cli.session import Session
from handlers.redrive import views
from handlers.redrive.groups import GroupStatus

app = typer.Typer(help="Failures of one cause.", no_args_is_help=True)

_COLUMNS = (
    ("group", "fingerprint"),
    ("status", "status"),
    ("count", "count"),
    ("function", "function"),
    ("condition", "condition"),
    ("error", "errorType"),
    ("message", "errorMessage"),
    ("first", "firstSeen"),
    ("last", "lastSeen"),
)


@app.command("list")
def list_groups(
    context: typer.Context,
    status: Annotated[list[GroupStatus] | None, typer.Option(help="Only these; may be given several times.")] = None,
) -> None:
    """Groups, the one seen last first."""
    session: Session = context.obj
    found = views.all_groups(session.table, status or tuple(GroupStatus))
    if session.as_json:
        put_json({"groups": found})
    else:
        put_table(f"{len(found)} groups", _COLUMNS, found)


@app.command()
def show(context: typer.Context, fingerprint: str) -> None:
    """One group with its counts."""
    session: Session = context.obj
    found = views.group(session.table, fingerprint)
    if found is None:
        raise CommandError(f"there is no group {fingerprint}", "`backstop groups list` shows those there are")
    if session.as_json:
        put_json(found)
    else:
        console.print_json(views.as_line(found))


@app.command()
def resolve(context: typer.Context, fingerprint: str) -> None:
    """The cause is fixed: the group opens again with its next failure."""
    _set(context.obj, fingerprint, GroupStatus.RESOLVED)


@app.command()
def mute(context: typer.Context, fingerprint: str) -> None:
    """Known, and not to be shown as open."""
    _set(context.obj, fingerprint, GroupStatus.MUTED)


@app.command("open")
def open_group(context: typer.Context, fingerprint: str) -> None:
    """To be looked at."""
    _set(context.obj, fingerprint, GroupStatus.OPEN)


def _set(session: Session, fingerprint: str, status: GroupStatus) -> None:
    if not views.set_group(session.table, fingerprint, status, time.time()):
        raise CommandError(f"there is no group {fingerprint}", "`backstop groups list` shows those there are")
    if session.as_json:
        put_json({"fingerprint": fingerprint, "status": str(status)})
    else:
        console.print(f"{fingerprint} is {status}", highlight=False)
