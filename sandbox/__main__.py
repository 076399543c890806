"""`python -m sandbox run`: a function, with layers, invoked once or a few times; its logs, a timeline, what was captured."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandbox import deploy
from sandbox.config import Function, Mode
from sandbox.invocation import Call
from sandbox.journal import Entry
from sandbox.places import NoNamespaces
from sandbox.queue import Message, Queue
from sandbox.sandbox import Answer, Sandbox
from sandbox.startup import InitFailed
from sandbox.timeline import rows

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_STYLES = {"phase": "bold", "process": "dim", "event": "cyan", "call": ""}


class RunMode(StrEnum):
    """`stream`: on demand, with a caller who takes the answer piece by piece."""

    ONDEMAND = "ondemand"
    PROVISIONED = "provisioned"
    MANAGED = "managed"
    SNAPSTART = "snapstart"
    STREAM = "stream"


_MODES = {
    RunMode.PROVISIONED: Mode.PROVISIONED,
    RunMode.MANAGED: Mode.MANAGED,
    RunMode.SNAPSTART: Mode.SNAP_START,
}


@app.callback()
def main() -> None:
    """A local Lambda execution environment."""


@app.command()
def run(
    directory: Annotated[
        Path, typer.Argument(help="The function's code: becomes /var/task.", exists=True, file_okay=False)
    ],
    runtime: Annotated[
        str, typer.Option(help="python, node, bash, or provided (the code or a layer has a bootstrap).")
    ],
    event: Annotated[
        list[Path] | None,
        typer.Option(help="A file with an event; - is standard input. Repeat it for more invocations."),
    ] = None,
    layer: Annotated[list[Path] | None, typer.Option(help="A layer's zip file. Repeat it for more layers.")] = None,
    handler: Annotated[
        str | None, typer.Option(help="As in the function's configuration, such as index.handler.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="The function's timeout in seconds.", min=0.1, max=900)] = 3.0,
    memory: Annotated[int, typer.Option(help="The function's memory in MB.", min=32, max=32_768)] = 128,
    mode: Annotated[RunMode, typer.Option(help="How the environment is initialized, or answers.")] = RunMode.ONDEMAND,
    concurrency: Annotated[int, typer.Option(help="Invocations at a time, in mode managed.", min=1, max=100)] = 1,
    env: Annotated[list[str] | None, typer.Option(help="An environment variable, NAME=VALUE. Repeatable.")] = None,
    cpu: Annotated[
        bool, typer.Option(help="The share of a CPU that a function of this size has, where allowed.")
    ] = False,
    isolate: Annotated[
        bool | None, typer.Option(help="Insist on a root of its own, or on none; default: if allowed.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Run a function as Lambda would, with its layers and extensions, and show what happened.

    The status is 0 if every invocation succeeded, 1 if one failed, 2 if the function could not be set up.
    """
    console = Console(stderr=json_output, highlight=False)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-")))
            queue = stack.enter_context(Queue())
            function = _function(
                directory.resolve(), runtime, layer or [], handler, env or [], folder, queue,
                timeout_s=timeout, memory_mb=memory, mode=_MODES.get(mode, Mode.ON_DEMAND), concurrency=concurrency,
            )  # fmt: skip
            events = [_read(path) for path in event or []] or [b"{}"]
            sandbox = stack.enter_context(
                Sandbox(
                    function, folder / "environment", isolate=isolate, limit_cpu=cpu,
                    listener=lambda entry: _show_line(console, entry),
                )
            )  # fmt: skip
            answers = [_invoke(console, sandbox, one, streaming=mode is RunMode.STREAM) for one in events]
            sandbox.settle(timeout + 60)
            sandbox.stop()
            if json_output:
                _print_json(sandbox, answers, queue)
            else:
                _show_timeline(console, sandbox)
                _show_records(console, queue.messages())
    except (deploy.CannotDeploy, NoNamespaces) as problem:
        console.print(f"[red]{problem}")
        raise typer.Exit(2) from None
    except InitFailed as failed:
        console.print(f"[red]the initialization failed: {failed.fault.error_type}: {failed.fault.message}")
        raise typer.Exit(2) from None
    raise typer.Exit(1 if any(answer.error_type for answer in answers) else 0)


def _function(
    task: Path,
    runtime: str,
    layers: list[Path],
    handler: str | None,
    env: list[str],
    folder: Path,
    queue: Queue,
    *,
    timeout_s: float,
    memory_mb: int,
    mode: Mode,
    concurrency: int,
) -> Function:
    given: dict[str, str] = {}
    for pair in env:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise deploy.CannotDeploy(f"--env {pair}: use NAME=VALUE")
        given[name] = value
    opt = folder / "opt"
    deploy.unpack_layers(layers, opt)
    return Function(
        task,
        runtime=deploy.runtime_folder(runtime),
        opt=opt,
        handler=handler or deploy.guess_handler(runtime, task),
        name=task.name,
        timeout_s=timeout_s,
        memory_mb=memory_mb,
        mode=mode,
        concurrency=concurrency,
        log_format="JSON" if mode is Mode.MANAGED else "Text",
        environment=deploy.attach(opt, given, queue.url, queue.endpoint),
    )


def _read(path: Path) -> bytes:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        json.loads(data)
    except (OSError, ValueError) as problem:
        raise deploy.CannotDeploy(f"the event {path}: {problem}") from None
    return data


def _invoke(console: Console, sandbox: Sandbox, event: bytes, *, streaming: bool) -> Answer:
    running = sandbox.begin(Call(event, streaming=streaming))
    if streaming:
        for part in running.parts():
            console.print(Text(f"▸ {part.decode('utf-8', 'replace')}", "green"))
    answer = running.answer(sandbox.function.timeout_s + 200)
    shown = answer.payload.decode("utf-8", "replace")
    style, outcome = ("red", "error") if answer.error_type else ("green", "success")
    console.print(Text(f"■ {outcome} after {answer.seconds * 1000:.1f} ms: {shown}", style))
    return answer


def _show_line(console: Console, entry: Entry) -> None:
    if entry.kind == "log":
        console.print(Text.assemble((f"{entry.who} │ ", "dim"), entry.what))


def _show_timeline(console: Console, sandbox: Sandbox) -> None:
    table = Table("ms", "who", "what", "waited ms", title="timeline", title_justify="left", box=None, pad_edge=False)
    table.columns[0].justify = table.columns[3].justify = "right"
    for row in rows(sandbox.journal.entries()):
        waited = "" if row.waited_ms is None else f"{row.waited_ms:.1f}"
        table.add_row(f"{row.at_ms:.1f}", row.who, row.what, waited, style=_STYLES[row.kind])
    console.print()
    console.print(table)


def _show_records(console: Console, messages: list[Message]) -> None:
    console.print()
    console.print(f"captured records: {len(messages)}", style="bold")
    for message in messages:
        console.print_json(message.body)


def _print_json(sandbox: Sandbox, answers: list[Answer], queue: Queue) -> None:
    shown = {
        "answers": [
            {
                "requestId": answer.request_id,
                "errorType": answer.error_type,
                "milliseconds": round(answer.seconds * 1000, 3),
                "payload": answer.payload.decode("utf-8", "replace"),
            }
            for answer in answers
        ],
        "timeline": [
            {"ms": round(row.at_ms, 3), "kind": row.kind, "who": row.who, "what": row.what, "waitedMs": row.waited_ms}
            for row in rows(sandbox.journal.entries())
        ],
        "telemetry": [{"type": kind, "record": record} for kind, record in sandbox.platform_events()],
        "logs": [{"who": entry.who, "line": entry.what} for entry in sandbox.journal.entries("log")],
        "records": [json.loads(message.body) for message in queue.messages()],
    }
    print(json.dumps(shown, ensure_ascii=False))


if __name__ == "__main__":
    app()
