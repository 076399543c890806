"""`backstop redrive queue`: SQS's own way back, from a dead-letter queue to the queue it came from."""

from __future__ import annotations

import json
import time
import uuid
from typing import Annotated, Any

import typer

from cli.output import CommandError, console, put_json
from cli.session import Session
from handlers.redrive import keys

app = typer.Typer(help="Move a dead-letter queue's messages back.", no_args_is_help=True)

_EVERY_S = 1.0


@app.command()
def start(
    context: typer.Context,
    queue_arn: str,
    destination: Annotated[str | None, typer.Option(help="ARN of another queue to move to.")] = None,
    rate: Annotated[int | None, typer.Option(min=1, max=500, help="Messages a second.")] = None,
    deadline: Annotated[int | None, typer.Option(min=1, help="Seconds after which the move is cancelled.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what is there.")] = False,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Stay until it has ended.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Start `redrive-queue`, or adopt the move that runs."""
    from cli.failures import confirm

    session: Session = context.obj
    value: dict[str, Any] = {"queueArn": queue_arn, "dryRun": dry_run}
    for name, given in (("destinationArn", destination), ("maxMessagesPerSecond", rate), ("deadlineSeconds", deadline)):
        if given is not None:
            value[name] = given
    if not dry_run:
        confirm(session, f"Move the messages of {queue_arn} back? Their consumer will run.", yes)
    started = session.states.start_execution(
        stateMachineArn=session.machine("redrive-queue"), name=f"q-{uuid.uuid4().hex[:12]}", input=json.dumps(value)
    )
    execution = started["executionArn"]
    if not watch:
        put_json({"execution": execution})
        return
    while (described := session.states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(_EVERY_S)
    if described["status"] != "SUCCEEDED":
        raise CommandError(f"{described.get('error')}: {described.get('cause')}")
    output = json.loads(described["output"])
    if session.as_json:
        put_json(output)
        return
    console.print(", ".join(f"{name} {value}" for name, value in output.items()), highlight=False)
    if output.get("cameBack"):
        console.print(
            f"the queue is marked: automatic redrives are refused until `backstop redrive queue clear {queue_arn}`"
        )


@app.command()
def mark(context: typer.Context, queue_arn: str) -> None:
    """Show whether a queue is marked as poisoned, and why."""
    session: Session = context.obj
    found = session.table.get(keys.poison(queue_arn))
    reason = None if found is None else found["reason"]
    if session.as_json:
        put_json({"queueArn": queue_arn, "poison": reason})
    else:
        console.print(reason or "not marked", highlight=False)


@app.command()
def clear(context: typer.Context, queue_arn: str) -> None:
    """Take the mark off, so that automatic redrives of the queue run again."""
    session: Session = context.obj
    session.table.remove([keys.poison(queue_arn)])
    if session.as_json:
        put_json({"queueArn": queue_arn, "poison": None})
    else:
        console.print("cleared")
