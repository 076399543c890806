"""The demo's output for people: colour and two tables."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.e2e.demo.cost import Cost
from tests.e2e.demo.story import Result

_COLOURS = {"success": "green", "error": "yellow", "timeout": "magenta", "crash": "red"}


def show_results(console: Console, title: str, results: list[Result], without_logs: str = "") -> None:
    """What each invocation did, and what arrived for it. `without_logs` says why no record has log lines."""
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left", show_lines=True)
    table.caption = f"* {without_logs}" if without_logs else None
    table.add_column("invocation", max_width=10)
    table.add_column("the caller got", max_width=9)
    table.add_column("on the queue", min_width=22, overflow="fold")
    table.add_column("the event", max_width=10)
    table.add_column("the last log lines", min_width=20, overflow="fold")
    table.add_column("")
    for result in results:
        colour = _COLOURS[result.outcome]
        table.add_row(
            result.scene.name,
            Text(f"{result.outcome}\nin {result.answer.seconds:.2f} s", colour),
            *_record_cells(result),
            Text("✔", "bold green") if result.complaint is None else Text("✘", "bold red"),
        )
    console.print(table)
    console.print()


def _record_cells(result: Result) -> tuple[Text | str, ...]:
    record = result.record
    if record is None:
        return Text("nothing", "dim"), "", ""
    error = record.backstop["error"]
    size = len(result.scene.event)
    return (
        Text.assemble((record.condition, "bold cyan"), f"\n{error['type']}: {error['message']}"[:120]),
        Text(f"{size} bytes,\nall equal", "green") if result.intact else Text("NOT equal", "bold red"),
        "\n".join(_message(line) for line in result.log_lines) or Text("none *", "dim"),
    )


def _message(line: str) -> str:
    """The message of a log line that is JSON, as they all are on Managed Instances; else the line."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def show_cost(console: Console, cost: Cost, python: list[str] | None) -> None:
    """What the sidecar cost, and whether the root held a Python of its own."""
    table = Table(title="What the sidecar cost", title_justify="left", title_style="bold")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("how", style="dim", overflow="fold")
    table.add_row(
        "start", _figure(cost.start_ms, "ms"), "process start to its first /next, as its ready line says (median)"
    )
    table.add_row(
        "added time, p50",
        _figure(cost.added_ms_p50, "ms"),
        f"{cost.how}; {cost.rounds} successes of 1 KB, with and without",
    )
    table.add_row("memory", _figure(cost.rss_mb, "MB"), f"resident, after {cost.rounds} and more invocations")
    console.print(table)
    if python is None:
        console.print(
            "[yellow]No root of its own could be made here: whether the function saw a Python is not known.[/]"
        )
    elif python:
        console.print(f"[bold red]Python outside the layer: {', '.join(python)}[/]")
    else:
        console.print(
            "[green]The function's root holds no Python but the layer's own[/] (every file of it was looked at)."
        )


def _figure(value: float | None, unit: str) -> Text:
    return Text("missing", "bold red") if value is None else Text(f"{value:g} {unit}")
