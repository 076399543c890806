"""The command itself: options that all commands share, and the one place where errors become messages."""

from __future__ import annotations

from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from cli import failures, groups, redrive
from cli.output import CommandError, fail
from cli.session import Session
from cli.sift import sift

app = typer.Typer(
    name="backstop",
    help="Captured Lambda failures: look at them, and drive them back when the cause is fixed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(failures.app, name="failures")
app.add_typer(groups.app, name="groups")
app.add_typer(redrive.app, name="redrive")
app.command()(sift)


@app.callback()
def options(
    context: typer.Context,
    table: Annotated[str | None, typer.Option(envvar="BACKSTOP_TABLE", help="The DynamoDB table of failures.")] = None,
    bucket: Annotated[
        str | None, typer.Option(envvar="BACKSTOP_BUCKET", help="The bucket of large events and reports.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables; one value a line.")] = False,
) -> None:
    """AWS profile, region and AWS_ENDPOINT_URL are read as by every AWS tool."""
    context.obj = Session(table, bucket, as_json)


def main(arguments: list[str] | None = None) -> None:
    """Run the command, and end the process with its exit code: 0 done, 1 not done, 2 asked wrongly."""
    try:
        app(args=arguments)
    except (CommandError, ValidationError, ClientError, BotoCoreError) as error:
        fail(error)
