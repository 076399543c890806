"""Writes the figures of a run into docs/performance.md and README.md: `./build.sh bench | .venv/bin/python -m
benchmarks.publish`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.report import BUDGETS, Figure, held, met

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "./build.sh bench | .venv/bin/python -m benchmarks.publish"
BEGIN, END = f"<!-- figures: written by {COMMAND} -->", "<!-- end of figures -->"


def rows(figures: Iterable[Figure]) -> Iterator[str]:
    """Return the whole table's lines, one for each figure."""
    yield "| figure | value | of its reference | must | aim | |"
    yield "| --- | ---: | --- | ---: | ---: | --- |"
    for figure in figures:
        budget = BUDGETS.get(figure.name)
        ratio = f"{figure.ratio:.2f} × `{figure.ratio_to}`" if figure.ratio is not None else ""
        value = f"{figure.value:.2f} {figure.unit}"
        if budget is None:
            yield f"| `{figure.name}` | {value} | {ratio} | | | |"
            continue
        sign = "×" if budget.of == "ratio" else figure.unit
        bounds = f"{budget.must:g} {sign} | {budget.aim:g} {sign}"
        yield f"| `{figure.name}` | {value} | {ratio} | {bounds} | {met(figure, budget)} |"


def missed(figures: Iterable[Figure]) -> str:
    """Return which aims and musts are missed, in one sentence."""
    words = []
    for figure in figures:
        budget = BUDGETS.get(figure.name)
        measured = held(figure, budget) if budget else None
        if budget and measured is not None and measured > budget.aim:
            sign = "×" if budget.of == "ratio" else figure.unit
            words.append(f"`{figure.name}`: {measured:.2f} {sign} (aim {budget.aim:g}, must {budget.must:g})")
    return f"Missed of the aims: {'; '.join(words)}." if words else "Every figure meets its aim."


def machine() -> str:
    """Return what this machine is, in words."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return f"{os.cpu_count()} cores ({cpu}), Linux {platform.release()}, {system}"


def short_table(figures: dict[str, Figure]) -> str:
    """Return README's table: what Backstop costs, and what it is beside."""

    def text(name: str, digits: int = 1) -> str:
        return f"{figures[name].value:.{digits}f} {figures[name].unit}"

    added, relay = "invocation.{}.backstop", "invocation.{}.relay"
    lines = [
        ("", "Backstop", "beside it"),
        ("---", "---", "---"),
        (
            "start, to the first `/next`",
            text("start.backstop"),
            (
                f"{text('start.bare')} for its interpreter alone; {text('start.few_lines_boto3', 0)} for an extension of a few "
                "lines with boto3 and requests"
            ),
        ),
        ("idle memory", text("memory.backstop"), f"{text('memory.bare')}; {text('memory.few_lines_boto3', 0)}"),
        (
            "added to a successful invocation, 1 KB event",
            f"{text(added.format('1kb.p50'), 2)} (p99 {text(added.format('1kb.p99'), 2)})",
            f"{text(relay.format('1kb.p50'), 2)} for a plain TCP relay in Python",
        ),
        ("the same, 6 MB event", text(added.format("6mb.p50")), f"{text(relay.format('6mb.p50'))} for the relay"),
        (
            "failure → record on a local queue over TLS",
            f"{text('delivery.first.tls.backstop', 0)} first, {text('delivery.later.tls.backstop')} later",
            f"{text('delivery.first.tls.few_lines_boto3', 0)} and {text('delivery.later.tls.few_lines_boto3')} with boto3",
        ),
        (
            "layer",
            f"{text('size.zip')} zip, {text('size.unpacked')} unpacked",
            "Lambda's limit: 250 MB with the function",
        ),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def renewed(text: str, figures: str) -> str:
    """Return a page's text with what is between its two marks renewed. Raises ValueError where they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"put the lines {BEGIN!r} and {END!r} where the figures belong")
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def main() -> None:
    figures = [Figure(**json.loads(line)) for line in sys.stdin]
    head = f"`{COMMAND}`, {datetime.date.today()}, {machine()}, layer x86_64. {missed(figures)}"
    pages = {
        ROOT / "docs" / "performance.md": "\n".join((head, "", *rows(figures))),
        ROOT / "README.md": short_table({figure.name: figure for figure in figures}),
    }
    for page, content in pages.items():
        page.write_text(renewed(page.read_text(encoding="utf-8"), content), encoding="utf-8")


if __name__ == "__main__":
    main()
