"""How the command speaks: tables for people, JSON for programs, errors with a next step."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
)
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table as RichTable

from handlers.redrive.views import as_line

console = Console()
errors = Console(stderr=True)


class CommandError(Exception):
    """Ends the command with a message and what to do next."""

    def __init__(self, message: str, next_step: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.next_step = next_step
        self.code = code


def put_json(value: Any) -> None:
    """Print one JSON value on one line."""
    if isinstance(value, Mapping):
        print(as_line(value))
    else:
        print(json.dumps(value, default=str, ensure_ascii=False))


def put_table(title: str, columns: Sequence[tuple[str, str]], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print rows; `columns` are headings and the attribute under each."""
    table = RichTable(title=title, title_justify="left", header_style="bold")
    for heading, _ in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for _, name in columns))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def fail(error: Exception) -> NoReturn:
    """Tell an error and what to do about it, and end with its code."""
    message, next_step, code = explain(error)
    errors.print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
    if next_step:
        errors.print(f"  {next_step}", highlight=False, soft_wrap=True)
    sys.exit(code)


def explain(error: Exception) -> tuple[str, str, int]:
    """Return an error's message, the next step and the exit code."""
    if isinstance(error, CommandError):
        return str(error), error.next_step, error.code
    if isinstance(error, ValidationError):
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)
        )
        return faults, "see --help for what each option takes", 2
    if isinstance(error, NoCredentialsError):
        return "no AWS credentials were found", "log in, or set AWS_PROFILE", 1
    if isinstance(error, NoRegionError):
        return "no AWS region is set", "set AWS_REGION, or give your profile one", 1
    if isinstance(error, EndpointConnectionError):
        return "AWS cannot be reached", "check the network, AWS_REGION and AWS_ENDPOINT_URL", 1
    if isinstance(error, ClientError):
        return _of_aws(error)
    assert isinstance(error, BotoCoreError)
    return f"{type(error).__name__}: {error}", "try again; if it stays, check AWS_REGION and AWS_ENDPOINT_URL", 1


def _of_aws(error: ClientError) -> tuple[str, str, int]:
    given = error.response.get("Error", {})
    code, message = given.get("Code", ""), given.get("Message", "")
    text = f"{code}: {message}" if message else code
    if code == "ResourceNotFoundException":
        return text, "is this the right table (--table, BACKSTOP_TABLE), account and region?", 1
    if code in ("AccessDeniedException", "AccessDenied", "UnrecognizedClientException", "ExpiredTokenException"):
        return text, "use credentials that may read and write the table, its bucket and the state machines", 1
    if code == "StateMachineDoesNotExist":
        return text, "deploy handlers/redrive/template.yaml, or name the machine (--machine)", 1
    return text, "", 1
