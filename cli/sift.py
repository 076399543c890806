"""`backstop sift`: sort a dead-letter queue's messages by rules; a dry run first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import boto3
import typer
import yaml

from cli.failures import confirm
from cli.output import CommandError, console, put_json, put_table
from cli.session import Session
from handlers.redrive.sift import Places, Sift, Tally
from handlers.redrive.sift_archive import open_archive
from handlers.redrive.sift_rules import Rules

_COLUMNS = (("rule", "rule"), ("action", "action"), ("messages", "count"))


def sift(
    context: typer.Context,
    rules_file: Annotated[Path, typer.Argument(help="YAML file of rules.", exists=True, dir_okay=False)],
    queue_url: Annotated[str, typer.Argument(help="URL of the dead-letter queue.")],
    to: Annotated[str | None, typer.Option(help="URL of the queue to resend to.")] = None,
    quarantine: Annotated[str | None, typer.Option(help="URL of the queue for quarantined messages.")] = None,
    archive: Annotated[str | None, typer.Option(help="Folder or s3://bucket/prefix for every touched message.")] = None,
    run: Annotated[bool, typer.Option("--run", help="For real; without it only counted.")] = False,
    visibility: Annotated[
        int, typer.Option(min=10, max=43_200, help="Seconds that messages stay hidden at once.")
    ] = 300,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Sort a dead-letter queue's messages: resend (with changes), delete, skip or quarantine. Without --run it only counts."""
    session: Session = context.obj
    if run and archive is None:
        raise CommandError("--run needs an archive", "add --archive FOLDER or --archive s3://bucket/prefix", 2)
    try:
        rules = Rules.model_validate(yaml.safe_load(rules_file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise CommandError(f"{rules_file} is not YAML: {error}", code=2) from None
    client = boto3.client("sqs")
    places = Places(queue_url, to, quarantine)
    try:
        counting = Sift(client, places, rules, None, visibility_s=visibility)
        if not run:
            _tell(session, counting.run(), "would be done")
            return
        confirm(session, f"Sift {queue_url} for real?", yes)
        for_real = Sift(
            client,
            places,
            rules,
            open_archive(archive or "", lambda: boto3.client("s3")),
            visibility_s=visibility,
        )
    except ValueError as error:
        raise CommandError(str(error), "see --to and --quarantine", 2) from None
    _tell(session, for_real.run(), "done")


def _tell(session: Session, tally: Tally, title: str) -> None:
    if session.as_json:
        put_json(tally.shown())
        return
    rows = [{"rule": rule, "action": action, "count": count} for (rule, action), count in sorted(tally.done.items())]
    put_table(f"{sum(tally.done.values())} messages {title}", _COLUMNS, rows)
    for what, count in (tally.failed + tally.notes).items():
        console.print(f"{count} {what}", highlight=False)
